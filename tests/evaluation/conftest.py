"""Tables worked out by hand, and a world of half-spaces in which every true radius is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dualrs.certificates import Certificate, StageCounts
from dualrs.data import ArrayDataset
from dualrs.evaluation import row_of, table_of
from dualrs.sampling import Outcome
from dualrs.smoothing import DualSmoothedClassifier, Expert

ALPHA = 0.001
SIGMAS = (0.25, 0.5)


def single(label, radius, sigma):
    """A certificate of one stage pair, as `certify` gives it."""
    stages = (
        StageCounts("selection", f"expert-{sigma:g}", sigma, (60, 40), 100, None),
        StageCounts("estimation", f"expert-{sigma:g}", sigma, (700, 299), 1000, ALPHA),
    )
    return Certificate(label, radius, sigma, ALPHA, "cohen", stages)


def dual(label, sigma, estimator_radius, classifier_radius):
    """A certificate as `dual_certify` gives it; without σ the estimator abstained."""
    stages = (StageCounts("estimator/estimation", "estimator", 1.0, (900, 100), 1000, ALPHA / 2),)
    if sigma is None:
        return Certificate(None, 0.0, None, ALPHA, "min", stages, 0.0)
    radius = 0.0 if label is None else min(estimator_radius, classifier_radius)
    stages += (StageCounts("classifier/estimation", f"expert-{sigma:g}", sigma, (900, 90), 1000, ALPHA / 2),)
    return Certificate(label, radius, sigma, ALPHA, "min", stages, estimator_radius, classifier_radius)


# The true class is 1 throughout. Idx 7 is certified far and wrong; 9 abstains in the estimator, 11 in the expert.
BY_HAND = {
    3: {"dual": dual(1, 0.25, 0.25, 0.75), "global-0.25": single(1, 0.75, 0.25), "global-0.5": single(1, 0.5, 0.5)},
    5: {"dual": dual(1, 0.5, 2.0, 1.0), "global-0.25": single(None, 0.0, 0.25), "global-0.5": single(1, 1.0, 0.5)},
    7: {"dual": dual(0, 0.5, 1.5, 2.5), "global-0.25": single(1, 0.125, 0.25), "global-0.5": single(0, 2.5, 0.5)},
    9: {"dual": dual(None, None, 0, 0), "global-0.25": single(0, 0.5, 0.25), "global-0.5": single(None, 0.0, 0.5)},
    11: {"dual": dual(None, 0.25, 0.5, 0.0), "global-0.25": single(1, 0.5, 0.25), "global-0.5": single(1, 0.5, 0.5)},
}
SECONDS = {"dual": 2.0, "global-0.25": 0.5, "global-0.5": 1.0}


@pytest.fixture
def by_hand():
    """Five inputs, three methods, no oracle."""
    return table_of(
        row_of(idx, method, 1, Outcome(certificate, SECONDS[method]))
        for idx, certificates in BY_HAND.items()
        for method, certificate in certificates.items()
    )


def half_space(axis):
    """Class 1 where coordinate `axis` is above 1/2: its true radius is the distance to 1/2, at every σ."""

    def logits(batch):
        margin = batch.flatten(1)[:, axis] - 0.5
        return torch.stack([-margin, margin], dim=1)

    return logits


@pytest.fixture
def world():
    """A dual model on inputs of two values: the first decides the class, the second the noise level."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 1, 2, 1), dtype=np.uint8)
    truth = (images[:, 0, 0, 0] > 127).astype(np.int64)
    truth[4] = 1 - truth[4]  # one label is wrong
    published = np.arange(12, dtype=np.int64)[::-1] * 10

    def model(estimator=None, batch_size=256):
        experts = dict.fromkeys(SIGMAS, half_space(0))
        return DualSmoothedClassifier(estimator or half_space(1), 0.5, experts, 2, batch_size=batch_size)

    def thirds(batch):
        level = batch.flatten(1)[:, 1]
        return torch.stack([0.15 - level, torch.zeros_like(level), level - 0.85], dim=1)

    def pool():
        """A shallow network at one noise level; at the other a deeper one, which errs a little, and a callable."""
        shallow = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).eval()
        deep = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
        for layer, (weight, bias) in {
            shallow[1]: ([[-1, 0], [1, 0]], [0.5, -0.5]),
            deep[1]: ([[-1, 0], [1, 0]], [0.55, -0.55]),
            deep[3]: ([[1, 0], [0, 1]], [0, 0]),
        }.items():
            layer.weight.data, layer.bias.data = torch.tensor(weight).float(), torch.tensor(bias).float()
        experts = [Expert(shallow, 0.25), Expert(deep, 0.5, "deep"), Expert(half_space(0), 0.5, "callable")]
        return DualSmoothedClassifier(thirds, 0.5, experts, 2, backend="torch")

    return SimpleNamespace(
        model=model,
        pool=pool,
        dataset=ArrayDataset("toy", "test", images, truth, ("low", "high"), published),
        true_radius=lambda i: np.abs(images[i].reshape(2) / 255 - 0.5),
    )
