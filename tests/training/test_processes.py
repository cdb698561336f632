"""Training by several processes at once, against one process with the whole batch.

All processes are on this machine and on its CPU; what connects them is what connects machines.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import dualrs
from dualrs.training import processes
from dualrs.training.processes import ALONE, Team, join, led, one_of_each_machine_first, quietly

WORKER = Path(__file__).with_name("together.py")
TRAININGS = [
    "gaussian", "stability", "smoothadv", "macer", "consistency", "smoothmix", "catrs", "an expert that is told σ",
    "fine-tuning", "denoiser", "diffusion", "estimator", "an estimator of the best σ", "an estimator behind a denoiser",
]  # fmt: skip


def as_torchrun(rank, count):
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return {"TORCHELASTIC_RUN_ID": "test", **numbers}


def as_srun(rank, count):
    numbers = {"NTASKS": count, "NTASKS_PER_NODE": count, "PROCID": rank, "LOCALID": rank, "NODEID": 0, "NNODES": 1}
    job = {"JOB_ID": 12345, "JOB_NAME": "training", "JOB_NODELIST": "localhost", "NODELIST": "localhost"}
    return {f"SLURM_{name}": value for name, value in (numbers | job).items()}


def launch(count, folder, *tasks, by=as_torchrun, device="cpu", code=0, timeout=240):
    """Runs tasks in so many processes; returns what they said."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    running = []
    for rank in range(count):
        given = {**address, **by(rank, count), "OMP_NUM_THREADS": 1} if count > 1 else {"OMP_NUM_THREADS": 1}
        environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
        command = [sys.executable, str(WORKER), device, str(folder), *tasks]
        running.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    end = time.monotonic() + timeout
    try:
        said = [process.communicate(timeout=max(1, end - time.monotonic()))[0] for process in running]
    finally:
        for process in running:
            process.kill()
    if code == 0:
        assert [process.returncode for process in running] == [0] * count, "\n".join(said)
    return said, [process.returncode for process in running]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What one process, two and three make of the same tasks, and of what the others have begun."""
    root = tmp_path_factory.mktemp("together")
    launch(1, root / "1", "trainings", "odd", "twice=whole", "once=stopped")
    shutil.copytree(root / "1/stopped", root / "2/of one")
    launch(2, root / "2", "trainings", "odd", "once=stopped", "twice=of one", "failures", "fetched")
    for count in (1, 3):
        shutil.copytree(root / "2/stopped", root / f"{count}/of two")
    launch(1, root / "1", "twice=of two")
    launch(3, root / "3", "odd", "twice=of two", "fetched")
    return root


def assert_agree(found, expected):
    found, expected = (torch.load(path, weights_only=True) for path in (found, expected))
    assert len(found["steps"]) == len(expected["steps"])
    for ours, theirs in zip(found["steps"], expected["steps"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_as_one_does(folders, name):
    assert_agree(folders / f"2/{name}.pt", folders / f"1/{name}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_small_batches_and_weights_that_not_all_processes_use(folders, count):
    assert_agree(folders / f"{count}/odd.pt", folders / "1/odd.pt")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["1/of two", "3/of two", "2/of one"])
def test_a_training_goes_on_with_another_number_of_processes(folders, how):
    found, whole = (folders / f"{place}/gaussian" for place in (how, "1/whole"))
    first, second = (torch.load(path.with_suffix(".pt"), weights_only=True)["weights"] for path in (found, whole))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    logs = [[json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (found, whole)]
    assert [entry["epoch"] for entry in logs[0]] == [1, 2]
    assert [entry["loss"] for entry in logs[0]] == pytest.approx([entry["loss"] for entry in logs[1]], rel=1e-5)


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all(folders):
    first, second = (json.loads((folders / f"2/said-{rank}.json").read_text()) for rank in (0, 1))
    assert first["diverging"] == second["diverging"]
    assert first["diverging"].startswith("TrainingDivergedError: test: the loss became nan in epoch 1")
    assert first["led"].startswith("JSONDecodeError")
    assert second["led"].startswith("LeaderError: the first process has stopped: JSONDecodeError")
    assert first["stale"].startswith("StaleCheckpointError")
    assert "a was 1, is 2" in second["stale"]
    assert second["stale"].startswith("LeaderError")
    # A process that leads is alone in what it does for all, and the others are told what came of it.
    assert first["after"] == second["after"] == 1
    assert not first["quiet"]
    assert not second["quiet"]


@pytest.mark.slow
def test_only_the_first_process_keeps_files(folders):
    assert list(folders.rglob("checkpoint.pt"))
    assert not list(folders.rglob("elsewhere"))


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_one_process_of_a_machine_goes_ahead(folders, count):
    found = [(folders / f"{count}/found-{rank}").read_text() for rank in range(count)]
    assert found == ["False", *["True"] * (count - 1)]


@pytest.mark.slow
def test_every_step_of_a_training_is_done_once_and_known_to_all(tmp_path):
    said, _ = launch(2, tmp_path, "pipeline")
    made = [json.loads((tmp_path / f"made-{rank}.json").read_text()) for rank in (0, 1)]
    assert made == [[str(tmp_path / "out/bundle"), 0.0]] * 2
    assert "pool: expert-0.25, expert-0.5 of 2 experts" in said[0]
    assert said[1] == ""
    assert dualrs.load(tmp_path / "out/bundle").sigmas == (0.25, 0.5)
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob("elsewhere")]


@pytest.mark.slow
def test_a_first_process_that_is_killed_ends_the_others(tmp_path):
    _, codes = launch(2, tmp_path, "killed", code=None, timeout=60)
    assert codes[0] == 9
    assert codes[1] not in {0, None}


@pytest.mark.slow
def test_processes_that_slurm_has_started_train_together(folders, tmp_path):
    said, _ = launch(2, tmp_path, "twice", by=as_srun)
    assert said[0].startswith("2 processes train together\n")
    assert said[1] == ""
    assert_agree(tmp_path / "gaussian.pt", folders / "1/whole/gaussian.pt")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4, 8])
def test_several_gpus_train_as_one_does(tmp_path, count):
    if torch.cuda.device_count() < count:
        pytest.skip(f"there are not {count} CUDA devices")
    for number in (1, count):
        launch(number, tmp_path / str(number), "trainings", device="cuda", timeout=500)
    for name in TRAININGS:
        assert_agree(tmp_path / f"{count}/{name}.pt", tmp_path / f"1/{name}.pt")


@pytest.mark.gpu
@pytest.mark.slow
def test_what_a_gpu_has_begun_processes_on_the_cpu_finish(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    launch(1, tmp_path, "once", device="cuda")
    launch(2, tmp_path, "twice")
    assert torch.load(tmp_path / "gaussian/checkpoint.pt", weights_only=True)["epochs_done"] == 2


def test_a_process_that_was_started_by_itself_is_alone(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert join("cpu") is ALONE
    for name, value in as_srun(0, 1).items():
        monkeypatch.setenv(name, str(value))
    assert join("cpu") is ALONE
    assert not torch.distributed.is_initialized()
    assert ALONE.leads
    assert ALONE.add([0.1, 2]) == [0.1, 2]
    assert led(lambda a, b: a + b)(1, b=2) == 3
    ALONE.wait()
    with one_of_each_machine_first():
        pass


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda:1", 4, "several processes train on cpu or cuda, each on a GPU of its own; got 'cuda:1'"),
        ("mps", 0, "got 'mps'"),
        ("cuda", 2, "4 processes on a machine with 2 GPUs"),
        ("cuda", 0, "there is no device 'cuda' here"),
    ],
)
def test_devices_that_processes_cannot_have_are_refused(monkeypatch, device, gpus, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in as_torchrun(0, 4).items():
        monkeypatch.setenv(name, str(value))
    if gpus == 0 and torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    with pytest.raises(ValueError, match=message):
        join(device)


def test_processes_get_gpus_by_their_number_on_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [device.index for device in processes._devices("cuda", 3)] == [0, 1, 2]
    # SLURM's --gpus-per-task=1: each process sees its own GPU and no other.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert [device.index for device in processes._devices("cuda", 3)] == [0, 0, 0]


@pytest.mark.parametrize(("count", "size"), [(25, 2), (26, 3), (3, 3), (128, 8)])
def test_parts_are_all_of_it_and_even(count, size):
    parts = [range(count)[Team(rank, size).part(count)] for rank in range(size)]
    assert [number for part in parts for number in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_block_is_quiet_and_what_comes_after_it_is_not():
    assert not processes.console.quiet
    with quietly(silent=False):
        assert not processes.console.quiet
    with quietly(), quietly(silent=False):
        assert processes.console.quiet
    with pytest.raises(ValueError, match="loud"), quietly():
        raise ValueError("loud")
    assert not processes.console.quiet
