"""The models that come with the package, on real images."""

import pytest

import dualrs
from dualrs import DualSmoothedClassifier
from dualrs.data import DataUnavailableError, fetch, load
from dualrs.evaluation import evaluate
from dualrs.models import find_bundle, shipped_models
from dualrs.training.experts import noisy_accuracy

# Accuracy under one noise draw that the shipped experts must reach, in percent, by σ.
TARGETS = {"cifar10": {0.25: 74, 0.5: 63, 1.0: 48}, "fashion-mnist": {0.25: 86, 0.5: 80, 1.0: 70}}


def test_both_models_are_there():
    assert shipped_models() == ["cifar10", "fashion-mnist"]


@pytest.mark.parametrize("name", ["cifar10", "fashion-mnist"])
def test_a_shipped_model_says_what_it_is(name):
    model = dualrs.load(name)
    assert isinstance(model, DualSmoothedClassifier)
    assert model.sigmas == (0.25, 0.5, 1.0)
    assert model.sigma_e == 1.0
    assert model.num_classes == len(model.classes) == 10
    recorded = {s: model.info[f"expert-{s:g}"]["test_accuracy_one_noise_draw"][f"{s:g}"] for s in model.sigmas}
    assert all(100 * recorded[s] >= TARGETS[name][s] for s in model.sigmas), recorded


def test_shipped_weights_stay_small():
    files = [path for name in shipped_models() for path in find_bundle(name).iterdir()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000


def test_the_fashion_model_certifies_real_images():
    model = dualrs.load("fashion-mnist")
    evaluation = evaluate(model, load("fashion-mnist-sample"), indices=range(0, 1000, 50), n=400)
    accuracy = evaluation.summary["certified_accuracy"]
    assert accuracy["dual"]["0.00"] >= 0.5
    assert accuracy["dual"]["0.50"] >= 0.4
    for radius, share in accuracy["oracle"].items():
        assert share >= max(accuracy[method][radius] for method in accuracy if method.startswith("global-"))


def test_every_certificate_of_an_input_is_the_one_that_certify_gives():
    model, data = dualrs.load("fashion-mnist"), load("fashion-mnist-sample")
    table = evaluate(model, data, indices=[3, 500], n=200).table
    for row in table.filter(table["method"] == "dual").iter_rows(named=True):
        alone = model.certify(data.image([3, 500][int(row["idx"] != data.indices[3])]), n=200)
        assert (alone.label, alone.radius, alone.sigma) == (row["predicted"], row["radius"], row["sigma"])


@pytest.fixture(scope="module")
def cifar10():
    try:
        fetch("cifar10")
        return load("cifar10")
    except DataUnavailableError as error:
        pytest.skip(f"CIFAR-10 cannot be had: {error}")


@pytest.mark.data
@pytest.mark.slow
def test_the_cifar_model_certifies_real_images(cifar10):
    model = dualrs.load("cifar10")
    evaluation = evaluate(model, cifar10, indices=range(0, 10_000, 500), n=200)
    assert evaluation.summary["certified_accuracy"]["dual"]["0.00"] >= 0.25


@pytest.mark.data
@pytest.mark.slow
def test_the_recorded_accuracy_of_the_cifar_experts_is_true(cifar10):
    model = dualrs.load("cifar10")
    sample = cifar10.subset(range(0, 10_000, 10))
    for expert in model.experts:
        recorded = model.info[expert.name]["test_accuracy_one_noise_draw"][f"{expert.sigma:g}"]
        # One tenth of the images: a standard error of 1.6 points at most.
        assert noisy_accuracy(expert.base, sample, expert.sigma) == pytest.approx(recorded, abs=0.06)
