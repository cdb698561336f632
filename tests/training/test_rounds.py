import numpy as np
import torch

from dualrs import SmoothedClassifier
from dualrs.training.config import FineTuning
from dualrs.training.experts import fine_tune_expert
from dualrs.training.rounds import assign, estimator_votes
from dualrs.training.votes import Votes

VOTES = Votes(np.array([[80, 15, 5], [45, 55, 0], [0, 0, 100]]), np.array([100, 100, 100]))


def test_the_majority_takes_an_image_whole():
    np.testing.assert_array_equal(assign(VOTES, "majority"), np.eye(3)[[0, 1, 2]])


def test_all_that_may_be_chosen_share_an_image():
    np.testing.assert_allclose(assign(VOTES, "possible"), [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])


def test_votes_of_the_estimator_are_for_its_candidates(train_data, tmp_path):
    def bright(x):
        brightness = x.flatten(1).mean(1) - 0.5
        return torch.stack([-brightness, brightness], dim=1)

    votes = estimator_votes(
        SmoothedClassifier(bright, 0.5, 2, batch_size=50), train_data, n=20, seed=0, path=tmp_path / "v.npz", key="k"
    )
    assert (votes.counts.sum(axis=1) == 20).all()
    np.testing.assert_array_equal(votes.counts.argmax(axis=1), train_data.labels)


def test_an_expert_learns_only_from_its_images(train_data, tmp_path):
    plan = FineTuning.model_validate({"optimization": {"epochs": 1, "batch_size": 16, "crop_padding": 0}})
    seen = []

    class Recording(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 2)

        def forward(self, x):
            seen.append(x.detach())
            return self.layer(x.flatten(1))

    expert = Recording()
    before = expert.layer.weight.detach().clone()
    shares = np.stack([train_data.labels == 1, np.zeros(96)], axis=1).astype(np.float32)
    tuned = fine_tune_expert(expert, plan, train_data, (1e-4, 5.0), shares, folder=tmp_path, seed=0, name="expert")
    images = torch.cat(seen)
    assert len(images) == 48
    assert images.flatten(1).mean(1).min() > 0.5  # the bright ones, under the first noise level alone
    assert not torch.equal(tuned.layer.weight, before)
    torch.testing.assert_close(expert.layer.weight, before)

    untouched = fine_tune_expert(
        expert, plan, train_data, (1e-4, 5.0), np.zeros((96, 2), np.float32), folder=tmp_path / "n", seed=0, name="n"
    )
    assert untouched is expert
