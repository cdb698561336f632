"""What a results table says: certified accuracy, average certified radius, abstentions, cost.

Every figure is a mean over all inputs. An abstention and a wrong label count as radius 0, and a radius is
reached only by a strictly larger one, so at r = 0 an abstention counts as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from dualrs.certificates import Route, clopper_pearson_lower, clopper_pearson_upper
from dualrs.evaluation.table import DUAL, ORACLE, is_global

STANDARD_RADII: tuple[float, ...] = tuple(step / 4 for step in range(11))
"""The radii of published tables: 0, 0.25, …, 2.5."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def methods_of(table: pl.DataFrame) -> list[str]:
    """Gives the methods of a results table, in the order in which they appear."""
    return table["method"].unique(maintain_order=True).to_list()


def certified_accuracy(table: pl.DataFrame, radii: ArrayLike) -> dict[str, NDArray[np.float64]]:
    """Gives, per method, the share of inputs with the true label and a certified radius strictly above each r.

    Args:
        table: a results table.
        radii: r, in the units of the input, each at least 0.

    Raises:
        ValueError: a radius is negative or NaN.
    """
    return {method: reached / total for method, (reached, total) in _reached(table, radii).items()}


def confidence_interval(
    successes: ArrayLike, trials: int, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covers the share in the population with the given probability, for each cell of a table by itself.

    The exact two-sided interval of Clopper and Pearson (1934), half of the failure probability on either
    side. It speaks of inputs drawn at random; the noise of the certificates is not part of it.

    Args:
        successes: inputs that count, each between 0 and `trials`.
        trials: inputs in all, at least 1.
        confidence: in (0, 1).

    Returns:
        The lower and the upper ends, of the shape of `successes`.

    Raises:
        ValueError: an argument is outside of its range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1); got {confidence!r}")
    counts, level = np.asarray(successes), (1 - confidence) / 2
    return (
        np.asarray(clopper_pearson_lower(counts, trials, level)),
        np.asarray(clopper_pearson_upper(counts, trials, level)),
    )


def certified_accuracy_interval(
    table: pl.DataFrame, radii: ArrayLike, confidence: float = 0.95
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Gives, per method, the ends of the `confidence_interval` of each certified accuracy.

    Raises:
        ValueError: an argument is outside of its range.
    """
    return {
        method: confidence_interval(reached, total, confidence)
        for method, (reached, total) in _reached(table, radii).items()
    }


def average_certified_radius(table: pl.DataFrame) -> dict[str, float]:
    """Gives, per method, the mean radius over all inputs; wrong labels and abstentions count as 0."""
    return _means(table, pl.col("radius") * pl.col("correct"))


def abstention_rate(table: pl.DataFrame) -> dict[str, float]:
    """Gives, per method, the share of inputs on which it abstains."""
    return _means(table, pl.col("abstained"))


def samples_per_input(table: pl.DataFrame) -> dict[str, float]:
    """Gives, per method, the mean number of votes; methods that share votes are each charged in full."""
    return _means(table, pl.col("samples"))


def seconds_per_input(table: pl.DataFrame) -> dict[str, float]:
    """Gives, per method, the mean cost in seconds; methods that share votes are each charged in full."""
    return _means(table, pl.col("seconds"))


def sigma_shares(table: pl.DataFrame) -> dict[float, float]:
    """Gives the share of inputs for which the dual method's estimator chose each σ, ascending.

    The σ are those that appear in the table, for any method. The shares and `estimator_abstention_rate`
    sum to 1; no σ has a share without dual rows.
    """
    dual = _dual(table)
    if dual.is_empty():
        return {}
    chosen = dual["sigma"].to_numpy()
    return {sigma: float(np.mean(chosen == sigma)) for sigma in table["sigma"].drop_nulls().unique().sort()}


def expert_shares(table: pl.DataFrame) -> dict[str, float]:
    """Gives the share of inputs for which the dual method's estimator chose each expert, ordered by σ and name.

    The experts are those that appear in the table, for any method; none has a share without dual rows, or in a table
    that does not name them.
    """
    dual = _dual(table)
    if dual.is_empty():
        return {}
    chosen = dual["expert"].to_list()
    experts = table.select("sigma", "expert").drop_nulls().unique().sort("sigma", "expert")["expert"]
    return {expert: chosen.count(expert) / len(chosen) for expert in experts}


def estimator_abstention_rate(table: pl.DataFrame) -> float | None:
    """Gives the share of inputs for which no σ was certified; None without dual rows."""
    dual = _dual(table)
    return None if dual.is_empty() else float(dual["sigma"].is_null().to_numpy().mean())


def estimator_limited_share(table: pl.DataFrame) -> float | None:
    """Gives how often the radius is strictly below the classifier's at the chosen σ: the choice of σ limits it.

    The share is among dual certificates that do not abstain, right or wrong; None if there are none.
    """
    certified = _dual(table).filter(~pl.col("abstained"))
    if certified.is_empty():
        return None
    return float((certified["radius"] < certified["classifier_radius"]).to_numpy().mean())


def choice_loss(table: pl.DataFrame) -> NDArray[np.float64]:
    """Gives ΔR_c = R_c* − R_c of each input, by ascending `idx`: the radius that a wrong choice of expert cost.

    R_c is the radius of the chosen expert for the true class and R_c* the largest of any expert, 0 where a certificate
    is of another class; both from the global-σ rows, so by one rule and on the same votes. Inputs for which no expert
    was chosen are left out, as are all without dual or without global-σ rows.
    """
    named = table.with_columns(pl.col("expert").fill_null(""))  # where there are no names, each σ has one expert
    rows = named.filter(pl.col("method").is_in([method for method in methods_of(table) if is_global(method)]))
    earned = rows.select("idx", "sigma", "expert", (pl.col("radius") * pl.col("correct")).alias("earned"))
    best = earned.group_by("idx").agg(pl.col("earned").max().alias("best"))
    chosen = _dual(named).select("idx", "sigma", "expert")
    joined = chosen.join(earned, on=["idx", "sigma", "expert"]).join(best, on="idx").sort("idx")
    return (joined["best"] - joined["earned"]).to_numpy()


def choice_slack(table: pl.DataFrame) -> NDArray[np.float64]:
    """Gives ΔR_σ = R_σ − R_c of each input, by ascending `idx`: below 0 where the choice of expert limits the radius.

    R_c is the radius of the chosen expert's answer, right or wrong, and R_σ that within which the choice cannot change
    the answer: the estimator's radius, and in a routed certificate the weakest of the other routes. There votes are
    drawn only until R_σ reaches R_c, so how far it lies above 0 says little. Inputs for which no expert was asked to
    certify are left out.
    """
    asked = _dual(table).filter(pl.col("classifier_radius").is_not_null()).sort("idx")
    slack = [_radius_of_choice(row) - row["classifier_radius"] for row in asked.iter_rows(named=True)]
    return np.array(slack, dtype=np.float64)


def dual_to_oracle(table: pl.DataFrame, radii: ArrayLike) -> NDArray[np.float64] | None:
    """Gives the dual method's certified accuracy as a share of the oracle's at each r; NaN where the oracle has none.

    It may exceed 1: the oracle's radii are those of CERTIFY, which makes no use of the strongest rival's votes.

    Returns:
        The shares; None unless there are rows of both.

    Raises:
        ValueError: a radius is negative or NaN.
    """
    accuracy = certified_accuracy(table, radii)
    if DUAL not in accuracy or ORACLE not in accuracy:
        return None
    dual, oracle = (np.atleast_1d(accuracy[method]) for method in (DUAL, ORACLE))
    ratios = np.full(oracle.shape, np.nan)
    np.divide(dual, oracle, out=ratios, where=oracle > 0)
    return ratios


def summarize(table: pl.DataFrame, radii: Sequence[float] = STANDARD_RADII) -> dict[str, Any]:
    """Collects all figures in plain dicts, lists and numbers that `json.dumps` takes as they are.

    Shares lie in [0, 1]. Certified accuracies are keyed by `radius_key`, and ``confidence_95`` holds the two
    ends of each. ``estimator`` is null without dual rows, its ``limits_radius`` without dual certificates. It has
    ``expert_shares`` only where several experts share a σ; its ``choice_loss`` and ``choice_slack`` hold the mean and
    the quantiles of what the functions of these names give, and are null where that is nothing. ``dual_to_oracle`` is
    null unless there are rows of both, and at radii that the oracle reaches for no input.

    Args:
        table: a results table.
        radii: strictly ascending, in the units of the input, the first at least 0.

    Raises:
        ValueError: radii that do not ascend, or methods that were not run on the same inputs, so that
            comparing them would mislead.
    """
    if any(high <= low for low, high in pairwise(radii)):
        raise ValueError(f"radii must ascend strictly; got {list(radii)}")
    _refuse_different_inputs(table)
    keys = [radius_key(r) for r in radii]
    accuracy, interval = certified_accuracy(table, radii), certified_accuracy_interval(table, radii)
    ratios = dual_to_oracle(table, radii)
    return {
        "inputs": table["idx"].n_unique(),
        "certified_accuracy": {
            method: dict(zip(keys, values.tolist(), strict=True)) for method, values in accuracy.items()
        },
        "confidence_95": {
            method: dict(zip(keys, np.stack(ends, axis=1).tolist(), strict=True)) for method, ends in interval.items()
        },
        "average_certified_radius": average_certified_radius(table),
        "abstention_rate": abstention_rate(table),
        "estimator": None
        if _dual(table).is_empty()
        else {
            "abstained": estimator_abstention_rate(table),
            "limits_radius": estimator_limited_share(table),
            "sigma_shares": {f"{sigma:g}": share for sigma, share in sigma_shares(table).items()},
            **_expert_shares_beyond_sigma(table),
            "choice_loss": _distribution(choice_loss(table)),
            "choice_slack": _distribution(choice_slack(table)),
        },
        "dual_to_oracle": None
        if ratios is None
        else {key: None if np.isnan(ratio) else float(ratio) for key, ratio in zip(keys, ratios, strict=True)},
        "samples_per_input": samples_per_input(table),
        "seconds_per_input": seconds_per_input(table),
    }


def radius_key(radius: float) -> str:
    """Gives the key of a radius in a summary: two decimals, or as many as it has.

    Examples:
        >>> radius_key(0), radius_key(0.25), radius_key(0.125)
        ('0.00', '0.25', '0.125')
    """
    short = f"{radius:.2f}"
    return short if float(short) == radius else repr(float(radius))


def _reached(table: pl.DataFrame, radii: ArrayLike) -> dict[str, tuple[NDArray[np.int64], int]]:
    """How many inputs of each method have the true label and a radius above each r, and of how many."""
    at = np.asarray(radii, dtype=np.float64)
    if not (at >= 0).all():
        raise ValueError(f"radii must be at least 0; got {radii!r}")
    reached = {}
    for method in methods_of(table):
        rows = table.filter(pl.col("method") == method)
        earned = np.sort(rows.filter("correct")["radius"].to_numpy())
        reached[method] = (np.asarray(len(earned) - np.searchsorted(earned, at, side="right")), len(rows))
    return reached


def _means(table: pl.DataFrame, value: pl.Expr) -> dict[str, float]:
    means = table.group_by("method", maintain_order=True).agg(value.cast(pl.Float64()).mean().alias("mean"))
    return dict(means.iter_rows())


def _dual(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("method") == DUAL)


def _expert_shares_beyond_sigma(table: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The shares of experts, where σ does not say who was chosen."""
    shares = expert_shares(table)
    return {"expert_shares": shares} if len(shares) > len(sigma_shares(table)) else {}


def _radius_of_choice(row: Mapping[str, Any]) -> float:
    """Within which the choice of an expert cannot change the answer of the one that was chosen."""
    if row["routes"] is None:
        return float(row["estimator_radius"])
    chosen = row["sigma"], row["expert"]
    routes = (Route(**route) for route in json.loads(row["routes"]))
    return min(route.radius for route in routes if (route.sigma, route.expert) != chosen)


def _distribution(values: NDArray[np.float64]) -> dict[str, float] | None:
    """The mean and the quantiles."""
    if not len(values):
        return None
    quantiles = dict(zip(map(str, _QUANTILES), np.quantile(values, _QUANTILES).tolist(), strict=True))
    return {"mean": float(values.mean()), **quantiles}


def _refuse_different_inputs(table: pl.DataFrame) -> None:
    inputs = {
        method: frozenset(table.filter(pl.col("method") == method)["idx"].to_list()) for method in methods_of(table)
    }
    if len(set(inputs.values())) > 1:
        sizes = ", ".join(f"{method}: {len(idx)}" for method, idx in inputs.items() if method != ORACLE)
        raise ValueError(f"the methods were run on different inputs ({sizes}); compare them on those they share")
