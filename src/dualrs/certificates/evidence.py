"""What the votes of one model at one noise level prove so far, and what they may still come to prove.

A claim is that one class beats another, with a radius. It rests on estimation votes alone, through bounds
that hold at every look. A forecast of the radius at the cap uses all votes, selection included: it decides
what is worth drawing, and no claim depends on it.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates.binomial import clopper_pearson_lower, clopper_pearson_upper
from dualrs.certificates.certificate import StageCounts, VoteRequest
from dualrs.certificates.margins import margin_radius
from dualrs.certificates.sequences import ConfidenceSequence
from dualrs.certificates.stages import poll

_DOUBT = 0.003
_DOUBT_OF_GAIN = 0.2
"""How improbable are the futures that a forecast leaves out: of what may still be reached, and of what more votes
would gain. No soundness depends on them: a wrong forecast costs radius or votes."""


class Levels(NamedTuple):
    """Failure probabilities of the bounds on the winner of a claim and on its rival; 0 makes no use of a bound."""

    winner: float
    rival: float


@dataclass
class Votes:
    """The votes of one model at one noise level on one input, drawn step by step.

    Args:
        stage: Name of the record.
        model: Name of the base classifier.
        sigma: Standard deviation of the noise.
        steps: Numbers of estimation votes at which one stops to look, strictly ascending; the last is the cap.
        classes: How many classes the model has.
        pilot: The votes that selected what is claimed. They only inform plans and forecasts.
    """

    stage: str
    model: str
    sigma: float
    steps: tuple[int, ...]
    classes: int
    pilot: StageCounts | None = None
    trials: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.classes, dtype=np.int64)
        self.looks = self.steps

    @property
    def cap(self) -> int:
        """The most estimation votes that may be drawn."""
        return self.steps[-1]

    @property
    def exhausted(self) -> bool:
        """Whether the cap is reached."""
        return self.trials == self.cap

    @property
    def with_pilot(self) -> tuple[NDArray[np.int64], int]:
        """The counts and the number of all votes, selection included."""
        if self.pilot is None:
            return self.counts, self.trials
        return self.counts + np.array(self.pilot.counts), self.trials + self.pilot.trials

    def draw(self) -> Generator[VoteRequest, NDArray[np.int64], None]:
        """Draw votes up to the next step."""
        goal = next(step for step in self.steps if step > self.trials)
        fresh = yield from poll(self.stage, VoteRequest(self.model, self.sigma, goal - self.trials), None, self.classes)
        self.counts = self.counts + np.array(fresh.counts)
        self.trials = goal


class _Pair(NamedTuple):
    """Votes for a winner and for its rival; votes for no class are counted for the rival."""

    winner: int
    rival: int
    trials: int


class Evidence:
    """The radius that the votes of one model prove for a winner against its rival.

    Args:
        votes: What it rests on.
        winner: The class that is claimed to beat its rivals.
        levels: How often the bounds on the winner and on each single rival may fail, at whichever look.
        sequence: Makes the bounds, from looks and a level.
        rival: The class it is claimed to beat; None claims that it beats every other.
        radius: Turns a lower bound on the winner and an upper one on the rival into a radius.
    """

    def __init__(
        self,
        votes: Votes,
        winner: int,
        levels: Levels,
        sequence: Callable[[tuple[int, ...], float], ConfidenceSequence],
        *,
        rival: int | None = None,
        radius: Callable[[float, float], float] | None = None,
    ) -> None:
        self.votes, self.levels = votes, levels
        self._winner, self._rival, self._sequence = winner, rival, sequence
        self._radius = radius or partial(margin_radius, sigma=votes.sigma)
        self._bounds: tuple[ConfidenceSequence | None, ConfidenceSequence | None] | None = None
        self._looked_at, self._proved, self._forecast, self._likely = -1, 0.0, 0.0, 0.0

    def proved(self) -> float:
        """The radius that holds; 0 before the first look."""
        self._look()
        return self._proved

    def forecast(self) -> float:
        """A radius which the cap will hardly exceed, never below what is proved."""
        self._look()
        return self._forecast

    def likely(self) -> float:
        """The radius which the cap is likely to prove, never below what is proved."""
        self._look()
        return self._likely

    def record(self) -> tuple[StageCounts, ...]:
        """The estimation votes, with the level of the claim that rests on them; nothing if none were drawn."""
        votes = self.votes
        if not votes.trials:
            return ()
        counts = tuple(votes.counts.tolist())
        return (StageCounts(votes.stage, votes.model, votes.sigma, counts, votes.trials, sum(self.levels)),)

    def plan(self, tolerance: float) -> None:
        """Let the looks begin where all but the tolerance of the radius at the cap is likely to be proved.

        Earlier looks would only cost level. To be called before estimation votes are drawn.
        """
        at = {step: self._fixed(self._in_time(step, 0.5)) for step in self.votes.steps}
        first = next(step for step, radius in at.items() if radius >= at[self.votes.cap] - tolerance)
        self.votes.looks = tuple(step for step in self.votes.steps if step >= first)

    def _look(self) -> None:
        votes = self.votes
        if votes.trials == self._looked_at:
            return
        self._looked_at = votes.trials
        self._proved = self._sequential() if votes.trials in votes.looks else 0.0
        self._forecast = self._likely = self._proved
        if not votes.exhausted:
            self._forecast = max(self._proved, self._fixed(self._in_time(votes.cap, _DOUBT)))
            self._likely = max(self._proved, self._fixed(self._in_time(votes.cap, _DOUBT_OF_GAIN)))

    def _sequential(self) -> float:
        if self._bounds is None:
            winner, rival = (self._sequence(self.votes.looks, level) if level else None for level in self.levels)
            self._bounds = winner, rival
        winner, rival = self._bounds
        pair = self._pair(self.votes.counts, self.votes.trials)
        return self._radius(
            0.0 if winner is None else winner.lower(pair.winner, pair.trials),
            1.0 if rival is None else rival.upper(pair.rival, pair.trials),
        )

    def _fixed(self, pair: _Pair) -> float:
        """What bounds of fixed length would give; no claim."""
        winner, rival = self.levels
        return self._radius(
            clopper_pearson_lower(pair.winner, pair.trials, winner) if winner else 0.0,
            clopper_pearson_upper(pair.rival, pair.trials, rival) if rival else 1.0,
        )

    def _pair(self, counts: NDArray[np.int64], trials: int) -> _Pair:
        if self._rival is None:
            rival = max((int(count) for label, count in enumerate(counts) if label != self._winner), default=0)
        else:
            rival = int(counts[self._rival])
        return _Pair(int(counts[self._winner]), rival + trials - int(counts.sum()), trials)

    def _in_time(self, trials: int, doubt: float) -> _Pair:
        """The votes after so many trials, in the best case that is not more improbable than the doubt."""
        counts, so_far = self.votes.with_pilot
        if not so_far:
            return _Pair(trials, 0, trials)
        seen = self._pair(counts, so_far)
        winner = min(trials, ceil(trials * clopper_pearson_upper(seen.winner, so_far, doubt)))
        rival = floor(trials * clopper_pearson_lower(seen.rival, so_far, doubt))
        return _Pair(winner, min(rival, trials - winner), trials)
