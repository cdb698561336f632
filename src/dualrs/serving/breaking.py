"""Attempts to break an answer: points inside its certified ball and beyond, where it may be another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualrs.evaluation.attack import Adversary, Aim, Ball, Plan, victim_of
from dualrs.serving.messages import ATTEMPTS
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

_INSIDE = 0.999
_BEYOND = (1.5, 2.0, 3.0)
_FROM_NOTHING = (0.25, 0.5, 1.0, 2.0)  # lengths in units of the smallest σ, where nothing is certified
_AIMS: tuple[Aim, ...] = ("label", "both", "choice", "random")
_PLAN = Plan(aims=_AIMS, steps=10, draws=16, starts=1, directions=1)


class Point(NamedTuple):
    """Somewhere to look."""

    aim: str
    x: Tensor
    norm: float


class Breaker:
    """Looks for points where a model may give another answer, which takes the processors: one input at a time.

    Args:
        model: whom to attack.
    """

    def __init__(self, model: SmoothedClassifier | DualSmoothedClassifier) -> None:
        assert model.input is not None  # the desk insists
        method = f"global-{model.sigma:g}" if isinstance(model, SmoothedClassifier) else "dual"
        self._victim = victim_of(model, method, "")
        self._least = min(sigma for _, sigma in self._victim.experts)
        nothing = torch.zeros((1, *model.input.shape))
        self._adversary = Adversary(self._victim, _PLAN, nothing, torch.zeros(1, dtype=torch.int64))
        self._box = model.input.range  # what a service can be sent

    def radii(self, certified: float) -> Sequence[float]:
        """Of the balls to look in, the certified one first."""
        if certified:
            return [_INSIDE * certified, *(factor * certified for factor in _BEYOND)]
        return [factor * self._least for factor in _FROM_NOTHING]

    def points(self, x: Tensor, label: int, chosen: int, radius: float, seed: int) -> list[Point]:
        """Points of a ball that are likely to have another answer, each other than the input itself."""
        generator = torch.Generator().manual_seed(seed)
        ball = Ball(x, radius, self._box)
        return list(self._find(ball, label, chosen, generator))[: ATTEMPTS // len(_FROM_NOTHING)]

    def _find(self, ball: Ball, label: int, chosen: int, generator: torch.Generator) -> Iterator[Point]:
        for aim in _AIMS:
            for point in self._adversary.candidates(aim, ball, label, chosen, generator)[:1]:
                yield Point(aim, point, ball.distance(point))
