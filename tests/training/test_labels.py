import numpy as np
import pytest
import torch

from dualrs import SmoothedClassifier
from dualrs.certificates import clopper_pearson_lower, gaussian_radius
from dualrs.training.labels import StaleLabelsError, label_radii, true_class_votes

SIGMAS = (0.25, 1.0)


class Counting:
    """Calls the bright class bright, and counts the batches it was asked for."""

    def __init__(self, fail_after=None):
        self.batches, self.fail_after = 0, fail_after

    def __call__(self, x):
        self.batches += 1
        if self.fail_after is not None and self.batches > self.fail_after:
            raise KeyboardInterrupt
        brightness = x.flatten(1).mean(1) - 0.5
        return torch.stack([-brightness, brightness], dim=1)


def votes(data, path, base, key="k"):
    expert = SmoothedClassifier(base, 0.5, 2, batch_size=50)
    return true_class_votes(expert, data, n=50, seed=0, path=path, key=key)


def test_votes_are_for_the_true_class_and_survive_an_interruption(train_data, tmp_path, monkeypatch):
    monkeypatch.setattr("dualrs.training.labels._IMAGES_PER_PART", 20)
    whole = votes(train_data, tmp_path / "whole.npz", Counting())
    assert whole.shape == (96,)
    assert (whole > 45).all()

    with pytest.raises(KeyboardInterrupt):
        votes(train_data, tmp_path / "parts.npz", Counting(fail_after=45))
    rest = Counting()
    resumed = votes(train_data, tmp_path / "parts.npz", rest)
    assert np.array_equal(resumed, whole)
    assert rest.batches < 96
    done = Counting()
    assert np.array_equal(votes(train_data, tmp_path / "parts.npz", done), whole)
    assert done.batches == 0


def test_votes_of_other_experts_are_refused(train_data, tmp_path):
    votes(train_data, tmp_path / "v.npz", Counting(), key="first")
    with pytest.raises(StaleLabelsError, match="made by another expert or with other settings"):
        votes(train_data, tmp_path / "v.npz", Counting(), key="second")


def test_radii_with_and_without_mapping():
    counts = np.array([[100, 52], [67, 50], [0, 99]])
    raw = label_radii(counts, SIGMAS, n=100, mapped_n=None, alpha=0.0005)
    mapped = label_radii(counts, SIGMAS, n=100, mapped_n=10_000, alpha=0.0005)
    assert raw[0, 0] == pytest.approx(0.25 * gaussian_radius(clopper_pearson_lower(100, 100, 0.0005), 1.0))
    assert raw[0, 1] == 0.0
    assert mapped[0, 0] == pytest.approx(0.25 * 3.170914, abs=1e-6)
    # The paper's arithmetic: raw counts need k ≥ 67 of 100, mapped ones k ≥ 52.
    assert raw[1, 0] > 0
    assert mapped[0, 1] > 0
    assert mapped[1, 1] == 0.0
    assert (mapped >= raw).all()
