"""The doctor finds out that a network expects other inputs than it gets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dualrs
from dualrs.data import DataUnavailableError, fetch, load
from dualrs.evaluation import diagnose
from dualrs.evaluation.doctor._figures import Sight
from dualrs.evaluation.doctor._inputs import find_misfits
from dualrs.models import NetworkSpec, load_classifier
from dualrs.smoothing import CLASSIFIER, SmoothedClassifier

CHECKPOINT = Path(__file__).parents[2].parent / "shared" / "models" / "resnet20-12fca82f.th"


@pytest.fixture(scope="module")
def sample():
    return load("fashion-mnist-sample").subset(range(0, 1000, 5))


@pytest.fixture(scope="module")
def expert():
    """The shipped expert for σ = 0.25, which is right on nine images of ten."""
    return dualrs.load("fashion-mnist").bases["expert-0.25"].eval()


class Behind(nn.Module):
    """The network behind something that its images should not go through."""

    def __init__(self, network, change):
        super().__init__()
        self.inner, self.change = network, change

    def forward(self, x):
        return self.inner(self.change(x))


def model_of(base):
    return SmoothedClassifier(base, 0.25, 10, backend="torch", batch_size=100)


def expected_inputs(base, data):
    """What the base classifier is found to expect, whatever its accuracy is; None where nothing is found."""
    sight = Sight(CLASSIFIER, 0.25, len(data), 0.0, 0.0, (0.0, 1.0), "0", 1.0, 0.0)
    inputs, labels = ({i: get(i) for i in range(len(data))} for get in (data.image, data.label))
    misfits = find_misfits(model_of(base), (sight,), inputs, labels, {CLASSIFIER: 100})
    assert all(misfit.after > misfit.before + 0.1 for misfit in misfits)
    return misfits[0].expects if misfits else None


def test_a_network_that_gets_what_it_expects_is_left_alone(expert, sample):
    assert expected_inputs(expert, sample) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x / 255, "inputs in [0, 255]"),
        (lambda x: (x + 1) / 2, "inputs normalised as 'half', (x − 0.5) / 0.5"),
        (lambda x: (x - 0.5) / 0.5, "inputs in [0, 1], and is given them normalised as 'half', (x − 0.5) / 0.5, or"),
    ],
)
def test_another_range_is_found_in_modules_and_in_anything_that_can_be_asked(change, expected, expert, sample):
    assert expected_inputs(Behind(expert, change), sample).startswith(expected)
    assert expected_inputs(lambda batch: expert(change(batch)), sample).startswith(expected)


def test_colours_in_another_order_are_found():
    """Each class has its own colour."""
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    pixels = (255 * colours[:, None, None, :].expand(-1, 4, 4, -1)).byte().numpy()
    labels = np.arange(60, dtype=np.int64) % 3
    data = dualrs.data.ArrayDataset("colours", "test", pixels[labels], labels, ("red", "green", "blue"))
    assert expected_inputs(lambda x: x.mean(dim=(2, 3)).flip(1), data) == "its colours in the order blue, green, red"
    assert expected_inputs(lambda x: x.mean(dim=(2, 3)), data) is None


@pytest.mark.parametrize("wrong", [(80.0, 60.0), (0.0, 1 / 255)])
def test_a_wrong_normalisation_of_its_own_is_undone_first(wrong, expert, sample):
    """The network was trained behind (x − 0.286) / 0.353, to which 'half' is the nearest of those that are tried."""
    network = NetworkSpec(width=expert.head.in_features // 8)
    network = network.build(num_classes=10, mean=(wrong[0],), std=(wrong[1],)).eval()
    weights = {key: value for key, value in expert.state_dict().items() if not key.startswith("normalize.")}
    network.load_state_dict(weights, strict=False)
    assert expected_inputs(network, sample) in {
        "inputs normalised as 'half', (x − 0.5) / 0.5, in the place of its own normalisation",
        "inputs normalised as 'none', (x − 0) / 1, in the place of its own normalisation",
    }


def test_a_network_that_is_blind_stays_blind(sample):
    torch.manual_seed(0)
    assert (
        expected_inputs(NetworkSpec(width=2).build(num_classes=10, mean=(0.286,), std=(0.353,)).eval(), sample) is None
    )


def test_the_finding_has_both_accuracies_and_what_is_explained_is_not_guessed_at(expert, sample):
    model = model_of(Behind(expert, lambda x: x / 255))
    diagnosis = diagnose(model, sample, images=1, n=32, seconds=0.01)
    (misfit,) = diagnosis.misfits
    problems = [finding.text for finding in diagnosis.findings if finding.level == "problem"]
    assert problems[0].startswith("classifier looks as if it expects inputs in [0, 255]: without noise it is right on")
    assert f"{100 * misfit.before:.1f} % of 100 images as they are, and on {100 * misfit.after:.1f} %" in problems[0]
    assert misfit.after > 0.8
    assert not any("Usual causes" in text for text in problems)


@pytest.mark.data
@pytest.mark.parametrize(
    ("loaded_as", "change", "expected"),
    [
        ("none", None, {"cifar10", "imagenet"}),  # which differ by less than 100 images can tell
        ("cifar10-centre", None, {"cifar10", "imagenet"}),
        ("imagenet", lambda x: x / 255, {"[0, 255]"}),
    ],
)
def test_a_published_network_loaded_wrongly_is_told_what_is_right(loaded_as, change, expected):
    if not CHECKPOINT.is_file():
        pytest.skip(f"the published weights {CHECKPOINT.name} are not beside this repository")
    try:
        fetch("cifar10")
    except DataUnavailableError as error:
        pytest.skip(f"CIFAR-10 cannot be had: {error}")
    base = load_classifier(CHECKPOINT, architecture="resnet20", normalisation=loaded_as)
    data = load("cifar10").subset(np.arange(0, 10_000, 100))
    found = expected_inputs(base if change is None else Behind(base, change), data)
    assert any(name in found for name in expected)
    assert ("in the place of its own" in found) == (change is None)
