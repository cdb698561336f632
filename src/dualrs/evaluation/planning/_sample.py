"""The measured part of a forecast: a few votes of every base classifier on a few inputs, by the engine of the run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.certificates import VoteRequest, tally
from dualrs.evaluation.planning._figures import Model
from dualrs.progress import Progress
from dualrs.sampling import Engine, Job, JobResult, ModelStats, block_rows
from dualrs.smoothing import SmoothedClassifier

_FEWEST = 8  # inputs, however long they take
_ROUNDS = 4  # in which the speed is measured, and compared
_TURN = 0.5  # seconds of each base classifier in a round, about
_OTHER_NOISE = (
    2**64
)  # added to the run's seed: whoever chooses settings by a forecast must not have seen the run's votes

Key = tuple[int, str]
"""Of a job: the position of an input, and the name of a base classifier."""
Clocks = dict[str, tuple[int, float]]
"""By base classifier: evaluated rows, and the seconds that they took."""


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Attributes:
        positions: of the inputs that were voted on.
        votes: of each base classifier on each of them.
        counts: by base classifier, votes (inputs, classes + 1); the last column counts those for no class.
        stats: by base classifier, on what it ran.
        seconds_per_row: by base classifier, in steady batches.
        pace: the least and the most time that a round took, by its mean.
        startup_seconds: until every base classifier has had its first batch.
        loading_seconds: to read one input.
        seconds: that all of it took.
        peak_bytes: the most memory that the process ever had resident, and ``resident_bytes`` what it has now.
        device_bytes: the most that was allocated on a GPU; None where none was used.
    """

    positions: tuple[int, ...]
    votes: int
    counts: Mapping[str, NDArray[np.int64]]
    stats: Mapping[str, ModelStats]
    seconds_per_row: Mapping[str, float]
    pace: tuple[float, float]
    startup_seconds: float
    loading_seconds: float
    seconds: float
    peak_bytes: int
    resident_bytes: int
    device_bytes: int | None


def noise_levels(model: Model) -> dict[str, float]:
    """The noise level at which each base classifier votes, by name."""
    levels = (model.sigma,) if isinstance(model, SmoothedClassifier) else (model.sigma_e, *model.sigmas)
    return dict(zip(model.bases, levels, strict=True))


def spread_out(count: int) -> list[int]:
    """The numbers below ``count`` in an order whose every beginning is spread over all of them.

    Examples:
        >>> spread_out(8)
        [0, 4, 2, 6, 1, 5, 3, 7]
    """
    return sorted(range(count), key=lambda i: f"{i:064b}"[::-1])


def take_sample(
    model: Model,
    positions: Sequence[int],
    image: Callable[[int], Tensor],
    *,
    votes: int,
    most_votes: int,
    seconds: float,
    seed: int,
) -> Sample:
    """Has every base classifier vote on inputs, and then times it on as many votes on one input as runs ask for.

    Args:
        model: as it is set up to run.
        positions: of the inputs.
        image: gives the input at a position.
        votes: of each base classifier on each input.
        most_votes: that the run itself may want of one.
        seconds: no further input is begun after so many, but for the first few.
        seed: of the run.
    """
    began = time.perf_counter()
    order = [positions[i] for i in spread_out(len(positions))]
    first = image(order[0])
    engine, levels = model.engine(), noise_levels(model)
    votes, reading = min(votes, most_votes), [time.perf_counter() - began]

    def ballots(position: int, x: Tensor, counts: Mapping[str, int]) -> Iterator[Job]:
        for name, sigma in levels.items():
            ballot = tally([VoteRequest(name, sigma, counts[name])])
            yield Job((position, name), x, {name: ballot}, seed + _OTHER_NOISE)

    def jobs() -> Iterator[Job]:
        started = time.perf_counter()
        for done, position in enumerate(order):
            if done >= _FEWEST and time.perf_counter() - started > seconds:
                return
            asked = time.perf_counter()
            x = image(position)
            reading.append(time.perf_counter() - asked)
            yield from ballots(position, x, dict.fromkeys(levels, votes))

    list(engine.run(ballots(order[0], first, dict.fromkeys(levels, 1))))
    startup, woken = time.perf_counter() - began, _clocks(engine)
    found: dict[Key, JobResult] = {}
    with Progress("measuring", total=len(order), unit="images") as progress:
        for result in engine.run(jobs()):
            found[cast(Key, result.key)] = result
            progress.advance(1 if len(found) % len(levels) == 0 else 0)
    voted = sorted({position for position, _ in found})

    # Noise is drawn in blocks, and a change of base classifiers takes time: both matter less in a run's long streams.
    block = block_rows(first.shape)
    long = {name: min(_rows_of_a_turn(each, block), most_votes) for name, each in engine.stats.items()}
    turns = (dict.fromkeys(levels, 1), *[long] * _ROUNDS)
    rounds = chain.from_iterable(ballots(order[0], first, counts) for counts in turns)
    clocks = [_clocks(engine) for _ in engine.run(rounds)][len(levels) - 1 :]
    per_row, pace = _speed(clocks, len(levels))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Sample(
        positions=tuple(voted),
        votes=votes,
        counts={name: np.array([_counts(found[position, name]) for position in voted]) for name in levels},
        stats=dict(engine.stats),
        seconds_per_row=per_row,
        pace=pace,
        startup_seconds=max(0.0, startup - sum(per_row[name] * slots for name, (slots, _) in woken.items())),
        loading_seconds=float(np.mean(reading)),
        seconds=time.perf_counter() - began,
        peak_bytes=peak,
        resident_bytes=_resident() or peak,
        device_bytes=_device_bytes({each.device for each in engine.stats.values()}),
    )


def _rows_of_a_turn(stats: ModelStats, block: int) -> int:
    """Full batches and blocks of noise for about the seconds of a turn."""
    per_row = stats.seconds / stats.slots
    return max(block, stats.batch_size * max(1, round(_TURN / per_row / stats.batch_size)))


def _clocks(engine: Engine) -> Clocks:
    """Rows and seconds of each base classifier by now."""
    return {name: (each.slots, each.seconds) for name, each in engine.stats.items()}


def _between(earlier: Clocks, later: Clocks) -> Clocks:
    return {name: (slots - earlier[name][0], spent - earlier[name][1]) for name, (slots, spent) in later.items()}


def _speed(clocks: Sequence[Clocks], bases: int) -> tuple[dict[str, float], tuple[float, float]]:
    """Seconds for a row of each base classifier, and how much less and more than its mean time a round took.

    Args:
        clocks: when every backend had had its first batch, which is no measure of speed, and after each job.
        bases: how many jobs make a round.
    """
    steady = _between(clocks[0], clocks[-1])
    # Where there was work for one batch only, that one has to do.
    work = {name: now if now[0] else clocks[-1][name] for name, now in steady.items()}
    per_row = {name: spent / slots for name, (slots, spent) in work.items()}
    ratios = [1.0]
    for earlier, later in pairwise(clocks[::bases]):
        done = _between(earlier, later)
        expected = sum(per_row[name] * slots for name, (slots, _) in done.items())
        if expected > 0:
            ratios.append(sum(spent for _, spent in done.values()) / expected)
    return per_row, (min(ratios), max(ratios))


def _counts(result: JobResult) -> list[int]:
    (outcome,) = result.outcomes.values()
    stage = outcome.certificate.stages[0]
    return [*stage.counts, stage.invalid]


def _resident() -> int | None:
    """The memory of this process, in bytes; None where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text(encoding="ascii").split()[1]) * resource.getpagesize() if path.is_file() else None


def _device_bytes(devices: set[str]) -> int | None:
    used = [torch.cuda.max_memory_allocated(device) for device in devices if device.startswith("cuda")]
    return max(used, default=None)
