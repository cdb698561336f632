import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from dualrs.training.losses import (
    bottom_k_cross_entropy,
    consistency,
    kl_divergence,
    log_mean_softmax,
    macer_hinge,
    mix_with_uniform,
    soft_cross_entropy,
)


def random_logits(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_soft_cross_entropy_equals_hand_computed_values():
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    expected = torch.tensor([math.log(2.0), math.log(4.0 / 3.0)])
    torch.testing.assert_close(soft_cross_entropy(logits, targets), expected)


def test_soft_cross_entropy_gradient_is_softmax_minus_target():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.softmax(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    soft_cross_entropy(logits, targets).sum().backward()
    torch.testing.assert_close(logits.grad, torch.softmax(logits.detach(), dim=1) - targets)


def test_consistency_equals_the_formula_in_probabilities():
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = torch.softmax(logits, dim=2)
    mean = p.mean(dim=0)
    divergence = (mean * (mean.log() - p.log())).sum(dim=2).mean(dim=0)
    entropy = -(mean * mean.log()).sum(dim=1)
    torch.testing.assert_close(consistency(logits, weight=40.0, entropy_weight=0.5), 40.0 * divergence + 0.5 * entropy)


def test_equal_confident_copies_cost_only_the_floor():
    logits = torch.tensor([[[200.0, 0.0, 0.0]]]).expand(2, 1, 3)
    assert consistency(logits, weight=40.0, entropy_weight=0.5).item() == pytest.approx(1e-10)


def test_two_certain_and_contradicting_copies():
    # p̄ = (1/2, 1/2), so KL(p̄ ‖ p_j) = log(1/2) + 150/2 for logits (±75, ∓75), and H(p̄) = log 2.
    logits = torch.tensor([[[75.0, -75.0]], [[-75.0, 75.0]]])
    expected = 1.0 * (-math.log(2.0) + 75.0) + 0.5 * math.log(2.0)
    assert consistency(logits, weight=1.0, entropy_weight=0.5).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [150.0, 1e4])
def test_extreme_logits_give_finite_values_and_gradients(scale):
    signs = torch.tensor([[[1.0, -1.0, 0.0]], [[-1.0, 1.0, 0.0]]])
    logits = (scale * signs).requires_grad_()
    loss = consistency(logits, weight=40.0, entropy_weight=0.5)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()


def test_gradient_flows_through_the_mean_prediction():
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: consistency(z, weight=3.0, entropy_weight=0.5), (logits.requires_grad_(),)
    )


def test_log_mean_softmax_is_the_mean_of_probabilities_and_finite_far_out():
    logits = random_logits(3, 4, 5)
    torch.testing.assert_close(log_mean_softmax(logits).exp(), logits.softmax(dim=2).mean(dim=0))
    far = torch.tensor([[[0.0, 1e4]], [[0.0, 1e4]]], dtype=torch.float64, requires_grad=True)
    log_mean_softmax(far)[0, 0].backward()
    assert log_mean_softmax(far)[0].tolist() == [-1e4, 0.0]
    # d log p_0 / dz = (1 - p_0, -p_1), half of it from each copy.
    torch.testing.assert_close(far.grad, torch.tensor([[[0.5, -0.5]], [[0.5, -0.5]]], dtype=torch.float64))


def test_kl_divergence_by_hand_and_with_a_target_for_all_copies():
    target, logits = torch.tensor([[0.75, 0.25]]).log(), torch.zeros(3, 1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(kl_divergence(target, logits), torch.full((3, 1), expected))
    target, logits = random_logits(4, 3, seed=1).log_softmax(1), random_logits(2, 4, 3).requires_grad_()
    kl_divergence(target, logits).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(2) - target.exp())


def test_macer_hinge_equals_the_formula_in_probabilities():
    logits, labels = random_logits(4, 6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    sigmas = torch.tensor([0.25, 0.5, 1.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    losses = macer_hinge(logits, labels, sigmas, beta=2.0, gamma=1.5).numpy()
    p = (2.0 * logits).softmax(dim=2).mean(dim=0).numpy()
    seen = set()
    for i, label in enumerate(labels.tolist()):
        rival = max(p[i, k] for k in range(3) if k != label)
        margin = norm.ppf(p[i, label]) - norm.ppf(rival)
        expected = sigmas[i].item() / 2 * max(1.5 - margin, 0.0) if margin > 0 else 0.0
        assert losses[i] == pytest.approx(expected, rel=1e-12)
        seen.add("wrong" if margin < 0 else "large" if margin > 1.5 else "counted")
    assert seen >= {"wrong", "counted"}


@given(difference=st.floats(0.01, 2.0), beta=st.floats(0.5, 16.0), sigma=st.floats(0.1, 2.0))
def test_macer_hinge_has_the_derivative_of_two_classes_and_one_copy(difference, beta, sigma):
    # ξ = 2 Φ⁻¹(p) with p = 1/(1 + exp(-β (z_0 - z_1))), so dξ/dz_0 = 2 β p (1 - p) / φ(Φ⁻¹(p)).
    logits = torch.tensor([[[difference, 0.0]]], dtype=torch.float64, requires_grad=True)
    level = torch.tensor([sigma], dtype=torch.float64)
    (loss,) = macer_hinge(logits, torch.tensor([0]), level, beta=beta, gamma=50.0)
    loss.backward()
    complement = 1 / (1 + math.exp(beta * difference))
    x = -norm.ppf(complement)
    slope = sigma * beta * complement * (1 - complement) / norm.pdf(x)
    assert loss.item() == pytest.approx(sigma / 2 * (50 - 2 * x), rel=1e-9)
    assert logits.grad.flatten().tolist() == pytest.approx([-slope, slope], rel=1e-7)


def test_macer_hinge_leaves_wrong_and_large_radii_alone_and_is_finite_far_out():
    logits = torch.tensor([[[0.0, 1.0], [0.01, 0.0], [5.0, 0.0], [1e4, 0.0], [-1e4, 0.0]]], requires_grad=True)
    labels, sigmas = torch.zeros(5, dtype=torch.int64), torch.ones(5)
    losses = macer_hinge(logits, labels, sigmas, beta=16.0, gamma=8.0)
    losses.sum().backward()
    assert losses[[0, 2, 3, 4]].tolist() == [0.0] * 4
    assert losses.dtype == torch.float32
    assert 0 < losses[1] < 4
    assert (logits.grad[0, [0, 2, 3, 4]] == 0).all()
    assert logits.grad[0, 1, 0] < 0 < logits.grad[0, 1, 1]


def test_macer_hinge_gradient_with_several_copies_and_classes():
    labels, sigmas = torch.tensor([0, 1, 2]), torch.ones(3, dtype=torch.float64)
    # Every image is right and none beyond the margin, where the hinge has no kink.
    logits = random_logits(3, 3, 3) * 0.1 + torch.eye(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda z: macer_hinge(z, labels, sigmas, beta=3.0, gamma=8.0), (logits.requires_grad_(),)
    )


@given(share=st.floats(0, 0.5), logit=st.floats(-200, 200))
def test_mixing_with_uniform_is_linear_in_probabilities(share, logit):
    log_p = torch.tensor([[logit, 0.0, 0.0]], dtype=torch.float64).log_softmax(dim=1).requires_grad_()
    mixed = mix_with_uniform(log_p, torch.tensor([share], dtype=torch.float64))
    torch.testing.assert_close(mixed.exp(), (1 - share) * log_p.exp() + share / 3)
    mixed.sum().backward()
    assert torch.isfinite(log_p.grad).all()


def test_bottom_k_takes_the_smallest_losses_of_each_image():
    # The losses of the copies are log 4, log 2 and log(4/3), in this order for image 0 and reversed for image 1.
    odds = torch.tensor([1 / 3, 1.0, 3.0]).log()
    logits = torch.stack([torch.stack([odds, odds.flip(0)], dim=1), torch.zeros(3, 2)], dim=2).requires_grad_()
    labels = torch.zeros(2, dtype=torch.int64)
    losses = bottom_k_cross_entropy(logits, labels, torch.tensor([2, 1]))
    expected = [(math.log(2) + math.log(4 / 3)) / 3, math.log(4 / 3) / 3]
    assert losses.tolist() == pytest.approx(expected)
    losses.sum().backward()
    # (p - 1) / 3 where the copy counts, with p = 1/4, 1/2, 3/4.
    torch.testing.assert_close(
        logits.grad[:, :, 0], torch.tensor([[0.0, -1 / 12], [-1 / 6, 0.0], [-1 / 12, 0.0]]), atol=1e-6, rtol=0
    )


@given(copies=st.integers(1, 5), seed=st.integers(0, 100))
def test_bottom_k_of_all_copies_is_the_mean_and_of_none_is_zero(copies, seed):
    logits, labels = random_logits(copies, 4, 3, seed=seed), torch.tensor([0, 1, 2, 0])
    every = torch.full((4,), copies)
    expected = -logits.log_softmax(2)[:, np.arange(4), labels].mean(dim=0)
    torch.testing.assert_close(bottom_k_cross_entropy(logits, labels, every), expected)
    assert bottom_k_cross_entropy(logits, labels, 0 * every).eq(0).all()
