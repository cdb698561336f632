"""What the top of a report says in words: how the runs were made, and what their certificates mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from dualrs.evaluation.metrics import radius_key
from dualrs.evaluation.pages._audit import audit_alarm
from dualrs.evaluation.pages._cells import Cell, number, percent
from dualrs.evaluation.pages._runs import Run
from dualrs.evaluation.table import ORACLE

_UNKNOWN = "not recorded"


def facts_of(run: Run) -> list[tuple[str, str, str]]:
    """Gives how a run was made: terms, what is recorded of each, and what only those need who check it."""
    certification, model = partial(run.of, "certification"), partial(run.of, "model")
    created = run.metadata.get("created")
    rules = [rule for rule in run.table["rule"].unique(maintain_order=True) if rule != ORACLE]
    narrowed = run.inputs if run.inputs < run.finished else None
    return [
        (
            "data",
            _joined(run.of("data", "name"), _named("{} split", run.of("data", "split"))),
            _digest(run.of("data", "digest")),
        ),
        ("inputs", _joined(_inputs(run), _named("{:,} of them in all runs", narrowed)), ""),
        (
            "model",
            _joined(
                _named("σ = {}", _listed(model("sigmas"))),
                _named("σ_e = {:g}", model("sigma_e")),
                _named("{:,} classes", model("num_classes")),
            ),
            _digest(model("digest")),
        ),
        ("rules", ", ".join(rules), ""),
        (
            "votes of each stage",
            _joined(
                _named("n0 = {:,}", certification("n0")),
                _named("n = {:,}", certification("n")),
                _named("tolerance {:g}", certification("tolerance") or None),
                _named("target {:g}", certification("target")),
            ),
            "",
        ),
        ("failure probability", _named("α = {:g}", alpha_of(run)) or _UNKNOWN, ""),
        ("noise", _named("seed {}", certification("seed")) or _UNKNOWN, certification("noise") or ""),
        (
            "made",
            _joined(created and created[:10], _named("dualrs {}", run.of("software", "dualrs"))),
            _named("{} of computing", _duration(run.metadata.get("wall_seconds"))) or "",
        ),
    ]


def alarms_of(run: Run) -> list[tuple[str, str]]:
    """Gives what must be known of a run before anything else: that it is not whole, or that its certificates broke."""
    unfinished = (
        f"{_inputs(run)} inputs were finished. Every figure is of those alone, which need not be like the rest."
    )
    wrong = audit_alarm(run)
    return [
        *([("Incomplete.", unfinished)] if not run.whole.complete else []),
        *([("The certificates are wrong.", wrong)] if wrong else []),
    ]


def guarantee_of(runs: Sequence[Run]) -> tuple[str, str]:
    """Gives a sentence of what a certificate of the runs says, and one of what it does not."""
    alphas = {alpha_of(run) for run in runs}
    alpha = alphas.pop() if len(alphas) == 1 else None
    level, wrong = "its failure probability", ""
    if alpha is not None:
        inputs = runs[0].inputs
        level = f"α = {alpha:g}"
        wrong = f" (among {inputs:,}, {alpha * inputs:,.3g} wrong ones are to be expected at worst)"
    return (
        "A certificate with radius R says that the smoothed classifier gives its answer at every input closer than R, "
        "in ℓ₂ and in the units of the tensor that receives the noise; for an input that was chosen without knowledge "
        f"of the noise, it is wrong with probability at most {level}.",
        "It does not say that the answer is the true class, which is why the tables count it only where it is; and it "
        "says nothing of the network without noise, of other perturbations or larger ones, or of all certificates at "
        f"once{wrong}.",
    )


def headline_of(method: str, summary: Mapping[str, Any]) -> list[tuple[str, Cell]]:
    """Gives the handful of figures that sum a method up."""
    ends, accuracy = summary["intervals_95"], summary["certified_accuracy"][method]
    middle = min(accuracy, key=lambda r: abs(float(r) - 0.5))
    return [
        ("right answers", _with_sign(percent(summary["clean_accuracy"][method], ends["clean_accuracy"][method]))),
        (
            f"certified at r = {radius_key(float(middle))}",
            _with_sign(percent(accuracy[middle], summary["confidence_95"][method][middle])),
        ),
        (
            "mean radius",
            number(summary["average_certified_radius"][method], "z.3f", ends["average_certified_radius"][method]),
        ),
        ("abstained", _with_sign(percent(summary["abstention_rate"][method], ends["abstention_rate"][method]))),
        (
            "votes for an input",
            number(summary["samples_per_input"][method], "z,.0f", ends["samples_per_input"][method]),
        ),
    ]


def alpha_of(run: Run) -> float | None:
    """Gives the failure probability of a run's first method, the largest where it varies."""
    rows = run.table.filter(pl.col("method") == run.methods[0])
    largest: float | None = rows.select(pl.col("alpha").max()).item()
    return largest


def _inputs(run: Run) -> str:
    requested = run.whole.requested
    return f"{run.finished:,}" + (f" of {requested:,}" if run.finished < requested else "")


def _with_sign(cell: Cell) -> Cell:
    return Cell(f"{cell.text} %", cell.value, cell.interval, cell.within)


def _joined(*parts: str | None) -> str:
    return "; ".join(part for part in parts if part) or _UNKNOWN


def _named(form: str, value: Any) -> str | None:
    return None if value is None else form.format(value)


def _listed(numbers: Sequence[float] | None) -> str | None:
    return None if numbers is None else ", ".join(f"{number:g}" for number in numbers)


def _digest(digest: str | None) -> str:
    return "digest not recorded" if digest is None else f"sha256 {digest[:16]}…"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
