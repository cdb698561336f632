"""What a run takes and finds in imagined worlds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import Certificate
from dualrs.evaluation.planning._changes import Change
from dualrs.evaluation.planning._worlds import World
from dualrs.smoothing import ESTIMATOR

_DOUBT = 0.05  # of the mean number of votes, that more draws are worth


@dataclass(frozen=True)
class Played:
    """What came of a run in imagined worlds, by input and draw (inputs, draws).

    Attributes:
        votes: by base classifier.
        seconds: that the procedures took by themselves.
        earned: the radius of the first method, −1 where its label is wrong or it abstains.
        abstained: whether it does.
        certificates: of all methods, in the first world of each input.

    Radii and shares are those of the first draws, which all changes have in common: nothing but the change tells them
    apart.
    """

    votes: Mapping[str, NDArray[np.int64]]
    seconds: NDArray[np.float64]
    earned: NDArray[np.float64]
    abstained: NDArray[np.bool_]
    certificates: Sequence[Mapping[str, Certificate]]

    @property
    def average_radius(self) -> float:
        """The mean radius, wrong labels and abstentions as 0."""
        return float(np.maximum(self.earned[:, 0], 0).mean())

    def accuracy(self, radius: float) -> float:
        """The share of inputs that are certified beyond a radius, with the true label."""
        return float((self.earned[:, 0] > radius).mean())

    @property
    def abstention(self) -> float:
        """The share of inputs on which the first method abstains."""
        return float(self.abstained[:, 0].mean())

    @property
    def doubt(self) -> float:
        """The standard error of the mean number of votes, relative to it."""
        votes = np.sum(list(self.votes.values()), axis=0)
        return float(votes.std() / votes.mean() / np.sqrt(votes.size))

    def joined(self, more: Played) -> Played:
        """The same with further draws."""
        return Played(
            {name: np.hstack([votes, more.votes[name]]) for name, votes in self.votes.items()},
            np.hstack([self.seconds, more.seconds]),
            np.hstack([self.earned, more.earned]),
            np.hstack([self.abstained, more.abstained]),
            self.certificates,
        )


def simulate(
    change: Change, worlds: Sequence[Sequence[World]], bases: Sequence[str], least: int, step: Callable[[], None]
) -> Played:
    """Runs the procedures of a change in some worlds of each input, and in more while it is not clear what they take.

    A target that few inputs are close to leaves most of the votes to these few: there it takes many draws to know the
    mean.

    Args:
        change: whose procedures are run.
        worlds: of each input, as many as there are draws at most.
        bases: the names of all base classifiers.
        least: draws at least.
        step: is called after each input, the first time.
    """
    played = _play(change, [drawn[:least] for drawn in worlds], bases, step)
    for draw in range(least, len(worlds[0])):
        if played.doubt <= _DOUBT:
            break
        played = played.joined(_play(change, [[drawn[draw]] for drawn in worlds], bases, lambda: None))
    return played


def _play(change: Change, worlds: Sequence[Sequence[World]], bases: Sequence[str], step: Callable[[], None]) -> Played:
    shape = len(worlds), len(worlds[0])
    votes = {name: np.zeros(shape, dtype=np.int64) for name in bases}
    seconds, earned, abstained = np.zeros(shape), np.full(shape, -1.0), np.zeros(shape, dtype=np.bool_)
    kept = []
    for i, drawn in enumerate(worlds):
        for draw, imagined in enumerate(drawn):
            world = imagined if change.without is None else imagined.without(change.without, ESTIMATOR)
            found = world.read(change.methods)
            for name, number in found.votes.items():
                votes[name][i, draw] = number
            seconds[i, draw] = found.seconds
            first = next(iter(found.certificates.values()))
            abstained[i, draw] = first.abstained
            if first.label == world.label:
                earned[i, draw] = first.radius
            if draw == 0:
                kept.append(found.certificates)
        step()
    return Played(votes, seconds, earned, abstained, kept)
