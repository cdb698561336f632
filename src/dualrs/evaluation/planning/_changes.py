"""The run as planned, and with one change each that would save something, or take more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from dualrs.certificates import Procedure, adaptive_certify
from dualrs.evaluation.planning._figures import Model
from dualrs.evaluation.run import procedures
from dualrs.evaluation.table import global_name, global_names
from dualrs.smoothing import STOPPING, CertifyOptions, DualSmoothedClassifier, Expert
from dualrs.smoothing.options import adaptive_arguments

_TOLERANCES = (0.01, 0.05)  # the last one also for the dual model alone
_TARGET = 0.5
_FEWER = 4  # times fewer images: intervals twice as wide

Methods = Mapping[str, Callable[[], Procedure]]


@dataclass(frozen=True)
class Settings:
    """How a run certifies, as `evaluate` takes it."""

    model: Model
    rules: tuple[str, ...] | None
    global_sigmas: bool
    options: CertifyOptions
    images: int

    @property
    def methods(self) -> Methods:
        """What makes the procedures of an input; raises ValueError where `procedures` does."""
        return procedures(self.model, rules=self.rules, global_sigmas=self.global_sigmas, **self.options)

    @property
    def stops_early(self) -> bool:
        """Whether goals concern any of the rules."""
        return self.rules is None or any(rule in STOPPING for rule in self.rules)


@dataclass(frozen=True)
class Change:
    """A run that differs in one point.

    Attributes:
        words: say what differs.
        methods: what makes its procedures.
        images: how many inputs it certifies.
        without: the number of a candidate that there is no more.
        remark: what is lost beside radius, or taken for granted.
    """

    words: str
    methods: Methods
    images: int
    without: int | None = None
    remark: str = ""


def changes(run: Settings) -> Iterator[Change]:
    """Gives the run as planned, then what would save some of it, then what more votes would take."""
    methods = run.methods
    yield Change("as planned", methods, run.images)
    yield from _with_goals(run, _TOLERANCES)
    if isinstance(run.model, DualSmoothedClassifier) and run.global_sigmas:
        alone = replace(run, global_sigmas=False)
        yield Change(
            "dual model alone",
            alone.methods,
            run.images,
            remark="no rows of the single σ's to compare with (global_sigmas: false)",
        )
        # Where each single σ spends n on every image, goals of the dual model save next to nothing.
        yield from _with_goals(alone, _TOLERANCES[-1:], "  ")
    n = run.options["n"]
    yield from _with(run, f"n = {n // 10:,}", n=n // 10)
    if run.images >= 2 * _FEWER:
        yield Change(f"{run.images // _FEWER:,} images", methods, run.images // _FEWER)
    yield from _fewer_candidates(run)
    yield from _with(run, f"n = {10 * n:,}", n=10 * n)


def _with_goals(run: Settings, tolerances: Sequence[float], before: str = "") -> Iterator[Change]:
    """The run with goals at which it stops, where it has rules that can and no such goal yet."""
    if not run.stops_early or run.options.get("target") is not None:
        return
    for tolerance in tolerances:
        if run.options.get("tolerance", 0.0) < tolerance:
            yield from _with(run, f"{before}tolerance {tolerance:g}", tolerance=tolerance)
    only = f"decides whether a radius exceeds {_TARGET:g}, and proves no more"
    yield from _with(run, f"{before}target {_TARGET:g}", only, target=_TARGET)


def _with(run: Settings, words: str, remark: str = "", **options: Any) -> Iterator[Change]:
    """The run with other options, unless they are impossible for it."""
    try:
        methods = replace(run, options=cast(CertifyOptions, {**run.options, **options})).methods
    except ValueError:
        return
    yield Change(words, methods, run.images, remark=remark)


def _fewer_candidates(run: Settings) -> Iterator[Change]:
    """The run with each expert left out in turn."""
    model = run.model
    if not isinstance(model, DualSmoothedClassifier):
        return
    for i, name in enumerate(global_names(model.experts)):
        left = [expert for expert in model.experts if expert is not model.experts[i]]
        words = f"without σ = {name.removeprefix('global-')}"
        if len(left) == 1:
            yield Change(words, _single(left[0], run.options), run.images, i, "one σ is left, and no estimator")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whoever built the model was warned about σ_e
            rest = replace(run, model=DualSmoothedClassifier(model.estimator, model.sigma_e, left, model.num_classes))
        yield Change(
            words, rest.methods, run.images, i, "as if an estimator without it shared its votes among the others"
        )


def _single(expert: Expert, options: CertifyOptions) -> Methods:
    """The default way to certify an expert for every input."""
    name = global_name(expert.sigma)
    return {name: partial(adaptive_certify, expert.sigma, model=expert.name, **adaptive_arguments(options))}
