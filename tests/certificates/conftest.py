"""All outcomes of a procedure with their exact probabilities: soundness is summed here, not sampled."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import settings
from scipy.special import gammaln, xlogy

from dualrs.certificates import Certificate, Procedure, VoteRequest

# A loaded machine is no failing property.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

World = Callable[[VoteRequest], Sequence[float]]


class OutcomeTree:
    """Every way the votes can fall, and the certificate that the procedure answers to it.

    Args:
        make: Returns a fresh procedure. A generator cannot be copied, so every branch drives a new one.
        classes: Number of classes of each model.
        invalid: Whether votes can also name no class.
    """

    def __init__(self, make: Callable[[], Procedure], classes: Mapping[str, int], *, invalid: bool = False):
        self._make, self._classes, self._invalid = make, classes, invalid
        self._offsets: dict[VoteRequest, int] = {}
        self._size = 1  # entry 0 of the table of probabilities is 1, for stages that a branch never reached
        self.certificates: list[Certificate] = []
        paths: list[list[int]] = []
        self._explore([], [], paths)
        depth = max(map(len, paths))
        self._paths = np.array([path + [0] * (depth - len(path)) for path in paths])
        self.labels = np.array([-1 if c.label is None else c.label for c in self.certificates])
        self.radii = np.array([c.radius for c in self.certificates])

    def probabilities(self, world: World) -> np.ndarray:
        """Return the probability of every certificate if `world(request)` are the class probabilities.

        What they lack to 1 is the probability of an invalid vote.
        """
        table = np.ones(self._size)
        for request, offset in self._offsets.items():
            votes = self._votes(request)
            p = np.asarray(world(request), dtype=float)
            p = np.append(p, max(0.0, 1 - p.sum())) if self._invalid else p
            log_pmf = gammaln(request.count + 1) + (xlogy(votes, p) - gammaln(votes + 1)).sum(axis=1)
            table[offset : offset + len(votes)] = np.exp(log_pmf)
        probabilities = table[self._paths].prod(axis=1)
        assert probabilities.sum() == pytest.approx(1, abs=1e-9)
        return probabilities

    def _votes(self, request: VoteRequest) -> np.ndarray:
        return multinomial_outcomes(request.count, self._classes[request.model] + self._invalid)

    def _explore(self, answers: list[np.ndarray], path: list[int], paths: list[list[int]]) -> None:
        procedure = self._make()
        try:
            request = next(procedure)
            for answer in answers:
                request = procedure.send(answer)
        except StopIteration as finished:
            self.certificates.append(finished.value)
            paths.append(path)
            return
        votes = self._votes(request)
        if request not in self._offsets:
            self._offsets[request] = self._size
            self._size += len(votes)
        for i, vote in enumerate(votes):
            answer = vote[: self._classes[request.model]]
            self._explore([*answers, answer], [*path, self._offsets[request] + i], paths)


@cache
def multinomial_outcomes(total: int, parts: int) -> np.ndarray:
    """Return every way to write `total` as an ordered sum of `parts` counts, one per row."""
    bars = np.array(list(combinations(range(total + parts - 1), parts - 1)), dtype=np.int64)
    bars = bars.reshape(-1, parts - 1)
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, total + parts - 1)))
    return np.diff(edges, axis=1) - 1


@pytest.fixture(scope="session")
def outcome_tree() -> type[OutcomeTree]:
    return OutcomeTree
