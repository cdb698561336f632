"""Labels for the variance estimator: how far each expert is certified on each training image.

The votes are few, so the radii are targets for training and no certificates.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import (
    Certificate,
    Procedure,
    StageCounts,
    VoteRequest,
    clopper_pearson_lower,
    expert_name,
    gaussian_radius,
)
from dualrs.data import ArrayDataset
from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.sampling import Engine, Job

_IMAGES_PER_PART = 500


class StaleLabelsError(ValueError):
    """Votes on disk that belong to other experts, images or settings than those at hand."""


def true_class_votes(
    engine: Engine,
    data: ArrayDataset,
    sigmas: Sequence[float],
    *,
    n: int,
    seed: int,
    path: Path,
    key: str,
) -> NDArray[np.int64]:
    """How many of ``n`` votes each expert gives to the true class of each image.

    Finished parts are written to ``path`` every 500 images; a later call with the same key goes on
    from there.

    Args:
        engine: knows the experts by `expert_name`.
        data: N labelled images.
        sigmas: noise levels of the experts.
        n: votes per image and expert.
        seed: of the noise.
        path: an ``.npz`` file.
        key: names everything the votes depend on.

    Returns:
        Votes, shape (N, len(sigmas)).

    Raises:
        StaleLabelsError: the file at ``path`` has another key.
    """
    votes = _read(path, key, shape=(len(data), len(sigmas)))
    with Progress("labels", total=len(data), unit="images") as progress:
        progress.advance(int((votes[:, 0] >= 0).sum()), measured=False)
        for start in range(0, len(data), _IMAGES_PER_PART):
            part = range(start, min(start + _IMAGES_PER_PART, len(data)))
            if (votes[part] >= 0).all():
                continue
            for result in engine.run(_jobs(data, part, sigmas, n, seed)):
                i = int(str(result.key))
                for column, outcome in enumerate(result.outcomes.values()):
                    votes[i, column] = outcome.certificate.stages[0].counts[data.label(i)]
                progress.advance(1)
            with atomic_write(path) as file:
                buffer = io.BytesIO()
                np.savez(buffer, votes=votes, key=np.array(key))
                file.write(buffer.getvalue())
    return votes


def label_radii(
    votes: NDArray[np.int64], sigmas: Sequence[float], *, n: int, mapped_n: int | None, alpha: float
) -> NDArray[np.float64]:
    """Radius of each expert for the true class, 0 where its lower bound is at most 1/2; shape as ``votes``.

    With ``mapped_n`` the counts are first rescaled to that many votes, so that few votes do not cap the
    radius (Sun, Mao & Vechev 2026: N = 100 mapped to 10 000). The class is fixed beforehand (the true
    one), so no selection votes are needed.
    """
    trials = mapped_n or n
    lower = clopper_pearson_lower(votes * trials // n, trials, alpha)
    return gaussian_radius(lower, np.asarray(sigmas, dtype=np.float64))


def _jobs(data: ArrayDataset, part: range, sigmas: Sequence[float], n: int, seed: int) -> Iterator[Job]:
    for i in part:
        procedures = {expert_name(sigma): _poll(expert_name(sigma), sigma, n) for sigma in sigmas}
        yield Job(i, data.image(i), procedures, seed)


def _poll(model: str, sigma: float, n: int) -> Procedure:
    """Draws votes and claims nothing about them."""
    counts = yield VoteRequest(model, sigma, n)
    votes = StageCounts("votes", model, sigma, tuple(counts.tolist()), n, None)
    return Certificate(None, 0.0, sigma, 0.5, "poll", (votes,))


def _read(path: Path, key: str, shape: tuple[int, int]) -> NDArray[np.int64]:
    if not path.exists():
        return np.full(shape, -1, dtype=np.int64)
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != key:
            raise StaleLabelsError(
                f"{path} was made by other experts or with other settings (it says {stored['key']}, now {key}); "
                "remove it to label anew"
            )
        votes: NDArray[np.int64] = stored["votes"]
    return votes
