"""What attempts amount to: by aim, against chance, and as accuracy under attack."""

from __future__ import annotations

from typing import Any

import polars as pl

from dualrs.evaluation.attack._plan import Plan
from dualrs.evaluation.attack._verdict import judge
from dualrs.evaluation.metrics import certified_accuracy, radius_key


def summarize_attempts(rows: pl.DataFrame, attempts: pl.DataFrame, plan: Plan, significance: float) -> dict[str, Any]:
    """Summarizes an audit, as JSON values.

    Args:
        rows: the rows of a results table that were audited, of one method.
        attempts: on them, see `ATTEMPTS`.
        plan: by which they were made.
        significance: how improbable bad luck must be before certificates are called wrong.

    Returns:
        ``inputs`` and, of them, ``certified``; ``aims``, for each the attempts on certificates; ``broken``, the idx of
        broken inputs, beside ``expected_broken`` (by bad luck, at most) and ``p_value``; ``wrong`` and ``verdict``;
        ``accuracy``, by length: certified, and empirical, an upper bound on the true one: the share of inputs for which
        no wrong answer is known within that length; and how many ``attempts`` beyond what is certified had that length.
    """
    broken = attempts.filter("broken")["idx"].unique().sort().to_list()
    alpha = float(rows["alpha"].to_numpy().max())
    verdict = judge(len(rows), len(broken), alpha, plan.alpha, significance)
    return {
        "inputs": len(rows),
        "certified": len(rows) - rows["predicted"].null_count(),
        "aims": _by_aim(attempts.filter("certified")),
        "broken": broken,
        "expected_broken": verdict.expected,
        "p_value": verdict.p_value,
        "alphas": {"certificate": alpha, "decisions": plan.alpha, "significance": significance},
        "wrong": verdict.wrong,
        "verdict": str(verdict),
        "accuracy": _accuracy(rows, attempts, (0.0, *plan.budgets)),
    }


def _by_aim(attempts: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """For each aim: attempts, decided breaks, abstentions, votes, and the mean of the estimates."""
    figures = attempts.group_by("aim", maintain_order=True).agg(
        attempts=pl.len(),
        broken=pl.col("broken").sum(),
        abstained=pl.col("decided").null_count(),
        votes=pl.col("votes").sum(),
        beyond=pl.col("estimate").mean(),
    )
    return {row.pop("aim"): row for row in figures.iter_rows(named=True)}


def _accuracy(rows: pl.DataFrame, attempts: pl.DataFrame, lengths: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    (certified,) = certified_accuracy(rows, lengths).values()
    claimed = rows.filter(pl.col("predicted") != pl.col("label")).select("idx", norm=pl.lit(0.0))
    decided = attempts.filter(pl.col("decided") != pl.col("truth")).select("idx", "norm")
    wrong = pl.concat([claimed, decided])
    return {
        radius_key(length): {
            "certified": float(share),
            "empirical": 1 - wrong.filter(pl.col("norm") <= length)["idx"].n_unique() / len(rows),
            "attempts": len(attempts.filter(pl.col("radius") == length, ~pl.col("certified"))),
        }
        for length, share in zip(lengths, certified, strict=True)
    }
