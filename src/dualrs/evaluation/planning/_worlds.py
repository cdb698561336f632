"""Inputs as a forecast imagines them: class probabilities drawn from what was seen, and votes drawn from those."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from dualrs.certificates import Certificate, Procedure, VoteRequest, run_procedure

MASSES = np.geomspace(0.01, 30.0, 40)
"""Of a symmetric Dirichlet distribution: little puts all probability on one class, much spreads it over all."""
_STEPS = 200


class VoteStream:
    """The votes of one base classifier on one input, in an order that all who read them share.

    Only the counts at numbers that somebody asked for are drawn, so a million votes cost what a hundred do.

    Args:
        probabilities: of each class and, last, of a vote for none.
        generator: draws the votes.
    """

    def __init__(self, probabilities: NDArray[np.float64], generator: np.random.Generator) -> None:
        self.probabilities, self._generator = probabilities, generator
        self._at = [0]
        self._counts = [np.zeros(len(probabilities), dtype=np.int64)]

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """How many of the votes from number ``start`` up to ``stop`` each class got."""
        return (self._up_to(stop) - self._up_to(start))[:-1]

    def _up_to(self, number: int) -> NDArray[np.int64]:
        where = bisect_left(self._at, number)
        if where == len(self._at):
            fresh = self._generator.multinomial(number - self._at[-1], self.probabilities)
        elif self._at[where] == number:
            return self._counts[where]
        else:  # of votes whose number by class is known, those that come first are drawn without putting back
            between = self._counts[where] - self._counts[where - 1]
            fresh = self._generator.multivariate_hypergeometric(between, number - self._at[where - 1])
        self._at.insert(where, number)
        self._counts.insert(where, self._counts[where - 1] + fresh)
        return self._counts[where]


@dataclass(frozen=True)
class Reading:
    """What procedures made of a world.

    Attributes:
        certificates: by method.
        votes: by base classifier, those that any procedure read.
        seconds: that the procedures took by themselves.
    """

    certificates: Mapping[str, Certificate]
    votes: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class World:
    """One input: its true class, and the votes of every base classifier."""

    label: int
    streams: Mapping[str, VoteStream]

    def read(self, methods: Mapping[str, Callable[[], Procedure]]) -> Reading:
        """Runs procedures side by side, as the engine does: each reads every vote once and in the same order."""
        started, drawing = time.perf_counter(), 0.0
        certificates: dict[str, Certificate] = {}
        votes: dict[str, int] = {}
        for name, make in methods.items():
            read: dict[str, int] = {}

            def answer(request: VoteRequest, read: dict[str, int] = read) -> NDArray[np.int64]:
                nonlocal drawing
                asked = time.perf_counter()
                start = read.get(request.model, 0)
                read[request.model] = start + request.count
                counts = self.streams[request.model].counts(start, start + request.count)
                drawing += time.perf_counter() - asked
                return counts

            certificates[name] = run_procedure(make(), answer)
            votes |= {model: max(votes.get(model, 0), number) for model, number in read.items()}
        return Reading(certificates, votes, time.perf_counter() - started - drawing)

    def without(self, candidate: int, estimator: str) -> World:
        """The same with one candidate less to choose: the others share its votes, in proportion to their own."""
        known = self.streams[estimator]
        left = np.delete(known.probabilities, candidate)
        # A choice that was never in doubt says nothing of the others.
        left = left / left.sum() if left.sum() > 0 else np.append(np.ones(len(left) - 1) / (len(left) - 1), 0.0)
        stream = VoteStream(left, np.random.default_rng([candidate, *known.counts(0, 100).tolist()]))
        return replace(self, streams={**self.streams, estimator: stream})


def imagine(counts: Mapping[str, NDArray[np.int64]], labels: list[int], draws: int, seed: int = 0) -> list[list[World]]:
    """Draws worlds, so many for each input.

    A network's probabilities are mostly close to 0 or 1, and how close decides how many votes a bound takes. So the
    prior is learned from the votes on all inputs, for each base classifier by itself, see `likely_masses`. A fixed one,
    such as half a vote for each class, would call everything less certain than it is.

    Args:
        counts: by base classifier, votes (inputs, classes + 1); the last column counts those for no class.
        labels: the true classes.
        draws: how many worlds of each input.
        seed: of all that is drawn.
    """
    weights = {name: likely_masses(votes) for name, votes in counts.items()}
    worlds = []
    for i, label in enumerate(labels):
        drawn = []
        for draw in range(draws):
            streams = {}
            for number, (name, votes) in enumerate(counts.items()):
                generator = np.random.default_rng([seed, i, draw, number])
                classes = votes.shape[1] - 1
                mass = generator.choice(MASSES, p=weights[name][i])
                prior = np.append(np.full(classes, mass / classes), 0.0)
                streams[name] = VoteStream(_dirichlet(votes[i] + prior, generator), generator)
            drawn.append(World(label, streams))
        worlds.append(drawn)
    return worlds


def likely_masses(votes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability of each of the `MASSES` for each input (inputs, masses), from votes (inputs, classes + 1).

    The prior is a mixture of symmetric Dirichlet distributions whose weights make the votes on all inputs together
    likeliest; they are found by expectation-maximisation.
    """
    seen = votes[:, :-1]
    of_total = gammaln(MASSES) - gammaln(MASSES + seen.sum(axis=1)[:, None])
    shares = MASSES / seen.shape[1]
    of_classes = np.stack([(gammaln(share + seen) - gammaln(share)).sum(axis=1) for share in shares], axis=1)
    likelihood = of_total + of_classes
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    weights = np.full(len(MASSES), 1 / len(MASSES))
    for _ in range(_STEPS):
        weights = _shares(likelihood * weights).mean(axis=0)
    return _shares(likelihood * weights)


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _dirichlet(weights: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Probabilities from a Dirichlet distribution whose weights may be tiny or 0, but for one that is above 1."""
    drawn = generator.standard_gamma(weights)
    return np.asarray(drawn / drawn.sum())
