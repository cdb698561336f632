"""The measured part of a forecast: a few votes of every base classifier on a few inputs, by the engine of the run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.certificates import VoteRequest, tally
from dualrs.evaluation.planning._figures import Model
from dualrs.progress import Progress
from dualrs.sampling import Job, JobResult, ModelStats
from dualrs.smoothing import SmoothedClassifier

_GROUP = 8  # inputs that are voted on by one base classifier after the other; the first such are, however long it takes
_BATCHES = 8  # that each base classifier evaluates at least, as far as the run has so much work for it
_ROUNDS = 4  # between which the speed is compared
_WARM_UP = -1  # the key of a job that only wakes the backends
_OTHER_NOISE = (
    2**64
)  # added to the run's seed: whoever chooses settings by a forecast must not have seen the run's votes


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Attributes:
        positions: of the inputs that were voted on.
        votes: of each base classifier on each of them.
        counts: by base classifier, votes (inputs, classes + 1); the last column counts those for no class.
        stats: by base classifier, on what it ran.
        seconds_per_row: by base classifier, in steady batches.
        pace: the fastest and the slowest round by their mean.
        startup_seconds: until the first steady batch.
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
    """Has every base classifier vote on inputs, and times it.

    Args:
        model: as it is set up to run.
        positions: of the inputs.
        image: gives the input at a position.
        votes: of each base classifier on each input; more where they would not fill enough batches.
        most_votes: that the run itself may want of one.
        seconds: no further input is begun so many after the start-up, but for the first few.
        seed: of the run.
    """
    began = time.perf_counter()
    order = [positions[i] for i in spread_out(len(positions))]
    first = image(order[0])
    engine, levels = model.engine(), noise_levels(model)
    rows = {name: model.backend(name, first.shape).batch_size or engine.batch_size for name in levels}
    votes = min(max(votes, -(-_BATCHES * max(rows.values()) // len(order))), most_votes)
    reading: list[float] = []
    woken = 0.0

    def job(key: tuple[int, str], x: Tensor, count: int) -> Job:
        name = key[1]
        return Job(key, x, {name: tally([VoteRequest(name, levels[name], count)])}, seed + _OTHER_NOISE)

    def jobs() -> Iterator[Job]:
        for name in levels:
            yield job((_WARM_UP, name), first, 1)
        # As in a run, a base classifier evaluates some batches before another has its turn: every change costs time.
        for start in range(0, len(order), _GROUP):
            if start and time.perf_counter() - began > woken + seconds:
                return
            inputs = {}
            for position in order[start : start + _GROUP]:
                started = time.perf_counter()
                inputs[position] = image(position)
                reading.append(time.perf_counter() - started)
            for name in levels:
                for position, x in inputs.items():
                    yield job((position, name), x, votes)

    found: dict[int, dict[str, JobResult]] = {}
    clocks: list[dict[str, tuple[int, float]]] = []
    with Progress("measuring", total=len(order), unit="images") as progress:
        for result in engine.run(jobs()):
            position, name = cast(tuple[int, str], result.key)
            done = found.setdefault(position, {})
            done[name] = result
            if len(done) == len(levels):
                if position == _WARM_UP:
                    woken = time.perf_counter() - began
                else:
                    progress.advance(1)
            # What was done before every backend had its first batch is no measure of speed.
            if woken:
                clocks.append({name: (each.slots, each.seconds) for name, each in engine.stats.items()})
    del found[_WARM_UP]
    steady = _between(clocks[0], clocks[-1])
    # Where there was work for one batch only, that one has to do.
    work = {name: now if now[0] else clocks[-1][name] for name, now in steady.items()}
    per_row = {name: spent / slots for name, (slots, spent) in work.items()}
    idle = sum(per_row[name] * slots for name, (slots, _) in clocks[0].items())
    voted = sorted(found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Sample(
        positions=tuple(voted),
        votes=votes,
        counts={name: np.array([_counts(found[position][name], name) for position in voted]) for name in levels},
        stats=dict(engine.stats),
        seconds_per_row=per_row,
        pace=_pace(clocks, per_row),
        startup_seconds=max(0.0, woken - idle),
        loading_seconds=float(np.mean(reading)),
        seconds=time.perf_counter() - began,
        peak_bytes=peak,
        resident_bytes=_resident() or peak,
        device_bytes=_device_bytes({each.device for each in engine.stats.values()}),
    )


def _counts(result: JobResult, name: str) -> list[int]:
    stage = result.outcomes[name].certificate.stages[0]
    return [*stage.counts, stage.invalid]


def _between(
    earlier: Mapping[str, tuple[int, float]], later: Mapping[str, tuple[int, float]]
) -> dict[str, tuple[int, float]]:
    """Rows and seconds of each base classifier from one moment to another."""
    return {name: (slots - earlier[name][0], spent - earlier[name][1]) for name, (slots, spent) in later.items()}


def _pace(clocks: Sequence[Mapping[str, tuple[int, float]]], per_row: Mapping[str, float]) -> tuple[float, float]:
    """How much less and how much more than its mean time a part of the work took."""
    marks = [clocks[i] for i in np.linspace(0, len(clocks) - 1, _ROUNDS + 1).astype(int)]
    ratios = [1.0]
    for earlier, later in pairwise(marks):
        work = _between(earlier, later)
        expected = sum(per_row[name] * slots for name, (slots, _) in work.items())
        if expected > 0:
            ratios.append(sum(spent for _, spent in work.values()) / expected)
    return min(ratios), max(ratios)


def _resident() -> int | None:
    """The memory of this process, in bytes; None where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text(encoding="ascii").split()[1]) * resource.getpagesize() if path.is_file() else None


def _device_bytes(devices: set[str]) -> int | None:
    used = [torch.cuda.max_memory_allocated(device) for device in devices if device.startswith("cuda")]
    return max(used, default=None)
