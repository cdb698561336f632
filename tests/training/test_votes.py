import numpy as np
import pytest
import torch

from dualrs import SmoothedClassifier
from dualrs.training.votes import StaleVotesError, collect_votes


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


def collect(data, path, base=None, key="k", **options):
    model = SmoothedClassifier(base or Counting(), 0.5, 2, batch_size=50)
    options = {"asked": [data.label(i) for i in range(len(data))], **options}
    return collect_votes(model, data, n=50, seed=0, path=path, key=key, description="votes", **options)


def test_votes_survive_an_interruption(train_data, tmp_path, monkeypatch):
    monkeypatch.setattr("dualrs.training.votes._IMAGES_PER_WRITE", 20)
    whole = collect(train_data, tmp_path / "whole.npz")
    assert whole.counts.shape == (96, 1)
    assert (whole.counts > 45).all()
    assert (whole.drawn == 50).all()

    with pytest.raises(KeyboardInterrupt):
        collect(train_data, tmp_path / "parts.npz", Counting(fail_after=45))
    rest = Counting()
    resumed = collect(train_data, tmp_path / "parts.npz", rest)
    np.testing.assert_array_equal(resumed.counts, whole.counts)
    assert rest.batches < 96
    done = Counting()
    np.testing.assert_array_equal(collect(train_data, tmp_path / "parts.npz", done).counts, whole.counts)
    assert done.batches == 0


def test_more_images_go_on_from_fewer(train_data, tmp_path):
    first = collect(train_data.subset(range(40)), tmp_path / "v.npz")
    more = collect(train_data, tmp_path / "v.npz")
    np.testing.assert_array_equal(more.counts[:40], first.counts)
    np.testing.assert_array_equal(more.counts, collect(train_data, tmp_path / "anew.npz").counts)
    fewer = collect(train_data.subset(range(10)), tmp_path / "v.npz")
    assert len(fewer.counts) == len(fewer.drawn) == 10


def test_all_classes_are_counted_where_none_is_asked_about(train_data, tmp_path):
    votes = collect(train_data, tmp_path / "v.npz", asked=None)
    assert votes.counts.shape == (96, 2)
    assert (votes.counts.sum(axis=1) == 50).all()


def test_sampling_stops_early_and_says_what_that_saved(train_data, tmp_path, capsys):
    votes = collect(train_data, tmp_path / "v.npz", looks=(10, 25, 80), stop=lambda k, n: n >= 25 and k > 20)
    assert (votes.drawn == 25).all()
    assert "stopping early saved 50% of the votes" in capsys.readouterr().err


def test_votes_of_other_models_are_refused(train_data, tmp_path):
    collect(train_data, tmp_path / "v.npz", key="first")
    with pytest.raises(StaleVotesError, match="made by another model or with other settings"):
        collect(train_data, tmp_path / "v.npz", key="second")
