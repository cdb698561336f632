"""Training losses as plain functions of logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against a distribution, one value per row.

    Args:
        logits: (B, K).
        targets: (B, K), rows summing to one.

    Source: Sun, Mao & Vechev 2026 (arXiv 2512.01782), the soft-label term of the estimator's loss.
    """
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def consistency(logits: Tensor, *, weight: float, entropy_weight: float, floor: float = 1e-10) -> Tensor:
    """Pulls the predictions for noisy copies of one image together; one value per image.

    ``weight · mean_j KL(p̄ ‖ p_j) + entropy_weight · H(p̄)`` with ``p̄ = mean_j p_j``; gradients flow
    through ``p̄``. Everything stays in log space (``log p̄ = logsumexp_j log p_j − log m``), so values and
    gradients are finite however large the logits.

    Args:
        logits: (m, B, K), the logits of m noisy copies of B images.
        weight: λ.
        entropy_weight: η.
        floor: the loss is never below this (the authors' clamp).

    Source: Jeong & Shin 2020 (arXiv 2006.04062), eq. 8; per-image form and clamp of Sun et al. 2026.
    """
    log_p = F.log_softmax(logits, dim=2)
    log_mean = torch.logsumexp(log_p, dim=0) - math.log(logits.shape[0])
    mean = log_mean.exp()
    divergence = (mean * (log_mean - log_p)).sum(dim=2).mean(dim=0)
    entropy = -(mean * log_mean).sum(dim=1)
    return (weight * divergence + entropy_weight * entropy).clamp_min(floor)
