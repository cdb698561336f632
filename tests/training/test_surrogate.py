import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualrs.training.surrogate import exclusion_margins, utility_loss

LEVELS = torch.tensor([0.0, 0.5, 1.0])


def loss(margins, radii, sharpness=0.1, weights=(1.0, 1.0, 1.0)):
    return utility_loss(
        torch.tensor([margins]), torch.tensor([radii]), LEVELS, torch.tensor(weights), sharpness=sharpness
    ).item()


def test_margins_are_the_mean_difference_over_its_spread():
    # One image, two candidates; z_1 - z_0 takes 1 and 3: mean 2, variance 2 (also the batch's).
    logits = torch.tensor([[[0.0, 1.0]], [[0.0, 3.0]]])
    expected = 0.5 * 2 / math.sqrt(2)
    torch.testing.assert_close(
        exclusion_margins(logits, 0.5), torch.tensor([[expected, -expected]]), rtol=1e-5, atol=1e-5
    )


def test_the_spread_leans_on_the_batch():
    # Differences 1 and 3 (variance 2) and -5, 5 (variance 50): one degree of freedom each; the mean, 26, weighs 4.
    logits = torch.zeros(2, 2, 2)
    logits[:, :, 1] = torch.tensor([[1.0, -5.0], [3.0, 5.0]])
    variance = (2 + 4 * 26) / 5
    assert exclusion_margins(logits, 1.0)[0, 0].item() == pytest.approx(2 / math.sqrt(variance), rel=1e-5)


@given(st.floats(0.1, 50.0), st.floats(-30.0, 30.0))
def test_margins_do_not_depend_on_the_scale_or_offset_of_the_logits(scale, offset):
    logits = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        exclusion_margins(scale * logits + offset, 0.7), exclusion_margins(logits, 0.7), rtol=1e-3, atol=1e-3
    )


def test_many_copies_of_normal_logits_give_the_radius_of_the_choice():
    # z_1 - z_0 ~ N(0.9, 1): candidate 0 is chosen with probability Φ(-0.9), so it is excluded within 0.9 σ_e.
    difference = 0.9 + torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    logits = torch.stack([torch.zeros_like(difference), difference], dim=1).unsqueeze(1)
    assert exclusion_margins(logits, 2.0)[0, 0].item() == pytest.approx(1.8, abs=0.02)


def test_the_loss_is_the_utility_that_is_missed():
    # Candidate 0 holds up to 0.7, candidate 1 nowhere: levels 0 and 0.5 are within reach, if 1 is excluded there.
    assert loss([-2.0, 2.0], [0.7, 0.0]) == pytest.approx(0.0, abs=1e-6)
    # Not excluded, by (2 + 0) / 0.1 and (2 + 0.5) / 0.1: all is missed, and the logistic losses are 20 and 25.
    assert loss([2.0, -2.0], [0.7, 0.0]) == pytest.approx(2.0 + 0.03 * 45, abs=1e-5)
    # Excluded at 0 with margin 0.25 (degree sigmoid(2.5)) and not at 0.5 (sigmoid(-2.5)).
    near, far = (1 / (1 + math.exp(-x)) for x in (2.5, -2.5))
    at_0, at_half = (1 - degree - 0.03 * math.log(degree) for degree in (near, far))
    assert loss([-0.25, 0.25], [0.7, 0.0]) == pytest.approx(at_0 + at_half, abs=1e-5)
    assert loss([-0.25, 0.25], [0.7, 0.0], weights=(2.0, 1.0, 9.0)) == pytest.approx(2 * at_0 + at_half, abs=1e-5)


def test_candidates_that_hold_the_label_need_no_exclusion():
    assert loss([0.3, -0.3], [2.0, 2.0]) == 0.0


def test_what_no_expert_holds_costs_nothing():
    assert loss([1.0, -1.0], [0.0, 0.0]) == 0.0


def test_gradients_are_finite_however_large_the_logits():
    logits = torch.tensor([[[150.0, -150.0, 0.0]], [[150.0, -150.0, 0.0]]], requires_grad=True)
    margins = exclusion_margins(logits, 1.0)
    utility_loss(margins, torch.tensor([[0.0, 0.4, 1.2]]), LEVELS, torch.ones(3), sharpness=0.4).sum().backward()
    assert torch.isfinite(logits.grad).all()
