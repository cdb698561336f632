import numpy as np
import pytest
import torch

from dualrs.certificates import clopper_pearson_lower, clopper_pearson_upper
from dualrs.certificates.margins import exclusion_radius
from dualrs.training.dial import Dial, Setting, estimator_logits, forecast_radii, pareto


def test_forecasts_are_the_routed_radius_of_the_bounds():
    shares = np.array([[0.9, 0.08, 0.02], [0.4, 0.3, 0.3]])
    radii = np.array([[0.5, 0.2, 0.0], [0.5, 0.2, 0.1]])
    found = forecast_radii(shares, radii, 1.0, n=1000, alpha=0.001)
    low = [float(clopper_pearson_lower(k, 1000, 0.001)) for k in (900, 400)]
    high = [float(clopper_pearson_upper(k, 1000, 0.001)) for k in (80, 20)]
    excluded = [exclusion_radius(low[0], bound, 3, 1.0) for bound in high]
    assert found[0] == pytest.approx(min(0.5, max(excluded[0], 0.2), max(excluded[1], 0.0)), abs=1e-6)
    assert found[1] == pytest.approx(0.1, abs=1e-6)  # nothing is excluded far enough to matter


def world(images=200, votes=40, seed=0):
    """Half of the images are held far by candidate 0 alone, half by candidate 1; the estimator leans towards 0."""
    rng = np.random.default_rng(seed)
    which = np.arange(images) % 2
    radii = np.where(which[:, None] == 0, [[1.0, 0.0]], [[0.0, 1.0]])
    signal = np.where(which == 0, 4.0, -1.0)[:, None] + rng.standard_normal((images, votes))
    logits = np.stack([signal, np.zeros_like(signal)], axis=2).astype(np.float32)
    return Dial(logits, radii, 1.0, (0.0, 0.5), (1.0, 1.0), n=1000)


def test_the_dial_finds_the_bias_that_is_worth_most():
    dial = world()
    settings = dial.settings()
    assert settings[0].utility >= dial.judge((0.0, 0.0)).utility
    assert settings[0].bias[0] < 0  # away from the candidate that it leans towards
    assert settings[0].accuracy[1] > 0.9
    assert all(setting.bias[-1] == 0 for setting in settings)
    assert sum(settings[0].shares) == pytest.approx(1.0)


def test_dominated_settings_are_left_out():
    def setting(*accuracy):
        return Setting((0.0,), sum(accuracy), accuracy, (1.0,))

    best, other, worse, again = setting(0.9, 0.2), setting(0.5, 0.5), setting(0.4, 0.5), setting(0.9, 0.2)
    assert pareto([best, other, worse, again]) == [best, other]


def test_many_candidates_are_searched_one_after_the_other():
    rng = np.random.default_rng(0)
    dial = Dial(
        rng.standard_normal((20, 10, 5)).astype(np.float32), rng.random((20, 5)), 1.0, (0.0, 0.25), (1.0, 1.0), n=1000
    )
    assert all(len(setting.bias) == 5 for setting in dial.settings())


def test_logits_are_the_estimators_for_noisy_copies(train_data):
    class Mean(torch.nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(1)
            return torch.stack([mean, -mean], dim=1)

    subset = train_data.subset(range(4))
    logits = estimator_logits(Mean(), subset, 0.5, votes=64, seed=0)
    assert logits.shape == (4, 64, 2)
    clean = subset.tensors()[0].flatten(1).mean(1).numpy()
    np.testing.assert_allclose(logits[..., 0].mean(axis=1), clean, atol=0.04)
    np.testing.assert_array_equal(logits, estimator_logits(Mean(), subset, 0.5, votes=64, seed=0))
