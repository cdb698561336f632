"""The rows that a figure is about."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from dualrs.evaluation.table import DUAL

_SLICE = 16_384  # rows whose JSON is decoded at once


def methods_of(table: pl.DataFrame) -> list[str]:
    """Gives the methods of a results table, in the order in which they appear."""
    return table["method"].unique(maintain_order=True).to_list()


def of_method(table: pl.DataFrame, method: str = DUAL) -> pl.DataFrame:
    """The rows of a method, maybe none."""
    return table.filter(pl.col("method") == method)


def by_slices(rows: pl.DataFrame, work: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """What `work` makes of the rows, a slice at a time: JSON takes less memory as text than decoded."""
    return pl.concat([work(part) for part in rows.iter_slices(_SLICE)] or [work(rows)])
