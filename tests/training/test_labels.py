import numpy as np
import pytest
import torch
from scipy.special import ndtri

from dualrs import SmoothedClassifier
from dualrs.certificates import clopper_pearson_lower, gaussian_radius
from dualrs.training.config import LabelConfig
from dualrs.training.labels import label_radii, true_class_votes
from dualrs.training.votes import Votes

SIGMAS = (0.25, 1.0)


def radii(counts, n=100, **changes):
    counts = np.array(counts)
    votes = [Votes(column[:, None], np.full(len(column), n)) for column in counts.T]
    return label_radii(votes, SIGMAS, LabelConfig(**changes))


def test_radii_with_and_without_mapping():
    counts = [[100, 52], [67, 50], [0, 99]]
    raw, mapped = radii(counts, radius="raw"), radii(counts)
    assert raw[0, 0] == pytest.approx(0.25 * gaussian_radius(clopper_pearson_lower(100, 100, 0.0005), 1.0))
    assert raw[0, 1] == 0.0
    assert mapped[0, 0] == pytest.approx(0.25 * 3.170914, abs=1e-6)
    # The paper's arithmetic: raw counts need k ≥ 67 of 100, mapped ones k ≥ 52.
    assert raw[1, 0] > 0
    assert mapped[0, 1] > 0
    assert mapped[1, 1] == 0.0
    assert (mapped >= raw).all()


def test_the_expected_radius_is_the_posterior_mean():
    rng = np.random.default_rng(0)
    found = radii([[80, 97], [30, 100]], radius="expected")
    for k, value, sigma in ((80, found[0, 0], 0.25), (97, found[0, 1], 1.0), (100, found[1, 1], 1.0)):
        mean = ndtri(rng.beta(k + 0.5, 100 - k + 0.5, 200_000)).mean()
        assert value == pytest.approx(sigma * mean, abs=0.01 * sigma)
    assert found[1, 0] == 0.0
    assert radii([[10_000, 10_000]], n=10_000, radius="expected")[0, 1] == pytest.approx(3.170914, abs=1e-6)


def test_votes_that_settle_the_radius_are_few(train_data, tmp_path):
    def wrong_if_dark(x):  # bright images are always right, dark ones never
        return torch.tensor([[0.0, 1.0]]).repeat(len(x), 1)

    expert = SmoothedClassifier(wrong_if_dark, 1.0, 2, batch_size=50)
    plan = LabelConfig(n=100, tolerance=0.3)
    votes = true_class_votes(expert, train_data, plan, seed=0, path=tmp_path / "v.npz", key="k", name="expert-1")
    bright = train_data.labels == 1
    np.testing.assert_array_equal(votes.counts[:, 0] > 0, bright)
    assert (votes.drawn[~bright] == 10).all()  # no radius, and ten votes show it
    assert (votes.drawn[bright] == 100).all()  # how large a radius of unanimous votes is takes all there are
    every = true_class_votes(
        expert, train_data, LabelConfig(n=30, tolerance=0), seed=0, path=tmp_path / "w.npz", key="k", name="expert-1"
    )
    assert (every.drawn == 30).all()
