"""Certifying, labelling and attacking on a cluster: the same as in one process, from Python and from the shell."""

import errno
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from polars.testing import assert_frame_equal

from dualrs.data import open_dataset
from dualrs.distributed import RayRunner
from dualrs.evaluation import evaluate, load_run
from dualrs.evaluation.attack import Plan, audit
from dualrs.models import InputSpec, NetworkSpec
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier
from dualrs.training.votes import collect_votes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]
BUDGET = {"n0": 20, "n": 200, "alpha": 0.01}


def network(outputs, channels=1):
    torch.manual_seed(outputs)
    return NetworkSpec(width=2).build(num_classes=outputs, mean=[0.3] * channels, std=[0.3] * channels).eval()


@pytest.fixture(scope="module")
def model():
    model = DualSmoothedClassifier(network(2), 1.0, {0.25: network(10), 0.5: network(10)}, 10, batch_size=64)
    model.input = InputSpec((1, 28, 28))
    return model


@pytest.fixture(scope="module")
def bundle(model, tmp_path_factory):
    return model.save(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def data():
    return open_dataset("fashion-mnist-sample", "test").subset(range(12))


@pytest.fixture
def runner(cluster):
    return RayRunner(address=cluster.address, workers=2)


def dualrs(*arguments):
    return [sys.executable, "-m", "dualrs.cli", *map(str, arguments)]


def test_certificates_are_the_same(model, data, runner, tmp_path):
    model.certify(data.image(0), **BUDGET)  # its networks are exported now, which does not keep it from going elsewhere
    rules = ["routed", "min", "multiscale", "largest"]
    there = evaluate(model, data, runner=runner, rules=rules, folder=tmp_path / "there", **BUDGET)
    here = evaluate(model, data, rules=rules, **BUDGET)
    assert_frame_equal(there.table.drop("seconds"), here.table.drop("seconds"))
    session = json.loads((tmp_path / "there" / "run.json").read_text())["sessions"][-1]
    assert len(session["workers"]) == 2
    assert session["lost_workers"] == {}
    assert session["engine"]["expert-0.25"]["votes"] >= 12 * 220


def test_a_run_begun_here_is_finished_there(model, data, runner, tmp_path):
    evaluate(model, data, indices=range(5), folder=tmp_path, **BUDGET)
    found = evaluate(model, data, runner=runner, folder=tmp_path, **BUDGET)
    assert_frame_equal(found.table.drop("seconds"), evaluate(model, data, **BUDGET).table.drop("seconds"))


def test_workers_that_draw_other_noise_are_not_taken(model, data, cluster):
    from dualrs.evaluation import procedures
    from dualrs.evaluation.certifying import Certifying

    work = Certifying(model, procedures(model, **BUDGET), data.image(0).shape, 0, noise="drawn by another NumPy")
    refused = pytest.raises(RuntimeError, match=r"no worker is left.*install the same versions")
    with refused, RayRunner(address=cluster.address, workers=1, most_failures=1).hire(work):
        pass


def test_votes_on_labels_are_the_same(data, runner, tmp_path):
    def collect(name, runner=None):
        expert = SmoothedClassifier(network(10), 0.5, 10, batch_size=64)
        asked = [data.label(i) for i in range(len(data))]
        stops = {"looks": [10, 30], "stop": lambda votes, drawn: votes > 2}
        about = {"path": tmp_path / name, "key": "k", "description": "votes", "asked": asked, "runner": runner}
        return collect_votes(expert, data, n=100, seed=0, **about, **stops)

    here, there = collect("here.npz"), collect("there.npz", runner)
    np.testing.assert_array_equal(there.counts, here.counts)
    np.testing.assert_array_equal(there.drawn, here.drawn)
    assert len(set(here.drawn)) > 1


def test_audits_are_the_same(model, data, runner, tmp_path):
    table = evaluate(model, data, indices=range(4), **BUDGET).table
    plan = Plan(steps=2, draws=2, starts=1, directions=1, keep=1, votes=20, n=1500)
    there = audit(model, data, table, plan, seed=1, runner=runner)
    here = audit(model, data, table, plan, seed=1)
    assert_frame_equal(there.table.drop("seconds"), here.table.drop("seconds"))
    assert there.complete


def test_a_disk_that_is_full_for_a_while_costs_nothing(model, data, runner, tmp_path, monkeypatch):
    from dualrs.evaluation import parts, store

    write, add, added, refused = parts.atomic_write, store.RunStore.add, [], []

    def full(path):
        if len(added) < len(data):
            refused.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path)

    def add_and_flush(self, rows):
        add(self, rows)
        added.append(rows)
        self.flush()

    monkeypatch.setattr(parts, "atomic_write", full)
    monkeypatch.setattr(store.RunStore, "add", add_and_flush)
    found = evaluate(model, data, runner=runner, folder=tmp_path, **BUDGET)
    assert found.complete
    assert len(refused) >= len(data) - 1
    monkeypatch.undo()
    assert_frame_equal(load_run(tmp_path).drop("seconds"), evaluate(model, data, **BUDGET).table.drop("seconds"))


def test_an_image_that_cannot_be_read_is_named_and_the_exit_code_says_so(cluster, tmp_path):
    model = SmoothedClassifier(network(2, channels=3), 0.5, 2)
    model.input = InputSpec((3, 28, 28))
    bundle = model.save(tmp_path / "bundle")
    for i in range(6):
        path = tmp_path / "images" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 28), 40 * i, dtype=np.uint8)).save(path)
    (tmp_path / "images" / "1" / "3.png").write_bytes(b"no image")
    command = ["certify", bundle, "--data", f"folder:{tmp_path / 'images'}", "--n", 50, "--output", tmp_path / "run"]
    cluster_options = ["--engine", "ray", "--address", cluster.address, "--workers", 1]
    found = subprocess.run(dualrs(*command, *cluster_options), capture_output=True, text=True, check=False)
    assert found.returncode == 4, found.stderr
    said = " ".join(found.stderr.split())
    assert "1 images were set aside" in said
    assert "3.png cannot be read as an image" in said
    assert load_run(tmp_path / "run")["idx"].n_unique() == 5


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(bundle, cluster, tmp_path):
    command = dualrs("certify", bundle, "--data", "fashion-mnist-sample", "--images", 12, "--n", 20_000, "--output")
    there = [*command, str(tmp_path / "run"), "--engine", "ray", "--address", cluster.address, "--workers", "2"]
    process = subprocess.Popen(there, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "run").glob("parts/*.parquet")):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    assert "run the same command again" in " ".join(said.split())
    finished = load_run(tmp_path / "run")["idx"].n_unique()
    assert 0 < finished < 12
    again = subprocess.run(there, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{finished} of 12 inputs are finished already" in again.stderr
    alone = subprocess.run([*command, str(tmp_path / "alone")], capture_output=True, text=True, check=False)
    assert alone.returncode == 0, alone.stderr
    assert_frame_equal(load_run(tmp_path / "run").drop("seconds"), load_run(tmp_path / "alone").drop("seconds"))


def test_options_of_a_cluster_are_refused_without_one(bundle):
    found = subprocess.run(
        dualrs("certify", bundle, "--data", "fashion-mnist-sample", "--workers", 2),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "--workers: only with --engine ray" in found.stderr
