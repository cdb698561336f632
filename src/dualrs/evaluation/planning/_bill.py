"""What a run takes, from what its procedures did in imagined worlds and how fast votes were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, sqrt
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dualrs.evaluation.metrics import confidence_interval, radius_key
from dualrs.evaluation.planning._changes import Change
from dualrs.evaluation.planning._figures import Devices, Estimate, Memory, ModelWork, Option
from dualrs.evaluation.planning._sample import Sample
from dualrs.evaluation.planning._simulation import Played
from dualrs.evaluation.table import row_of, table_of
from dualrs.sampling import Outcome

_UNFILLED = 2  # batches of each base classifier, at the end of a run, that are not full

# Of its results a run has so many copies in memory at its end: as they came, ordered, and with the oracle's. Summing up
# takes more, a part at a time: measured on tables of 4,000 to 80,000 images, whose peaks this meets within a fifth.
_COPIES, _MORE_COPIES, _MOST_BYTES = 3, 14, 300 * 2**20


@dataclass(frozen=True)
class Bill:
    """The bill of a run."""

    change: Change
    played: Played
    taken: Sample

    @cached_property
    def votes(self) -> Estimate:
        """Of all base classifiers, in the whole run."""
        return total(cast(NDArray[np.int64], sum(self.played.votes.values())), self.change.images)

    @cached_property
    def busy(self) -> Estimate:
        """Seconds that all devices together are busy, as uncertain as the votes and the measured speed are."""
        seconds, (fastest, slowest) = total(self._seconds, self.change.images), self.taken.pace
        return Estimate(seconds.expected, seconds.low * fastest, seconds.high * slowest)

    @cached_property
    def longest(self) -> float:
        """Seconds for the costliest input."""
        return float(self._seconds.max())

    @cached_property
    def _seconds(self) -> NDArray[np.float64]:
        """By input and draw (inputs, draws), of one device."""
        voting = sum(number * self.taken.seconds_per_row[name] for name, number in self.played.votes.items())
        return np.asarray(voting + self.played.seconds + self.taken.loading_seconds)

    def wall(self, devices: int) -> Estimate:
        """Seconds of the run; each device takes an input when it is free, and none helps another with an input."""
        busy, each = self.busy, self.taken.startup_seconds + sum(map(self._unfilled, self.played.votes))
        return Estimate(*(max(all_ / devices, self.longest) + each for all_ in (busy.expected, busy.low, busy.high)))

    def on(self, devices: int, price: float | None) -> Devices:
        """The run on so many devices, at a price of one for an hour."""
        wall = self.wall(devices)
        hours = wall.times(devices / 3600)
        return Devices(devices, wall, hours, None if price is None else hours.times(price))

    def work(self, name: str, sigma: float) -> ModelWork:
        """The part of one base classifier."""
        stats, per_row = self.taken.stats[name], self.taken.seconds_per_row[name]
        votes = float(self.played.votes[name].mean())
        return ModelWork(
            name=name,
            sigma=sigma,
            backend=stats.backend,
            device=stats.device,
            precision=stats.precision,
            batch_size=stats.batch_size,
            votes_per_input=votes,
            votes=votes * self.change.images,
            votes_per_second=1 / per_row,
            seconds=votes * self.change.images * per_row + self._unfilled(name),
        )

    def memory(self, labels: Sequence[int]) -> Memory:
        """Of a process; the results of an image are as large as those of an imagined world."""
        rows = [
            row_of(i, method, label, Outcome(certificate, 0.0))
            for i, (label, found) in enumerate(zip(labels, self.played.certificates, strict=True))
            for method, certificate in found.items()
        ]
        size, taken = table_of(rows).estimated_size() / len(labels) * self.change.images, self.taken
        results = round(_COPIES * size + min(_MORE_COPIES * size, _MOST_BYTES))
        peak = max(taken.peak_bytes, taken.resident_bytes + results)
        return Memory(peak, taken.peak_bytes, results, taken.device_bytes)

    def beside(self, planned: Bill, radii: Sequence[float]) -> Option:
        """The run beside the one that is planned."""
        images, seconds = self.change.images, self.wall(1).expected
        low, high = confidence_interval(images // 2, images)
        return Option(
            change=self.change.words,
            images=images,
            votes=self.votes.expected,
            share_of_votes=self.votes.expected / planned.votes.expected,
            seconds=seconds,
            share_of_time=seconds / planned.wall(1).expected,
            average_radius=self.played.average_radius,
            certified_accuracy={radius_key(radius): self.played.accuracy(radius) for radius in radii},
            abstained=self.played.abstention,
            margin=float(high - low) / 2,
            remark=self.change.remark,
        )

    def _unfilled(self, name: str) -> float:
        """Seconds of each device for rows of a base classifier that nobody asked for."""
        rows = _UNFILLED * self.taken.stats[name].batch_size if self.played.votes[name].any() else 0
        return rows * self.taken.seconds_per_row[name]


def total(values: NDArray[np.float64] | NDArray[np.int64], inputs: int) -> Estimate:
    """The sum over so many inputs, from values (inputs, draws) of a sample of them.

    Three things are not known: the inputs outside of the sample, what the votes on those in it will be, and, but for
    the draws of the simulation, the mean. Student's quantile, on a logarithmic scale: few inputs may take most of the
    votes, so more can be missed above than below.
    """
    sampled, draws = values.shape
    expected = inputs * float(values.mean())
    of_draws = float(values.var(axis=1, ddof=1).mean()) if draws > 1 else 0.0
    of_inputs = float(values.var())
    others = max(0, inputs - sampled)
    variance = of_inputs * others * inputs / sampled + of_draws * (min(sampled, inputs) + inputs**2 / (sampled * draws))
    margin = exp(float(stdtrit(max(1, sampled - 1), 0.975)) * sqrt(variance) / expected) if expected else 1.0
    return Estimate(expected, expected / margin, expected * margin)
