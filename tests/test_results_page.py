"""The page of results shows what the committed records say, and replayed votes give the engine's certificates."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from dualrs.config import parse_section
from dualrs.data import ArrayDataset
from dualrs.evaluation import procedures
from dualrs.sampling.votes import INVALID
from dualrs.smoothing import ESTIMATOR, DualSmoothedClassifier, SmoothedClassifier
from dualrs.training.config import EstimatorConfig, LabelConfig

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OPTIONS = {"n0": 20, "n": 300, "alpha": 0.01}
SEED = 7


@pytest.fixture
def benchmark_module(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module


def test_the_page_is_up_to_date():
    script = [sys.executable, BENCHMARKS / "results_page.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_all_rows_are_possible(benchmark_module):
    for name, row in benchmark_module("ablations_rows").rows().items():
        parse_section(EstimatorConfig, row.settings, source=name)
        parse_section(LabelConfig, row.label_settings, source=name)


def pixels(*numbers):
    """Votes for the brightest of some pixels, and for none where the first is out of range."""

    def logits(x):
        found = x.flatten(1)[:, numbers].clone()
        found[found[:, 0] > 1.6] = torch.nan
        return found

    return logits


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 4, 4, 1)).astype(np.uint8), np.zeros(6, dtype=np.int64)
    return ArrayDataset("pixels", "test", images, labels, ("a", "b", "c"))


@pytest.fixture
def model():
    return DualSmoothedClassifier(pixels(0, 1), 0.5, {0.25: pixels(2, 3, 4), 0.5: pixels(3, 4, 5)}, 3)


@pytest.fixture
def recorded(benchmark_module, model, data, tmp_path):
    levels = {ESTIMATOR: model.sigma_e} | {expert.name: expert.sigma for expert in model.experts}
    return {
        name: benchmark_module("ablations_votes").record_votes(
            SmoothedClassifier(model.bases[name], sigma),
            name,
            data,
            range(len(data)),
            votes=OPTIONS["n0"] + OPTIONS["n"],
            seed=SEED,
            path=tmp_path / f"{name}.npz",
            key="",
        )
        for name, sigma in levels.items()
    }


@pytest.mark.parametrize("rule", ["routed", "min"])
def test_replayed_votes_give_the_certificates_of_the_engine(benchmark_module, model, data, recorded, rule):
    replay = benchmark_module("ablations_votes").replay
    assert INVALID in recorded[ESTIMATOR]  # votes for no class are replayed too
    classes = {ESTIMATOR: 2} | {expert.name: 3 for expert in model.experts}
    make = procedures(model, rules=[rule], **OPTIONS)["dual"]
    replayed = [replay(make(), {name: v[i] for name, v in recorded.items()}, classes) for i in range(len(data))]
    images = [data.image(i) for i in range(len(data))]
    assert replayed == model.certify_batch(images, seed=SEED, rule=rule, **OPTIONS)
    assert any(certificate.radius > 0 for certificate in replayed)


def test_replay_makes_no_vote_up(benchmark_module, model, recorded):
    replay = benchmark_module("ablations_votes").replay
    classes = {ESTIMATOR: 2} | {expert.name: 3 for expert in model.experts}
    with pytest.raises(ValueError, match="has 320 votes"):
        replay(model.procedure("min", n0=20, n=301), {name: v[0] for name, v in recorded.items()}, classes)


def test_recorded_votes_are_read_again_or_refused(benchmark_module, data, recorded, tmp_path):
    def again(seed):
        return benchmark_module("ablations_votes").record_votes(
            SmoothedClassifier(pytest.fail, 0.5), ESTIMATOR, data, range(len(data)),
            votes=320, seed=seed, path=tmp_path / f"{ESTIMATOR}.npz", key="",
        )  # fmt: skip

    assert np.array_equal(again(SEED), recorded[ESTIMATOR])
    with pytest.raises(ValueError, match="holds other votes"):
        again(SEED + 1)
