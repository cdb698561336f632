"""The tables of a report: what `summarize` found, in rows and columns that people read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from dualrs.evaluation.baselines import CAVEATS
from dualrs.evaluation.compare import compare
from dualrs.evaluation.metrics import Interval, radius_key
from dualrs.evaluation.pages._audit import audit_tables
from dualrs.evaluation.pages._cells import DASH, Cell, Table, number, percent, word
from dualrs.evaluation.pages._runs import Run
from dualrs.evaluation.pages._series import answer_shares
from dualrs.evaluation.style import title_of
from dualrs.evaluation.table import ORACLE, has_shared_sigmas, is_global

Summary = Mapping[str, Any]

_QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")


def tables_of(run: Run, summary: Summary) -> list[Table]:
    """Gives the tables of one run; those of which it knows nothing have no rows.

    Args:
        run: which; methods come in its order.
        summary: of its table, as `summarize` gives it.
    """
    measured = (_accuracy, _averages, _probability, _answers, _choice, _cost)
    return [*(make(run, summary) for make in measured), _engine(run), *audit_tables(run)]


def differences(runs: Sequence[Run], radii: Sequence[float]) -> Table:
    """Gives the table of paired differences on the same inputs.

    Args:
        runs: of one run, its first method is compared with its others but for the oracle; of several, the first method
            of the first run with that of each other.
        radii: where certified accuracies are compared.
    """
    first, own = runs[0], runs[0].methods
    if len(runs) > 1:
        one = first.name
        others = [(run.name, run.table, run.methods[0]) for run in runs[1:]]
    else:
        one = title_of(own[0], own)
        others = [(title_of(method, own), first.table, method) for method in own[1:] if method != ORACLE]
    rows = []
    for title, table, method in others:
        found = compare(first.table, table, radii, methods=(own[0], method))
        cells = [
            percent(at.difference, at.interval, "+z.1f", strong=not at.interval[0] <= 0 <= at.interval[1])
            for at in found.at
        ]
        mean = number(found.radius_difference, "+z.3f", found.radius_interval)
        rows.append((word(title), *cells, mean))
    return Table(
        "differences",
        f"Certified accuracy of {one} less that of others, in points, by radius r",
        "Paired, input by input, so that what chance does to both cancels. Bold where the 95 % interval, which holds "
        "at that radius alone, excludes 0.",
        (("other", "other"), *((radius_key(r), radius_key(r)) for r in radii), ("mean_radius", "mean radius")),
        tuple(rows),
    )


def _accuracy(run: Run, summary: Summary) -> Table:
    accuracy, ends = summary["certified_accuracy"], summary["confidence_95"]
    radii = list(accuracy[run.methods[0]])
    rivals = [method for method in run.methods if is_global(method)]
    best = {r: max((accuracy[method][r] for method in rivals), default=0.0) for r in radii}

    def cell(method: str, r: str) -> Cell:
        share = accuracy[method][r]
        return percent(share, ends[method][r], strong=len(rivals) > 1 and method in rivals and share == best[r] > 0)

    single = "expert" if has_shared_sigmas(run.methods) else "σ"
    notes = [
        "A radius is reached only by a strictly larger one; an abstention and a wrong answer reach none.",
        *([f"Bold is the best single {single} at that radius."] if len(rivals) > 1 else []),
        *(
            [f"The oracle picks the {single} knowing the label: a bound on what choosing can reach, no classifier."]
            if ORACLE in run.methods
            else []
        ),
        *(f"Of {method}: {CAVEATS[method]}." for method in run.methods if method in CAVEATS),
    ]
    return Table(
        "certified-accuracy",
        "Certified accuracy, %, by radius r",
        " ".join(notes),
        (("method", "method"), *((r, r) for r in radii)),
        _by_method(run, lambda method: [cell(method, r) for r in radii]),
    )


def _averages(run: Run, summary: Summary) -> Table:
    ends, together = summary["intervals_95"], summary["simultaneous_95"]
    alphas = dict(run.table.group_by("method").agg(pl.col("alpha").max()).iter_rows())
    return Table(
        "averages",
        "Averages over all inputs",
        "The mean radius counts a wrong answer and an abstention as 0. α is the failure probability of each "
        "certificate, and the last column bounds, but for a probability of 5 % over the noise, how many are wrong.",
        (
            ("method", "method"),
            ("mean_radius", "mean radius"),
            ("clean_accuracy", "right answer, %"),
            ("abstained", "abstained, %"),
            ("alpha", "α"),
            ("wrong_at_most", "wrong at most"),
        ),
        _by_method(
            run,
            lambda method: [
                number(summary["average_certified_radius"][method], "z.3f", ends["average_certified_radius"][method]),
                percent(summary["clean_accuracy"][method], ends["clean_accuracy"][method]),
                percent(summary["abstention_rate"][method], ends["abstention_rate"][method]),
                number(alphas[method], "g"),
                number(together.get(method, {}).get("wrong_at_most")),
            ],
        ),
    )


def _cost(run: Run, summary: Summary) -> Table:
    ends = summary["intervals_95"]
    return Table(
        "cost",
        "What an input costs",
        "Methods of one run share votes, and each is charged in full.",
        (("method", "method"), ("samples", "votes"), ("seconds", "seconds")),
        _by_method(
            run,
            lambda method: [
                number(summary["samples_per_input"][method], "z,.0f", ends["samples_per_input"][method]),
                number(summary["seconds_per_input"][method], "z.3f", ends["seconds_per_input"][method]),
            ],
        ),
    )


def _probability(run: Run, summary: Summary) -> Table:
    known = summary["class_probability"]
    shares = list(next(iter(known.values()), {"above": {}})["above"])
    return Table(
        "class-probability",
        "Inputs, %, by share of votes for the true class",
        "Without recorded votes for it, an input counts as 0.",
        (("method", "method"), *((f"above_{share}", f"> {share}") for share in shares)),
        _by_method(
            run,
            lambda method: [
                percent(share, known[method]["above_95"][key]) for key, share in known[method]["above"].items()
            ],
            known,
        ),
    )


def _answers(run: Run, summary: Summary) -> Table:
    ends = (summary["intervals_95"]["estimator"] or {}).get("sigma_shares", {})
    rows = answer_shares(run.table).iter_rows(named=True)
    return Table(
        "choice",
        "Which σ answers, % of the inputs",
        "None: the estimator abstained, and for the oracle no σ certifies the true class.",
        (("answer", "answered by"), ("chosen", "chosen by the estimator"), ("best", "best, by the oracle")),
        tuple(
            (
                word(row["answer"]),
                percent(row["chosen"], ends.get(row["answer"].removeprefix("σ = "))),
                percent(row["best"]),
            )
            for row in rows
        ),
    )


def _choice(run: Run, summary: Summary) -> Table:
    estimator, ends = summary["estimator"], summary["intervals_95"]["estimator"]
    rows: list[tuple[Cell, ...]] = []
    if estimator:
        for title, name in (
            ("the estimator abstained, %", "abstained"),
            ("the choice limits the radius, % of certificates", "limits_radius"),
        ):
            rows.append((word(title), percent(estimator[name], ends[name]), *[number(None)] * len(_QUANTILES)))
        for title, name in (("ΔR_c, radius lost by the choice", "choice_loss"), ("ΔR_σ = R_σ − R_c", "choice_slack")):
            if spread := estimator[name]:
                cells = [number(spread[quantile], "z.3f") for quantile in _QUANTILES]
                rows.append((word(title), number(spread["mean"], "z.3f", ends[name]), *cells))
    if gain := ((summary["oracle"] or {}).get("realised_gain") or {}).get("average_certified_radius"):
        title = f"of the oracle's gain over {title_of(gain['best'], run.methods)}, realised, %"
        within: Interval | None = gain["interval_95"]
        rows.append((word(title), percent(gain["share"], within), *[number(None)] * len(_QUANTILES)))
    return Table(
        "estimator",
        "What the choice of σ costs",
        "The last columns are quantiles over the inputs.",
        (
            ("quantity", ""),
            ("mean", "share or mean"),
            *((f"quantile_{quantile}", f"{float(quantile):.0%}".replace("%", " %")) for quantile in _QUANTILES),
        ),
        tuple(rows),
    )


def _engine(run: Run) -> Table:
    named = ("backend", "device", "precision")
    return Table(
        "engine",
        "What the networks did",
        "Every vote is counted once, however many methods used it. The fill rate is the share of rows in batches that "
        "were asked for.",
        (
            ("model", "network"),
            *((name, name) for name in named),
            ("votes", "votes"),
            ("votes_per_second", "votes/s"),
            ("fill_rate", "fill rate, %"),
        ),
        tuple(
            (
                word(name),
                *(word(str(model.get(key) or DASH)) for key in named),
                number(model.get("votes")),
                number(model.get("votes_per_second")),
                percent(model.get("fill_rate")),
            )
            for name, model in (run.metadata.get("engine") or {}).items()
        ),
    )


def _by_method(
    run: Run, cells: Callable[[str], list[Cell]], known: Mapping[str, Any] | None = None
) -> tuple[tuple[Cell, ...], ...]:
    """One row for each method, or for those that are known."""
    methods = [method for method in run.methods if known is None or method in known]
    return tuple((word(title_of(method, run.methods)), *cells(method)) for method in methods)
