"""One input that a client waits for: what is asked, what is known so far, and whether anyone still wants it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dualrs.certificates import Certificate, Procedure, VoteRequest, Watch
from dualrs.smoothing import STOPPING, DualSmoothedClassifier, FixedOptions, SmoothedClassifier


class Ending(StrEnum):
    """Why sampling for an answer ended."""

    COMPLETE = "complete"
    DEADLINE = "deadline"
    CLIENT = "client"
    SHUTDOWN = "shutdown"


OPTIONS = frozenset({"n0", "n", "alpha", "tolerance", "target"})
"""The options of `dualrs.smoothing.CertifyOptions` that an answer may depend on."""

_FIXED = FixedOptions.__annotations__.keys()


@dataclass(frozen=True)
class Asked:
    """What is asked of the model.

    Attributes:
        rules: by which certificates are made, the first one being the answer.
        options: by name, of `OPTIONS`.
        anytime: whether the bounds are to hold at every look, so that there is an answer whenever sampling ends.
    """

    rules: tuple[str, ...]
    options: Mapping[str, Any]
    anytime: bool

    def procedure(self, model: SmoothedClassifier | DualSmoothedClassifier, rule: str, watch: Watch) -> Procedure:
        """A fresh procedure for one of the rules; who watches is shown certificates only where they hold at any time.

        Raises:
            ValueError: the model has no such rule, or an option is impossible.
        """
        if rule not in STOPPING:
            return model.procedure(rule, **{name: value for name, value in self.options.items() if name in _FIXED})
        return model.procedure(rule, watch=watch if self.anytime else None, **self.options)


@dataclass(eq=False)
class Ticket:
    """One input under way. The engine's thread writes what is known; any thread may read it, and ask for the end.

    Args:
        x: the input.
        asked: what is asked.
        seed: of the noise, secret until the answer is given.
        deadline: by `time.monotonic`, when the answer is wanted.
        tell: is called, from the engine's thread, whenever more is known; None where nobody watches.
    """

    x: Tensor
    asked: Asked
    seed: int
    deadline: float
    tell: Callable[[], object] | None = None
    begun: float = field(default_factory=time.monotonic)
    ending: Ending | None = None
    latest: dict[str, Certificate] = field(default_factory=dict)  # by rule
    votes: dict[tuple[str, str, float], NDArray[np.int64]] = field(default_factory=dict)  # by rule, model and σ

    def end(self, why: Ending) -> None:
        """Asks for the end of sampling; the first reason counts."""
        self.ending = self.ending or why

    @property
    def stopped(self) -> bool:
        """Whether no more votes are wanted."""
        if self.ending is None and time.monotonic() >= self.deadline:
            self.end(Ending.DEADLINE)
        return self.ending is not None

    def again(self) -> None:
        """Forgets what is known: the engine begins anew."""
        self.latest.clear()
        self.votes.clear()

    def proved(self, rule: str, certificate: Certificate) -> bool:
        """Takes note of a certificate that holds; whether it is enough."""
        self.latest[rule] = certificate
        self._tell()
        return self.stopped

    def voted(self, rule: str, request: VoteRequest, counts: NDArray[np.int64]) -> None:
        """Takes note of votes that a rule was given; rules are given the same ones."""
        which = (rule, request.model, request.sigma)
        self.votes[which] = counts + self.votes[which] if which in self.votes else counts
        self._tell()

    def answer(self, rule: str) -> Certificate:
        """What is proved by now; an abstention where that is nothing."""
        nothing = Certificate(None, 0.0, None, self.asked.options["alpha"], rule, ())
        return self.latest.get(rule, nothing)

    def _tell(self) -> None:
        if self.tell is not None:
            self.tell()


def sliced(procedure: Procedure, ticket: Ticket, rule: str, rows: int) -> Procedure:
    """The same procedure, asking for so many votes at a time, and ending as soon as no more are wanted.

    Votes have one order, so that its certificate is the same. Where models serve many inputs in turn, each gets an
    equal share of their batches, and an input that nobody waits for any more costs less than a batch.
    """
    answered = next(procedure, None)
    while answered is not None:
        counts: NDArray[np.int64] | None = None
        for start in range(0, answered.count, rows):
            if ticket.stopped:
                procedure.close()
                return ticket.answer(rule)
            part = yield VoteRequest(answered.model, answered.sigma, min(rows, answered.count - start))
            ticket.voted(rule, answered, part)
            counts = part if counts is None else counts + part
        assert counts is not None  # a request is for one vote at least
        try:
            answered = procedure.send(counts)
        except StopIteration as end:
            certificate: Certificate = end.value
            ticket.latest[rule] = certificate
            return certificate
    raise AssertionError("a procedure asks for votes before it ends")
