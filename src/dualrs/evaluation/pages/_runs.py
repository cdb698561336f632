"""What a report is made of: runs that were recorded, and logs that were imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from dualrs.evaluation.attack import read_audit
from dualrs.evaluation.metrics import methods_of
from dualrs.evaluation.runs import CERTIFICATES, Evaluation, open_run
from dualrs.evaluation.table import DUAL, ORACLE, ResultsError


@dataclass(frozen=True)
class Run:
    """A results table, and what is recorded of how it was made.

    Attributes:
        name: no other run of the report has it.
        table: with at least one row; of the inputs that all runs of the report have.
        whole: the run with all its inputs.
        audit: the content of its ``attack.json``; None where there is none.
    """

    name: str
    table: pl.DataFrame
    whole: Evaluation
    audit: Mapping[str, Any] | None = None

    @property
    def inputs(self) -> int:
        """How many inputs are in the table."""
        return self.table["idx"].n_unique()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """How it was made; empty where that was not recorded."""
        return self.whole.metadata

    @cached_property
    def finished(self) -> int:
        """How many inputs the run has."""
        return self.whole.table["idx"].n_unique()

    @property
    def methods(self) -> list[str]:
        """The dual method first and the oracle last, the others in the order of the table."""
        return sorted(methods_of(self.table), key=lambda method: (method != DUAL, method == ORACLE))

    def of(self, section: str, name: str) -> Any:
        """Gives one value of the metadata, None where it was not recorded."""
        return (self.metadata.get(section) or {}).get(name)


def open_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Reads runs that can stand in one report, on the inputs that all of them have.

    Args:
        paths: a run's folder or a results table (``.parquet``) each.

    Raises:
        FileNotFoundError: there is no such run.
        ResultsError, RunError: one is damaged or none, or nothing was finished.
        ValueError: none is given, one twice, or they are not of the same data.
    """
    places = [Path(path) for path in paths]
    if not places:
        raise ValueError("name at least one run: a folder that `dualrs certify` wrote, or a results table (.parquet)")
    tables = [_table_of(place).resolve() for place in places]
    if twice := [table for table, times in Counter(tables).items() if times > 1]:
        raise ValueError(f"{twice[0]} is named twice")
    runs = [_open(place, name) for place, name in zip(places, _names(tables), strict=True)]
    for other in runs[1:]:
        _refuse_other_data(runs[0], other)
    for other in runs[1:]:
        runs = [
            replace(run, table=run.table.join(other.table, on="idx", how="semi", maintain_order="left")) for run in runs
        ]
    if runs[0].table.is_empty():
        raise ValueError(f"no input is in all of {', '.join(run.name for run in runs)}; make a report of each")
    return runs


def _open(place: Path, name: str) -> Run:
    whole = open_run(place)
    if whole.table.is_empty():
        raise ResultsError(f"{place} has no results: not one input was finished")
    return Run(name, whole.table, whole, read_audit(whole))


def _table_of(place: Path) -> Path:
    return place / CERTIFICATES if place.is_dir() else place


def _names(tables: Sequence[Path]) -> list[str]:
    """What each table is called: the last part of its path, with as many before it as tell them apart."""
    paths = [table.parent if table.name == CERTIFICATES else table for table in tables]
    parts = [path.parts[1:] for path in paths]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return ["/".join(path[-length:]) for path in parts]


def _refuse_other_data(one: Run, other: Run) -> None:
    digests = [run.of("data", "digest") for run in (one, other)]
    if None not in digests and digests[0] != digests[1]:
        told = [f"{run.name} is of {run.of('data', 'name')} ({run.of('data', 'digest')[:12]}…)" for run in (one, other)]
        raise ValueError(f"the runs are of different data: {', '.join(told)}; make a report of each")
    labels = [run.table.group_by("idx").agg(pl.col("label").first()) for run in (one, other)]
    shared = labels[0].join(labels[1], on="idx", suffix="_other")
    contradiction = shared.filter(pl.col("label") != pl.col("label_other")).sort("idx")
    if not contradiction.is_empty():
        idx, label, another = contradiction.row(0)
        raise ValueError(
            f"{one.name} and {other.name} are not of the same data: "
            f"input {idx} has class {label} in one and {another} in the other"
        )
