"""Labels for the variance estimator: how far each expert is certified on each training image.

The votes are few, so the radii are targets for training and no certificates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import (
    Certificate,
    Procedure,
    StageCounts,
    VoteRequest,
    clopper_pearson_lower,
    gaussian_radius,
)
from dualrs.data import ArrayDataset
from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.sampling import Job
from dualrs.smoothing import CLASSIFIER, SmoothedClassifier

_IMAGES_PER_PART = 500


class StaleLabelsError(ValueError):
    """Votes on disk that belong to another expert, other images or settings than those at hand."""


def true_class_votes(
    expert: SmoothedClassifier, data: ArrayDataset, *, n: int, seed: int, path: Path, key: str
) -> NDArray[np.int64]:
    """How many of ``n`` votes an expert gives to the true class of each image.

    Finished parts are written to ``path`` every 500 images; a later call with the same key goes on
    from there.

    Args:
        expert: a classifier and its noise level.
        data: N labelled images.
        n: votes per image.
        seed: of the noise.
        path: an ``.npz`` file.
        key: names everything the votes depend on.

    Returns:
        Votes, shape (N,).

    Raises:
        StaleLabelsError: the file at ``path`` has another key.
    """
    votes = _read(path, key, len(data))
    with Progress(f"labels for σ={expert.sigma:g}", total=len(data), unit="images") as progress:
        progress.advance(int((votes >= 0).sum()), measured=False)
        for start in range(0, len(data), _IMAGES_PER_PART):
            part = range(start, min(start + _IMAGES_PER_PART, len(data)))
            if (votes[part] >= 0).all():
                continue
            jobs = (Job(i, data.image(i), {"poll": _poll(expert.sigma, n)}, seed) for i in part)
            for result in expert.engine().run(jobs):
                i = int(str(result.key))
                votes[i] = result.outcomes["poll"].certificate.stages[0].counts[data.label(i)]
                progress.advance(1)
            with atomic_write(path) as file:
                np.savez(file, votes=votes, key=np.array(key))
    return votes


def label_radii(
    votes: NDArray[np.int64], sigmas: Sequence[float], *, n: int, mapped_n: int | None, alpha: float
) -> NDArray[np.float64]:
    """Radius of each expert for the true class, 0 where its lower bound is at most 1/2.

    With ``mapped_n`` the counts are first rescaled to that many votes, so that few votes do not cap the
    radius (Sun, Mao & Vechev 2026: N = 100 mapped to 10 000). The class is fixed beforehand (the true
    one), so no selection votes are needed.

    Args:
        votes: for the true class, shape (N, len(sigmas)).
        sigmas: noise levels.
        n: votes drawn for each entry.
        mapped_n: votes to rescale to; None bounds the counts as they are.
        alpha: failure probability of each bound.
    """
    trials = mapped_n or n
    lower = clopper_pearson_lower(votes * trials // n, trials, alpha)
    return gaussian_radius(lower, np.asarray(sigmas, dtype=np.float64))


def _poll(sigma: float, n: int) -> Procedure:
    """Draws votes and claims nothing about them."""
    counts = yield VoteRequest(CLASSIFIER, sigma, n)
    votes = StageCounts("votes", CLASSIFIER, sigma, tuple(counts.tolist()), n, None)
    return Certificate(None, 0.0, sigma, 0.5, "poll", (votes,))


def _read(path: Path, key: str, count: int) -> NDArray[np.int64]:
    if not path.exists():
        return np.full(count, -1, dtype=np.int64)
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != key:
            raise StaleLabelsError(
                f"{path} was made by another expert or with other settings (it says {stored['key']}, now {key}); "
                "remove it to label anew"
            )
        votes: NDArray[np.int64] = stored["votes"]
    return votes
