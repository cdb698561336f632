"""Runs as they are in files: read, written out and merged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dualrs.evaluation.indices import Indices
from dualrs.evaluation.keeping import Keeping
from dualrs.evaluation.manifest import MANIFEST, Manifest, RunError, read_manifest
from dualrs.evaluation.metadata import describe_run
from dualrs.evaluation.metrics import STANDARD_RADII, summarize
from dualrs.evaluation.plots import plot_curves
from dualrs.evaluation.table import (
    DUAL,
    ResultsError,
    oracle_rows,
    parse_parquet,
    read_parquet,
    table_of,
)
from dualrs.files import exclusive, write_json
from dualrs.progress import remark
from dualrs.sampling import Failed

CERTIFICATES = "certificates.parquet"
SUMMARY = "summary.json"
CURVES = "curves.png"
FAILED = "failed.json"
RUN = Keeping(MANIFEST, "parts", CERTIFICATES, FAILED, (SUMMARY, CURVES), parse_parquet)


@dataclass(frozen=True)
class Evaluation:
    """What a run found, or has found so far.

    Attributes:
        table: a results table (see `dualrs.evaluation.SCHEMA`), ordered by `idx`.
        complete: False if inputs that were asked for are missing; what was finished is here all the same.
        requested: how many were asked for.
        metadata: how it was made; empty for a table of which nothing is recorded.
        folder: where the files are; None if there are none.
        missing: these inputs, by `idx`.
        failed: those of them that were tried just now and set aside, with what they failed by.
    """

    table: pl.DataFrame
    complete: bool
    requested: int
    metadata: Mapping[str, Any]
    folder: Path | None
    missing: frozenset[int] = frozenset()
    failed: Mapping[int, Failed] = field(default_factory=dict)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``: these fields, and between them what `summarize` gives of the table."""
        recorded = {"metadata": self.metadata} if self.metadata else {}
        figures = summarize(self.table, STANDARD_RADII)
        return {"complete": self.complete, "requested": self.requested, **figures, **recorded}


def open_run(path: str | Path) -> Evaluation:
    """Reads a run, finished or not, with its table and all that is known of it.

    Args:
        path: a run's folder, or a ``.parquet`` file with a results table, which is taken for complete.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ResultsError, RunError: it holds no run, or one that is damaged.
    """
    path = Path(path)
    if not (path / MANIFEST).exists():
        return _open_table(path)
    manifest, is_settled = read_manifest(path / MANIFEST), RUN.is_settled(path)
    tables, broken = RUN.read(path, manifest)
    for part in broken:
        remark(f"{part} is damaged or of another run, and left out")
    if is_settled and len(tables) == 1:
        return _evaluation_of(manifest, tables[0], path)  # as it was written; large runs have no memory for a copy
    return evaluation_of(manifest, _finished(tables, manifest), path)


def load_run(path: str | Path) -> pl.DataFrame:
    """Reads the results table of a run, finished or not, or of a ``.parquet`` file; raises as `open_run` does."""
    return open_run(path).table


def merge_runs(paths: Sequence[str | Path], output: str | Path, *, overwrite: bool = False) -> Evaluation:
    """Makes one run of shards, or of other runs that share all settings; it can be continued like any other.

    It is asked for everything that the shards are shards of, so ``missing`` of the result says what none of them holds.

    Args:
        paths: the folders of the runs.
        output: the folder of the merged run.
        overwrite: replace what is there already.

    Raises:
        FileExistsError: the output holds results and ``overwrite`` is False.
        RunError: the runs were not made with the same settings, or differ on an input that both have; the message
            names what differs.
    """
    folders, output = [Path(path) for path in paths], Path(output)
    for folder in folders:
        if not (folder / MANIFEST).exists():
            raise RunError(f"{folder} is no folder of a run: it has no {MANIFEST}")
        if folder.resolve() == output.resolve():
            raise RunError(f"{output} is one of the runs to be merged: choose another folder for the result")
    manifests = [read_manifest(folder / MANIFEST) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        if changes := manifests[0].changes(manifest):
            raise RunError(f"{folders[0]} and {folder} cannot be merged, for their settings differ: {changes}")
    rows = pl.concat([read_rows(folder, manifest)[0] for folder, manifest in zip(folders, manifests, strict=True)])
    rows = rows.unique(pl.exclude("seconds"), keep="first", maintain_order=True)
    for idx, method in rows.filter(pl.struct("idx", "method").is_duplicated()).select("idx", "method").iter_rows():
        raise RunError(f"the runs cannot be merged: their certificates of input {idx} by {method!r} differ")
    whole = Indices(chain.from_iterable(manifest.whole for manifest in manifests))
    sessions = sorted((each for manifest in manifests for each in manifest.sessions), key=lambda each: each["started"])
    merged = Manifest(manifests[0].made_with, requested=whole, whole=whole, sessions=tuple(sessions))
    evaluation = evaluation_of(merged, rows, output)
    with exclusive(output):
        if not overwrite:
            RUN.refuse(output)
        RUN.remove(output)
        write_run(evaluation, merged, output)
    return evaluation


def evaluation_of(
    manifest: Manifest, rows: pl.DataFrame, folder: Path | None, failed: Mapping[int, Failed] | None = None
) -> Evaluation:
    """Orders the rows of a run, and adds the oracle's."""
    table = rows.sort("idx", maintain_order=True)
    if DUAL in table["method"]:  # with one method there is no choice that an oracle could make
        table = pl.concat([table, oracle_rows(table)]).sort("idx", maintain_order=True)
    return _evaluation_of(manifest, table, folder, failed)


def _evaluation_of(
    manifest: Manifest, table: pl.DataFrame, folder: Path | None, failed: Mapping[int, Failed] | None = None
) -> Evaluation:
    missing = frozenset(manifest.requested - Indices(table["idx"]))
    about = describe_run(manifest, table)
    return Evaluation(table, not missing, len(manifest.requested), about, folder, missing, failed or {})


def read_rows(folder: Path, manifest: Manifest) -> tuple[pl.DataFrame, list[Path]]:
    """Gives the rows of all inputs that a run has finished, by `idx` and without the oracle's, and the broken parts.

    Raises:
        ResultsError, RunError: the file of certificates is damaged or was altered.
    """
    tables, broken = RUN.read(folder, manifest)
    return _finished(tables, manifest), broken


def _finished(tables: Sequence[pl.DataFrame], manifest: Manifest) -> pl.DataFrame:
    """The rows of all inputs that have all methods, each once, ordered by `idx`, without the oracle's."""
    rows = pl.concat([table_of([]), *tables]).sort("idx", maintain_order=True)
    if not (known := rows["method"].is_in(manifest.methods)).all():
        rows = rows.filter(known)
    if _is_whole(rows, manifest.methods):
        return rows
    rows = rows.unique(["idx", "method"], keep="first", maintain_order=True)
    return rows.filter(pl.len().over("idx") == len(manifest.methods))


def _is_whole(rows: pl.DataFrame, methods: Sequence[str]) -> bool:
    """Whether every input has every method once; sorted as numbers, for groups of millions of rows take much memory."""
    count = len(methods)
    number = rows["method"].replace_strict(methods, range(count), return_dtype=pl.Int64)
    keys = np.sort((rows["idx"] * count + number).to_numpy())
    if len(keys) % count or not (np.diff(keys) > 0).all():
        return False
    inputs = (keys // count).reshape(-1, count)
    return bool((inputs[:, 0] == inputs[:, -1]).all())


def write_run(evaluation: Evaluation, manifest: Manifest, folder: Path) -> None:
    """Writes the files of a run, and removes the parts, which they replace; a kill at any moment loses nothing."""
    RUN.write_table(evaluation.table, manifest, folder)
    if evaluation.complete:
        _draw(evaluation, folder / CURVES)
    else:
        (folder / CURVES).unlink(missing_ok=True)  # it would show fewer inputs, or others
    write_json(folder / SUMMARY, evaluation.summary)
    RUN.parts_of(folder).remove()


def _open_table(path: Path) -> Evaluation:
    """Opens what has no manifest: a table, with a summary beside it if it was written by an earlier version."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is no run, as `dualrs certify` writes it: there is no such folder or file")
    folder = path if path.is_dir() else None
    if folder and not (folder / CERTIFICATES).exists():
        raise RunError(f"{path} is no folder of a run: it has neither {MANIFEST} nor {CERTIFICATES}")
    table = read_parquet(path / CERTIFICATES if folder else path)
    if folder and (folder / SUMMARY).exists():
        return _with_summary(table, folder)
    return Evaluation(table, True, table["idx"].n_unique(), {}, folder)


def _with_summary(table: pl.DataFrame, folder: Path) -> Evaluation:
    path = folder / SUMMARY
    try:
        about = json.loads(path.read_bytes())
        return Evaluation(table, bool(about["complete"]), int(about["requested"]), about.get("metadata") or {}, folder)
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} is no summary of a run ({type(error).__name__}: {error})") from error


def _draw(evaluation: Evaluation, path: Path) -> None:
    about = evaluation.metadata
    settings, data = about["certification"], about["data"]
    place = " ".join(part for part in (data["name"], data["split"]) if part)
    plot_curves(
        evaluation.table,
        path,
        title="Certified accuracy",
        subtitle=f"{place}, {evaluation.summary['inputs']:,} images, n = {settings['n']:,}, α = {settings['alpha']:g}",
    )
