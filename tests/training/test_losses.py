import math

import pytest
import torch

from dualrs.training.losses import consistency, soft_cross_entropy


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
