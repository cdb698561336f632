"""Votes on training images, kept in parts that survive an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import Certificate, Procedure, StageCounts, VoteRequest
from dualrs.data import Dataset
from dualrs.files import atomic_write
from dualrs.progress import Progress, console
from dualrs.sampling import Done, Failed, Intake, Item, Job, LocalRunner, Mapped, Runner, Work
from dualrs.smoothing import CLASSIFIER, SmoothedClassifier

_IMAGES_PER_WRITE = 500


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
    runner: Runner | None = None,
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
        runner: where the model votes; None takes this process.

    Raises:
        StaleVotesError: the file at ``path`` has another key.
        ValueError: neither a class is asked about nor the number of classes known.
        RuntimeError: the model raises on some images, also when they are alone; the votes on all others are kept.
    """
    columns = 1 if asked is not None else model.num_classes
    if columns is None:
        raise ValueError("the number of classes is not known: pass num_classes to the model")
    votes, spent = _read(path, key, len(data), columns)
    started, missing = time.perf_counter(), [i for i in range(len(data)) if not votes.drawn[i]]
    known, failed = len(data) - len(missing), list[Failed]()
    with Progress(description, total=len(data), unit="images") as progress:
        progress.advance(known, measured=False)
        if missing:
            polling = _Polling(model, [*(look for look in looks if look < n), n], stop, seed)
            items = (Item(i, model.to_input(data.image(i)), None if asked is None else asked[i]) for i in missing)
            with (runner or LocalRunner()).hire(polling) as crew:
                try:
                    for number, found in enumerate(crew.run(items), start=1):
                        if isinstance(found, Failed):
                            failed.append(found)
                            continue
                        stage, i = found.result, found.key
                        votes.counts[i] = stage.counts if asked is None else stage.counts[asked[i]]
                        votes.drawn[i] = stage.trials
                        progress.advance(1)
                        if number % _IMAGES_PER_WRITE == 0:
                            _write(path, key, votes, spent + time.perf_counter() - started)
                finally:
                    _write(path, key, votes, spent + time.perf_counter() - started)
    if failed:
        first = min(failed, key=lambda each: each.key)
        raise RuntimeError(f"{description}: {len(failed)} images fail, first image {first.key}: {first.error}")
    done = Votes(votes.counts[: len(data)], votes.drawn[: len(data)])
    if missing:
        seconds, saved = time.perf_counter() - started, 1 - float(done.drawn.mean()) / n
        console.print(
            f"{description}: {len(missing):,} images in {seconds:,.0f} s ({len(missing) / seconds:,.1f} images/s)"
            + (f"; stopping early saved {saved:.0%} of the votes" if stop is not None else ""),
            highlight=False,
            soft_wrap=True,
        )
    return done


class _Polling(Work):
    """Lets a model vote; the result is a `dualrs.certificates.StageCounts`. Items say which class is asked about."""

    def __init__(self, model: SmoothedClassifier, schedule: Sequence[int], stop: Stop | None, seed: int) -> None:
        self._arguments = model, schedule, stop, seed
        self._engine = model.engine()
        self.stats = self._engine.stats

    def __reduce__(self) -> tuple[Any, ...]:
        return _Polling, self._arguments

    def describe(self) -> Mapping[str, Any]:
        return {}  # few votes, as targets for training: nothing hangs on the last bit

    def run(self, items: Intake[Item]) -> Iterator[Done]:
        for result in self._engine.run(Mapped(items, self._job)):
            (stage,) = result.outcomes["poll"].certificate.stages
            yield Done(cast(int, result.key), stage)

    def _job(self, item: Item) -> Job:
        model, schedule, stop, seed = self._arguments
        return Job(item.key, item.x, {"poll": _poll(model.sigma, schedule, item.about, stop)}, seed)


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
