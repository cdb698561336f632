"""Labels for the variance estimator: how far each expert is certified on each training image.

The votes are few, so the radii are targets for training and no certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri
from torch import nn

from dualrs.certificates import clopper_pearson_lower, clopper_pearson_upper, gaussian_radius
from dualrs.data import Dataset
from dualrs.sampling import Base, Runner
from dualrs.smoothing import Execution, SmoothedClassifier
from dualrs.training.config import LabelConfig
from dualrs.training.votes import Stop, Votes, collect_votes

# Where sampling may stop, as shares of the cap, and the failure probability of each end of the interval that decides.
_LOOKS = (0.1, 0.3)
_DOUBT = 0.02

_QUANTILES = 200


def execution(plan: LabelConfig, device: str) -> Execution:
    """How networks vote during a training."""
    return {
        "backend": "compile" if device == "cpu" and plan.precision != "float32" else "auto",
        "device": device,
        "precision": plan.precision,
        "batch_size": plan.batch_size,
    }


def smoothed(base: Base, sigma: float, num_classes: int, plan: LabelConfig, device: str) -> SmoothedClassifier:
    """An expert as it votes during a training; what is no network runs in its own way."""
    runs: Execution = execution(plan, device) if isinstance(base, nn.Module) else {"batch_size": plan.batch_size}
    return SmoothedClassifier(base, sigma, num_classes, **runs)


def true_class_votes(
    expert: SmoothedClassifier,
    data: Dataset,
    plan: LabelConfig,
    *,
    seed: int,
    path: Path,
    key: str,
    name: str,
    runner: Runner | None = None,
) -> Votes:
    """How many of its votes an expert gives to the true class of each image, in one column.

    Sampling stops early where the radius is known to within ``plan.tolerance``: above all where there is none.

    Args:
        expert: a classifier and its noise level.
        data: labelled images, the first of a data set that ``key`` names.
        plan: votes per image, and when fewer will do.
        seed: of the noise.
        path: an ``.npz`` file; finished parts are kept in it, see `collect_votes`.
        key: names everything else that the votes depend on.
        name: of the expert, for the progress bar.
        runner: where it votes; None takes this process.

    Raises:
        StaleVotesError: the file at ``path`` has another key.
    """
    return collect_votes(
        expert,
        data,
        n=plan.n,
        seed=seed,
        path=path,
        key=f"{key} {label_settings(plan, seed)}",
        description=f"labels by {name}",
        asked=[data.label(i) for i in range(len(data))],
        looks=[max(1, round(share * plan.n)) for share in _LOOKS] if plan.tolerance else (),
        stop=_known_within(plan.tolerance, expert.sigma, plan.alpha) if plan.tolerance else None,
        runner=runner,
    )


def label_settings(plan: LabelConfig, seed: int) -> str:
    """What the end of their key says of how votes for labels were drawn."""
    return f"n={plan.n} tolerance={plan.tolerance:g} {plan.precision} seed={seed}"


def label_radii(votes: Sequence[Votes], sigmas: Sequence[float], plan: LabelConfig) -> NDArray[np.float64]:
    """Radius of each expert for the true class, 0 where it has no majority.

    "raw" bounds the counts as they are. "mapped" first rescales them to ``mapped_n`` votes, so that few votes do
    not cap the radius (Sun, Mao & Vechev 2026: N = 100 mapped to 10 000). The class is fixed beforehand (the true
    one), so no selection votes are needed. Mapped, a unanimous vote of 100 counts like one of 10 000, which
    flatters the large radii; "expected" is instead the mean of σ Φ⁻¹(p) over what the votes leave possible (a Beta
    posterior from Jeffreys' prior), no more than ``mapped_n`` votes could certify.

    Args:
        votes: of each expert for the true classes of N images.
        sigmas: their noise levels.
        plan: how votes become radii.

    Returns:
        Radii, shape (N, len(sigmas)).
    """
    return np.stack([_radius(v.counts[:, 0], v.drawn, s, plan) for v, s in zip(votes, sigmas, strict=True)], axis=1)


def _radius(
    correct: NDArray[np.int64], drawn: NDArray[np.int64], sigma: float, plan: LabelConfig
) -> NDArray[np.float64]:
    if plan.radius == "expected":
        cap = gaussian_radius(clopper_pearson_lower(plan.mapped_n, plan.mapped_n, plan.alpha), sigma)
        return np.minimum(sigma * np.maximum(_expected_quantile(correct, drawn), 0.0), cap)
    if plan.radius == "mapped":
        correct, drawn = correct * plan.mapped_n // drawn, np.full_like(drawn, plan.mapped_n)
    return np.asarray(gaussian_radius(clopper_pearson_lower(correct, drawn, plan.alpha), sigma))


def _expected_quantile(correct: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """E[Φ⁻¹(p)] for p of the Beta posterior, by the midpoint rule over its quantiles."""
    (votes, trials), which = np.unique(np.stack([correct, drawn]), axis=1, return_inverse=True)
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    p = betaincinv(votes[:, None] + 0.5, trials[:, None] - votes[:, None] + 0.5, shares)
    means: NDArray[np.float64] = ndtri(p).mean(axis=1)
    return means[which.reshape(-1)]


def _known_within(tolerance: float, sigma: float, alpha: float) -> Stop:
    """Stops where an interval for the radius is no longer than the tolerance."""

    def stop(votes: int, drawn: int) -> bool:
        bounds = (bound(votes, drawn, _DOUBT) for bound in (clopper_pearson_lower, clopper_pearson_upper))
        low, high = (float(gaussian_radius(min(float(bound), 1 - alpha), sigma)) for bound in bounds)
        return high - low <= tolerance

    return stop
