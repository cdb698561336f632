import numpy as np
import pytest
import torch

from dualrs.training.config import EstimatorConfig, UtilityConfig
from dualrs.training.selection import noisy_features, pool_names, rank_pools

UTILITY = UtilityConfig(radii=(0.0, 0.5), weights=None)


def test_the_pool_that_complements_itself_wins():
    # Candidates 0 and 1 hold one half of the images each, 2 holds nothing; the features tell the halves apart.
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(600) % 2
    features = torch.randn(4, 600, 3, generator=generator)
    features[:, :, 0] += 6.0 * which - 3.0
    radii = np.zeros((600, 3))
    radii[which.numpy() == 0, 0] = radii[which.numpy() == 1, 1] = 0.8
    scores = rank_pools(features, radii, 1.0, UTILITY, judged=200)
    assert scores[0].members in {(0, 1), (0, 1, 2)}
    assert len(scores) == 7
    assert {score.members: score.utility for score in scores}[0,] == pytest.approx(1.0, abs=0.01)
    assert scores[0].utility > 1.5
    assert pool_names(scores[0], ("a", "b", "c"))[:2] == ("a", "b")
    assert max(len(score.members) for score in rank_pools(features, radii, 1.0, UTILITY, judged=200, most=2)) == 2


def test_too_many_pools_are_refused():
    with pytest.raises(ValueError, match="try smaller pools"):
        rank_pools(torch.zeros(2, 4, 1), np.ones((4, 12)), 1.0, UTILITY, judged=2)


def test_features_are_what_the_last_layer_sees(train_data):
    network = EstimatorConfig.model_validate({"network": {"width": 4}, "optimization": {"epochs": 1}}).network.build(
        num_classes=2, mean=train_data.mean, std=train_data.std
    )
    network.eval()
    features = noisy_features(network, train_data.subset(range(6)), 0.0, copies=2, seed=0)
    assert features.shape == (2, 6, 32)
    torch.testing.assert_close(features[0], features[1])
    logits = network(train_data.subset(range(6)).tensors()[0])
    torch.testing.assert_close(network.head(features[0]) * network._LOGIT_SCALE, logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no linear layer"):
        noisy_features(torch.nn.Flatten(), train_data, 0.5, copies=2, seed=0)
