"""The results table: one row per input and method, with the raw votes behind every certificate."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dualrs.certificates import Certificate
from dualrs.files import atomic_write
from dualrs.sampling import Outcome
from dualrs.smoothing import Expert

DUAL = "dual"
"""The method name of the dual smoothed classifier, by the first of its rules."""
ORACLE = "oracle"
"""The method name, and the rule, of the rows that `oracle_rows` derives."""
_GLOBAL_PREFIX = "global-"

SCHEMA = pl.Schema(
    {
        "idx": pl.Int64(),
        "method": pl.String(),
        "label": pl.Int64(),
        "predicted": pl.Int64(),
        "abstained": pl.Boolean(),
        "correct": pl.Boolean(),
        "radius": pl.Float64(),
        "sigma": pl.Float64(),
        "expert": pl.String(),
        "estimator_radius": pl.Float64(),
        "classifier_radius": pl.Float64(),
        "samples": pl.Int64(),
        "seconds": pl.Float64(),
        "alpha": pl.Float64(),
        "rule": pl.String(),
        "stages": pl.String(),
        "routes": pl.String(),
    }
)
"""The columns of a results table.

`idx` is the input's position in the published split and `label` its true class; `predicted` is null where
the method abstains; `radius` and `sigma` are in the units of the input; `expert` names the base classifier that
answered, as far as a record says; `samples` counts the votes that the certificate rests on and `seconds` what they
cost; `alpha` is its failure probability; `stages` holds the votes of each stage as JSON, and `routes` the radii of each
expert, likewise. Null are estimator and classifier radius where a method has no such stage, and `routes` where its
radius is not that of the weakest route; and `samples` and `alpha` where a log that was imported does not tell them.
"""
_NULLABLE = ("predicted", "sigma", "expert", "estimator_radius", "classifier_radius", "samples", "alpha", "routes")
_FROM_CERTIFICATE = ("radius", "sigma", "expert", "alpha", "rule", "estimator_radius", "classifier_radius")
_WITHOUT_EXPERT = [name for name in SCHEMA if name != "expert"]  # the columns when each σ had one expert


class ResultsError(ValueError):
    """A file that is no results table; the message says what is wrong with it."""


def global_name(sigma: float) -> str:
    """Gives the method name of the classifier that is smoothed at σ for every input.

    Examples:
        >>> global_name(0.25), global_name(1.0)
        ('global-0.25', 'global-1')
    """
    return f"{_GLOBAL_PREFIX}{sigma:g}"


def global_names(experts: Sequence[Expert]) -> list[str]:
    """Gives the method names of the experts that are smoothed for every input: by σ, and by name where σ has several.

    Examples:
        >>> global_names([Expert("a.onnx", 0.25), Expert("b.onnx", 0.5), Expert("c.onnx", 0.5, "wide")])
        ['global-0.25', 'global-0.5 (expert-0.5)', 'global-0.5 (wide)']
    """
    by_sigma = [global_name(expert.sigma) for expert in experts]
    times = Counter(by_sigma)
    return [
        name if times[name] == 1 else f"{name} ({expert.name})" for name, expert in zip(by_sigma, experts, strict=True)
    ]


def is_global(method: str) -> bool:
    """Tells whether a method smooths one classifier at one σ for every input."""
    return method.startswith(_GLOBAL_PREFIX)


def has_shared_sigmas(methods: Iterable[str]) -> bool:
    """Tells whether among the methods are several experts at one σ, so that σ does not say who answered."""
    return any(is_global(method) and method.endswith(")") for method in methods)


def rows_of(table: pl.DataFrame, method: str | None = None) -> pl.DataFrame:
    """Gives the rows of one method.

    Args:
        table: a results table.
        method: its name; None takes the only one, or "dual" where there are several.

    Raises:
        ValueError: the table has no such method, or several and none of them is "dual".
    """
    methods = table["method"].unique(maintain_order=True).to_list()
    if method is None:
        if len(methods) != 1 and DUAL not in methods:
            raise ValueError(f"name the method: the table has {', '.join(methods) or 'none'}")
        method = methods[0] if len(methods) == 1 else DUAL
    if method not in methods:
        raise ValueError(f"the table has no method {method!r}; it has {', '.join(methods) or 'none'}")
    return table.filter(pl.col("method") == method)


def row_of(idx: int, method: str, label: int, outcome: Outcome) -> dict[str, Any]:
    """Gives the row of one input and method.

    Args:
        idx: the input's position in the published split.
        method: the name under which the outcome is compared with others.
        label: the true class.
        outcome: what the engine returned.
    """
    certificate = outcome.certificate
    parts = {
        name: None if value is None else json.dumps(value, separators=(",", ":"))
        for name, value in certificate.to_dict().items()
        if name in {"stages", "routes"}
    }
    return {
        "idx": idx,
        "method": method,
        "label": label,
        "predicted": certificate.label,
        "abstained": certificate.abstained,
        "correct": certificate.label == label,
        **{name: getattr(certificate, name) for name in _FROM_CERTIFICATE},
        "samples": certificate.samples,
        "seconds": outcome.seconds,
        **parts,
    }


def table_of(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Makes a results table of rows from `row_of`, ordered by `idx`; rows of one input keep their order.

    Raises:
        ResultsError: two rows have the same input and method, or a value contradicts another.
    """
    table = pl.DataFrame(list(rows), schema=SCHEMA, orient="row").sort("idx", maintain_order=True)
    _refuse_nonsense(table, "the rows")
    return table


def certificate_of(row: Mapping[str, Any]) -> Certificate:
    """Rebuilds the certificate that a row records, checking every field again.

    Args:
        row: as ``table.row(i, named=True)`` or ``table.iter_rows(named=True)`` give it.

    Raises:
        ValueError: the row is the oracle's, which holds no certificate, or a value is outside of its range.
    """
    if row["rule"] == ORACLE:
        raise ValueError("an oracle row is picked with knowledge of the true label and holds no certificate")
    fields = {name: row[name] for name in _FROM_CERTIFICATE}
    try:
        parts = {name: None if row[name] is None else json.loads(row[name]) for name in ("stages", "routes")}
        return Certificate.from_dict({"label": row["predicted"], **fields, **parts})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the row of input {row['idx']}, method {row['method']!r} holds no certificate: {error}"
        ) from error


def oracle_rows(table: pl.DataFrame) -> pl.DataFrame:
    """Derives what a choice of expert that knew the true label would reach: an upper bound, not a classifier.

    For each input this is the largest radius among the global-σ certificates that give the true label (the
    smallest σ on ties, then the first in the table), and an abstention where none does. It picks the best of K
    certificates, so its `alpha` is the sum of theirs, at which all K hold together (union bound); `samples` and
    `seconds` are sums too. The votes stay in the rows it was derived from: `stages` is empty.

    Args:
        table: a results table; without global-σ methods there are no oracle rows.

    Returns:
        A results table with one row per input, ordered by `idx`, all of method and rule "oracle".
    """
    hit = pl.col("correct")
    return (
        table.filter(pl.col("method").str.starts_with(_GLOBAL_PREFIX))
        .sort(["correct", "radius", "sigma"], descending=[True, True, False], maintain_order=True)
        .group_by("idx", maintain_order=True)
        .agg(
            pl.col("label", "predicted", "correct", "radius", "sigma", "expert").first(),
            _sum("samples"),
            _sum("seconds"),
            _sum("alpha").clip(upper_bound=1.0),
        )
        .with_columns(
            method=pl.lit(ORACLE),
            rule=pl.lit(ORACLE),
            stages=pl.lit("[]"),
            routes=pl.lit(None, pl.String()),
            abstained=~hit,
            predicted=pl.when(hit).then("predicted"),
            sigma=pl.when(hit).then("sigma"),
            expert=pl.when(hit).then("expert"),
            radius=pl.when(hit).then("radius").otherwise(0.0),
            estimator_radius=pl.lit(None, pl.Float64()),
            classifier_radius=pl.lit(None, pl.Float64()),
        )
        .select(SCHEMA.names())
        .cast(SCHEMA)
        .sort("idx")
    )


def write_parquet(table: pl.DataFrame, path: str | Path) -> Path:
    """Writes a results table so that readers see the old file or the new, never a part of it.

    Raises:
        ResultsError: the table is no results table.
    """
    path = Path(path)
    _refuse_other_columns(table, "the table")
    with atomic_write(path) as file:
        file.write(parquet_bytes(table))
    return path


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """Gives the content of a Parquet file with a table of any columns."""
    content = io.BytesIO()
    table.write_parquet(content)
    return content.getvalue()


def read_parquet(path: str | Path) -> pl.DataFrame:
    """Reads a results table that `write_parquet` wrote, or an older version that had no column for the expert.

    Raises:
        FileNotFoundError: there is no such file.
        ResultsError: the file is truncated, is no Parquet file, has other columns, or contradicts itself.
    """
    return parse_parquet(Path(path).read_bytes(), str(path))


def parse_parquet(content: bytes, what: str) -> pl.DataFrame:
    """Reads the content of such a file; ``what`` names it in errors, which are those of `read_parquet`."""
    table = parse_any_parquet(content, what)
    if table.columns == _WITHOUT_EXPERT:
        table = table.with_columns(expert=pl.lit(None, pl.String())).select(SCHEMA.names())
    _refuse_other_columns(table, what)
    _refuse_nonsense(table, what)
    return table


def parse_any_parquet(content: bytes, what: str) -> pl.DataFrame:
    """Reads the content of a Parquet file with a table of any columns.

    Raises:
        ResultsError: it is truncated or something else; the message names ``what``.
    """
    try:
        return pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ResultsError(f"{what} ({len(content):,} bytes) is truncated or no Parquet file: {error}") from error


def _sum(column: str) -> pl.Expr:
    """The sum, null where a part of it is not known."""
    return pl.when(pl.col(column).null_count() == 0).then(pl.col(column).sum())


def _refuse_other_columns(table: pl.DataFrame, what: str) -> None:
    missing = [name for name in SCHEMA if name not in table.columns]
    unknown = [name for name in table.columns if name not in SCHEMA]
    wrong = [
        f"{name} is {table.schema[name]}, not {dtype}"
        for name, dtype in SCHEMA.items()
        if name in table.columns and table.schema[name] != dtype
    ]
    problems = [
        *([f"missing columns: {', '.join(missing)}"] if missing else []),
        *([f"unknown columns: {', '.join(unknown)}"] if unknown else []),
        *wrong,
    ]
    if not problems and table.columns != SCHEMA.names():
        problems = [f"the columns must come in the order {', '.join(SCHEMA)}"]
    if problems:
        raise ResultsError(f"{what} is not a results table: {'; '.join(problems)}")


def _refuse_nonsense(table: pl.DataFrame, what: str) -> None:
    checks = {
        "a value is missing": pl.any_horizontal(pl.exclude(_NULLABLE).is_null()),
        "`abstained` contradicts `predicted`": pl.col("abstained") != pl.col("predicted").is_null(),
        "`correct` contradicts `predicted`": pl.col("correct") != pl.col("predicted").eq_missing(pl.col("label")),
        "a radius is not a finite number ≥ 0": ~(pl.col("radius").is_finite() & (pl.col("radius") >= 0)),
        "an abstention claims a radius": pl.col("abstained") & (pl.col("radius") > 0),
        "two rows have this input and method": pl.struct("idx", "method").is_duplicated(),
    }
    for problem, found in checks.items():
        bad = table.filter(found)
        if len(bad):
            row = bad.row(0, named=True)
            raise ResultsError(f"{what}: {problem} (input {row['idx']}, method {row['method']!r})")
