"""`dualrs train` under torchrun, killed, and finished by one process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dualrs

TRAIN = ["-m", "dualrs.cli", "train"]


@pytest.fixture
def config(tmp_path):
    """Of a training on files of dark and bright images; its expert takes a while."""
    rng = np.random.default_rng(0)
    for i in range(128):
        path = tmp_path / "images" / ("train" if i < 96 else "test") / ("dark", "bright")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.integers(0, 40, (8, 8, 3)) + 210 * (i % 2)).astype(np.uint8)).save(path)
    network, plan = {"width": 4}, {"batch_size": 25, "learning_rate": 0.05, "crop_padding": 0}
    content = {
        "name": "toy", "data": f"folder:{tmp_path / 'images'}", "sigmas": [0.25, 0.5], "sigma_e": 0.5,
        "output": str(tmp_path / "out"),
        "experts": [{"sigmas": [0.25, 0.5], "network": network, "optimization": {**plan, "epochs": 40}}],
        "labels": {"n": 60},
        "estimator": {"network": network, "optimization": {**plan, "epochs": 2}},
    }  # fmt: skip
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def workers_of(agent):
    """The processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def wait_for(path, agent):
    end = time.monotonic() + 60
    while not path.exists():
        assert agent.poll() is None, agent.communicate()[0]
        assert time.monotonic() < end, f"there is no {path}"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_training_by_two_processes_is_killed_and_finished_by_one(config, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    command = [sys.executable, "-m", "torch.distributed.run", *address, *TRAIN, str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    checkpoint = tmp_path / "out/expert-0.25-0.5/checkpoint.pt"
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        wait_for(checkpoint, agent)
        workers = workers_of(agent.pid)
        os.kill(workers[-1], signal.SIGKILL)
        said, _ = agent.communicate(timeout=60)
    assert agent.returncode != 0
    assert "2 processes train together" in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert 0 < torch.load(checkpoint, weights_only=True)["epochs_done"] < 40
    assert not (tmp_path / "out/bundle").exists()

    command = [sys.executable, *TRAIN, str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "of 40 epochs" in done.stderr
    assert dualrs.load(tmp_path / "out/bundle").sigmas == (0.25, 0.5)
