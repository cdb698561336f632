"""Votes on training images, kept in parts that survive an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import Certificate, Procedure, StageCounts, VoteRequest
from dualrs.data import Dataset
from dualrs.files import atomic_write
from dualrs.progress import Progress, console
from dualrs.sampling import Job
from dualrs.smoothing import CLASSIFIER, SmoothedClassifier

_IMAGES_PER_PART = 500


class StaleVotesError(ValueError):
    """Votes on disk that belong to another model, other images or settings than those at hand."""


@dataclass(frozen=True)
class Votes:
    """How a model voted on N images.

    Attributes:
        counts: votes for each class, or for those that were asked about, shape (N, C).
        drawn: votes drawn on each image, shape (N,).
    """

    counts: NDArray[np.int64]
    drawn: NDArray[np.int64]


Stop = Callable[[int, int], bool]
"""``stop(k, n)``: whether k votes of n for the class asked about are enough."""


def collect_votes(
    model: SmoothedClassifier,
    data: Dataset,
    *,
    n: int,
    seed: int,
    path: Path,
    key: str,
    description: str,
    asked: Sequence[int] | None = None,
    looks: Sequence[int] = (),
    stop: Stop | None = None,
) -> Votes:
    """How a model votes on each image.

    Finished images are written to ``path``, every 500 of them and at an interruption; a later call with the same key
    goes on from there, also for more images.

    Args:
        model: a base classifier and its noise level.
        data: N images, the first of a data set that ``key`` names.
        n: the most votes per image.
        seed: of the noise.
        path: an ``.npz`` file.
        key: names everything the votes depend on.
        description: what the progress bar says.
        asked: for each image the one class whose votes are wanted; None: all classes, of which the model
            must know the number.
        looks: after how many votes sampling may stop, ascending.
        stop: whether it does, given the votes for the class asked about and those drawn.

    Raises:
        StaleVotesError: the file at ``path`` has another key.
        ValueError: neither a class is asked about nor the number of classes known.
    """
    columns = 1 if asked is not None else model.num_classes
    if columns is None:
        raise ValueError("the number of classes is not known: pass num_classes to the model")
    votes, spent = _read(path, key, len(data), columns)
    started, known = time.perf_counter(), int((votes.drawn[: len(data)] > 0).sum())
    schedule = [*(look for look in looks if look < n), n]
    with Progress(description, total=len(data), unit="images") as progress:
        progress.advance(known, measured=False)
        for start in range(0, len(data), _IMAGES_PER_PART):
            part = [i for i in range(start, min(start + _IMAGES_PER_PART, len(data))) if not votes.drawn[i]]
            if not part:
                continue
            jobs = (
                Job(i, data.image(i), {"poll": _poll(model.sigma, schedule, _at(asked, i), stop)}, seed) for i in part
            )
            try:
                for result in model.engine().run(jobs):
                    i = int(str(result.key))
                    (stage,) = result.outcomes["poll"].certificate.stages
                    votes.counts[i] = stage.counts if asked is None else stage.counts[asked[i]]
                    votes.drawn[i] = stage.trials
                    progress.advance(1)
            finally:
                _write(path, key, votes, spent + time.perf_counter() - started)
    done = Votes(votes.counts[: len(data)], votes.drawn[: len(data)])
    if fresh := len(data) - known:
        seconds, saved = time.perf_counter() - started, 1 - float(done.drawn.mean()) / n
        console.print(
            f"{description}: {fresh:,} images in {seconds:,.0f} s ({fresh / seconds:,.1f} images/s)"
            + (f"; stopping early saved {saved:.0%} of the votes" if stop is not None else ""),
            highlight=False,
            soft_wrap=True,
        )
    return done


def _poll(sigma: float, schedule: Sequence[int], asked: int | None, stop: Stop | None) -> Procedure:
    """Draws votes and claims nothing about them."""
    counts, drawn = np.zeros(1, dtype=np.int64), 0
    for look in schedule:
        counts = counts + (yield VoteRequest(CLASSIFIER, sigma, look - drawn))
        drawn = look
        if stop is not None and asked is not None and stop(int(counts[asked]), drawn):
            break
    votes = StageCounts("votes", CLASSIFIER, sigma, tuple(counts.tolist()), drawn, None)
    return Certificate(None, 0.0, sigma, 0.5, "poll", (votes,))


def pace(path: Path) -> tuple[int, float | None, str]:
    """On how many images there are votes in a file, how many seconds each took, if that is known, and their key."""
    if not path.exists():
        return 0, None, ""
    with np.load(path, allow_pickle=False) as stored:
        images, seconds, key = int((stored["drawn"] > 0).sum()), _seconds(stored), str(stored["key"])
    return images, seconds / images if images and seconds else None, key


def _write(path: Path, key: str, votes: Votes, seconds: float) -> None:
    if votes.drawn.any():
        with atomic_write(path) as file:
            np.savez(file, counts=votes.counts, drawn=votes.drawn, key=np.array(key), seconds=np.array(seconds))


def _seconds(stored: Mapping[str, NDArray[np.float64]]) -> float:
    return float(stored["seconds"]) if "seconds" in stored else 0.0


def _read(path: Path, key: str, count: int, columns: int) -> tuple[Votes, float]:
    votes = Votes(np.zeros((count, columns), dtype=np.int64), np.zeros(count, dtype=np.int64))
    if not path.exists():
        return votes, 0.0
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["key"]) != key:
            raise StaleVotesError(
                f"{path} was made by another model or with other settings (it says {stored['key']}, now {key}); "
                "remove it to vote anew"
            )
        counts, drawn, seconds = stored["counts"], stored["drawn"], _seconds(stored)
    more = Votes(
        np.concatenate([counts, votes.counts[len(drawn) :]]), np.concatenate([drawn, votes.drawn[len(drawn) :]])
    )
    return more, seconds


def _at(asked: Sequence[int] | None, i: int) -> int | None:
    return None if asked is None else asked[i]
