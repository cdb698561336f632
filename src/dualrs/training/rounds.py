"""Rounds: experts fine-tuned at the noise levels that the estimator picks.

After the first estimator, each expert goes on training on the images that reach it (Sun, Mao & Vechev 2026,
arXiv 2512.01782, the alternating training), then the labels and the estimator are made anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualrs.data import Dataset
from dualrs.smoothing import SmoothedClassifier
from dualrs.training.config import Assignment
from dualrs.training.processes import led
from dualrs.training.votes import Votes, collect_votes

_POSSIBLE = 0.1  # a share of the estimator's votes from which a candidate may well be chosen nearby


@led
def estimator_votes(estimator: SmoothedClassifier, data: Dataset, *, n: int, seed: int, path: Path, key: str) -> Votes:
    """How often the estimator chooses each candidate for each image; continues what an earlier call began.

    Args:
        estimator: the variance estimator at σ_e.
        data: the training images.
        n: votes per image.
        seed: of the noise.
        path: an ``.npz`` file, see `collect_votes`.
        key: names everything else that the votes depend on.
    """
    return collect_votes(
        estimator,
        data,
        n=n,
        seed=seed,
        path=path,
        key=f"{key} {choice_settings(n, seed)}",
        description="choices of the estimator",
    )


def choice_settings(n: int, seed: int) -> str:
    """What the end of their key says of how votes of the estimator were drawn."""
    return f"n={n} seed={seed}"


def assign(votes: Votes, assignment: Assignment) -> NDArray[np.float32]:
    """Which candidates train on which images: shares that sum to one for each image, shape (N, K).

    "majority" gives an image to the candidate that most votes are for (the paper's). "possible" shares it out
    evenly among all that have a tenth of the votes: where routing is uncertain, the experts that may be chosen
    all learn the image, and so to agree on it.
    """
    counts = votes.counts
    if assignment == "majority":
        given = np.zeros(counts.shape, dtype=bool)
        given[np.arange(len(counts)), counts.argmax(axis=1)] = True
    else:
        given = counts >= _POSSIBLE * votes.drawn[:, None]
    shares: NDArray[np.float32] = (given / given.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
