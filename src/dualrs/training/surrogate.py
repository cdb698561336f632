"""A differentiable stand-in for what is finally certified: the routed radius, and its utility.

The routed certificate reaches beyond r if every candidate whose expert does not hold the label there is excluded
there (docs/theory.md, Theorem 5). So at each r that at least one expert reaches, each candidate that fails
has to be pushed out of the estimator's choices, with a margin that grows with r; candidates that hold the label may be
chosen or not. That is a loss on margins alone: nothing asks for the one best σ where several would do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_PRIOR = 4.0  # weight, in noisy copies, of the batch's spread in each image's: few copies alone say little
_LEAST_SPREAD = 1e-3

# Weight of a logistic loss beside the utility, whose gradient vanishes where a candidate is chosen with a wide margin:
# without it an estimator that begins with one choice for all images stays there.
_NUDGE = 0.03


def _mean_of_images(values: Tensor) -> Tensor:
    return values.mean(dim=0)


def exclusion_margins(
    logits: Tensor, sigma_e: float, *, mean_of_images: Callable[[Tensor], Tensor] = _mean_of_images
) -> Tensor:
    """How far the estimator's choice would have to be pushed for each candidate to be chosen, in input units.

    ``max_t σ_e · E[z_t − z_i] / sd[z_t − z_i]`` over the noisy copies. Were the difference of two logits normal
    under the noise, the candidate would win the comparison with probability ``Φ(−margin / σ_e)``, which the radius
    ``σ_e Φ⁻¹`` of Salman et al. 2019 (arXiv 1906.04584, Lemma 2) turns into the margin itself. Unlike radii from
    counted or averaged choices, it has a gradient however sure the estimator is, and large logits gain nothing. It
    trains; it certifies nothing.

    Args:
        logits: (m, B, K) for m ≥ 2 noisy copies of B images.
        sigma_e: noise level of the estimator.
        mean_of_images: the mean of values (B, …) over the images, and others where these are a part of a batch.

    Returns:
        Margins (B, K): positive for candidates that are not chosen, negative for the one that is.
    """
    copies, _, candidates = logits.shape
    difference = logits.unsqueeze(2) - logits.unsqueeze(3)  # [m, B, i, t] = z_t - z_i
    mean = difference.mean(dim=0)
    own = difference.var(dim=0)
    shared = mean_of_images(own)
    variance = ((copies - 1) * own + _PRIOR * shared) / (copies - 1 + _PRIOR)
    ratio = sigma_e * mean / (variance + _LEAST_SPREAD**2).sqrt()
    itself = torch.eye(candidates, dtype=torch.bool, device=logits.device)
    return ratio.masked_fill(itself, -torch.inf).amax(dim=2)


def utility_loss(margins: Tensor, radii: Tensor, levels: Tensor, weights: Tensor, *, sharpness: float) -> Tensor:
    """The reachable utility that is missed, for each image, and a little of the logistic loss of every failure.

    The utility of an image is the total weight of the levels r that its routed radius exceeds. Here a candidate
    is excluded at r to the degree ``sigmoid((margin − r) / sharpness)``, and the degrees of all candidates whose
    experts fail at r are multiplied.

    Args:
        margins: (B, K), see `exclusion_margins`.
        radii: certified radius for the true class of each candidate's expert, (B, K).
        levels: the radii r that count, (L,).
        weights: what each is worth, (L,).
        sharpness: width of the transition, in input units.

    Returns:
        Losses (B,); 0 for an image that no expert holds at any level.
    """
    holds = radii.unsqueeze(2) > levels
    log_excluded = F.logsigmoid((margins.unsqueeze(2) - levels) / sharpness).masked_fill(holds, 0.0).sum(dim=1)
    reachable = holds.any(dim=1)
    missed = 1 - log_excluded.exp() - _NUDGE * log_excluded
    return (missed * reachable * weights).sum(dim=1)
