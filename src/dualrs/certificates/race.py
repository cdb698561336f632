"""Which votes to draw next, and when to stop: the order of work of the adaptive procedures.

Every bound in use holds at every look, whatever made one stop there. So nothing in this module can make a
certificate wrong: it only decides what a certificate costs, and how large it becomes.
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates._arguments import non_negative, positive
from dualrs.certificates.certificate import Certificate, Route, VoteRequest
from dualrs.certificates.evidence import Evidence

Watch: TypeAlias = Callable[[Certificate], bool | None]
"""Is shown a certificate; True says that it is enough."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Say when enough is known about an input; by default, when every vote of the classifier is spent.

    Args:
        tolerance: Stop when the caps would hardly raise the radius by more than this, in the units of the
            input, at least 0.
        target: Stop as soon as it is decided whether the radius exceeds this, finite and at least 0; None
            asks for the radius itself. At 0 this is prediction with abstention.
        out_of_time: Asked between requests; True ends the procedure with what is proved by then.
        watch: Is shown, after every request that may prove more, the certificate that holds by then; True ends the
            procedure with it. All that are shown hold together with the confidence of one.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range.
    """

    tolerance: float = 0.0
    target: float | None = None
    out_of_time: Callable[[], bool] | None = None
    watch: Watch | None = None

    def __post_init__(self) -> None:
        non_negative("tolerance", self.tolerance)
        if self.target is not None:
            non_negative("target", self.target)

    @property
    def full(self) -> bool:
        """Whether the classifier's cap is spent in any case, so that its bound needs no earlier look."""
        return not self.tolerance and self.target is None and self.out_of_time is None and self.watch is None

    def reached(self, proved: float, likely: float, forecast: float, slack: float = 0.0) -> bool:
        """Tell whether no more votes are wanted.

        Args:
            proved: The radius that holds.
            likely: The radius which the caps are likely to prove.
            forecast: A radius which the caps will hardly exceed.
            slack: A gain that is not worth any vote, whatever the tolerance.
        """
        if self.out_of_time is not None and self.out_of_time():
            return True
        if self.target is not None:
            return proved > self.target or forecast <= self.target
        return forecast <= proved or (proved > 0 and likely - proved <= max(self.tolerance, slack))

    def needed(self, forecast: float) -> float:
        """The radius that makes more votes pointless."""
        return forecast if self.target is None else self.target


def deadline(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether so many seconds, positive and finite, have passed since this call."""
    end = time.monotonic() + positive("seconds", seconds)
    return lambda: time.monotonic() >= end


@dataclass(frozen=True)
class Way:
    """A candidate, an expert at its noise level: near x it is not chosen, or it answers the label.

    Args:
        sigma: The noise level.
        agreement: That the expert answers the label.
        exclusion: That the estimator does not choose it; None if nothing is claimed about that.
    """

    sigma: float
    agreement: Evidence
    exclusion: Evidence | None = None

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """What makes the candidate harmless; the estimator's first, for its votes tell of every candidate."""
        return (self.agreement,) if self.exclusion is None else (self.exclusion, self.agreement)

    def proved(self) -> float:
        """The radius within which the candidate is harmless."""
        return max(evidence.proved() for evidence in self.evidence)

    def forecast(self) -> float:
        """A radius which the caps will hardly exceed."""
        return max(evidence.forecast() for evidence in self.evidence)

    def likely(self) -> float:
        """The radius which the caps are likely to prove."""
        return max(evidence.likely() for evidence in self.evidence)

    def worth_drawing(self, needed: float) -> Evidence | None:
        """The evidence that may still reach the radius that is needed; None if all votes are drawn."""
        unfinished = [evidence for evidence in self.evidence if not evidence.votes.exhausted]
        promising = [evidence for evidence in unfinished if evidence.forecast() >= needed]
        return next(iter(promising or unfinished), None)

    def route(self) -> Route:
        """What is proved, for the record."""
        return Route(
            self.sigma,
            0.0 if self.exclusion is None else self.exclusion.proved(),
            self.agreement.proved() if self.agreement.votes.trials else None,
            self.agreement.votes.model,
        )


def draw(
    ways: Sequence[Way], goal: Goal, conclude: Callable[[], Certificate], slack: float = 0.0
) -> Generator[VoteRequest, NDArray[np.int64], Certificate]:
    """Draw votes until the goal is reached or no more may be drawn: always for the weakest candidate.

    Args:
        ways: All candidates, the selected one first; of equally weak ones the first gets votes.
        goal: When to stop.
        conclude: Gives the certificate that follows from what the candidates prove so far.
        slack: The gain for which a model that has had its cap's worth of votes gets no more, once the selected
            expert has had all of its own; of a part of the cap, that part.

    Returns:
        The certificate.
    """
    selected = ways[0].agreement.votes
    while True:
        forecast = min(way.forecast() for way in ways)
        likely = min(way.likely() for way in ways)
        weakest = min(ways, key=Way.proved)
        evidence = weakest.worth_drawing(goal.needed(forecast))
        worthless = slack * evidence.votes.trials / evidence.votes.cap if evidence and selected.exhausted else 0.0
        if evidence is None or goal.reached(weakest.proved(), likely, forecast, worthless):
            return conclude()
        yield from evidence.votes.draw()
        if goal.watch is not None and goal.watch(certificate := conclude()):
            return certificate
