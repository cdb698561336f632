"""Reports as folders: the page, its figures and its tables, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dualrs.evaluation.metrics import STANDARD_RADII, summarize
from dualrs.evaluation.pages._canvas import Picture
from dualrs.evaluation.pages._cells import Table, comma_separated, latex, markdown, stacked
from dualrs.evaluation.pages._page import Part, Together, page_of
from dualrs.evaluation.pages._pictures import overlaid_curves, pictures_of
from dualrs.evaluation.pages._runs import Run, open_runs
from dualrs.evaluation.pages._tables import differences, tables_of

PAGE = "report.html"
_FIGURES, _TABLES = "figures", "tables"
_FORMATS = {"md": markdown, "tex": latex, "csv": comma_separated}


def write_report(
    runs: Sequence[str | Path],
    folder: str | Path,
    *,
    radii: Sequence[float] = STANDARD_RADII,
    thumbnails: bool = True,
) -> Path:
    """Writes a report of runs: a page that needs no network, figures and tables; docs/report.md says how to read it.

    In the folder are then ``report.html``, ``figures/`` with PNG and PDF, and ``tables/`` with Markdown, LaTeX (for
    booktabs) and CSV. Of several runs the page compares the first method of each, on the inputs that all have. The same
    runs give the same bytes. The folder is the report's own: an earlier report in it is replaced as a whole, after the
    new one is finished.

    Args:
        runs: a run's folder or a results table (``.parquet``) each, all of the same data.
        folder: made if absent.
        radii: of the tables, strictly ascending, in the units of the input, the first at least 0.
        thumbnails: whether the inputs are shown as pictures, where their data set is here. Not every data set may be
            passed on.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: there is no such run.
        FileExistsError: the folder holds anything but a report.
        ResultsError, RunError: a run is damaged, or has no results.
        ValueError: the runs are not of the same data, or an argument is outside of its range.
    """
    folder = Path(folder)
    _refuse_other_files(folder)
    opened = open_runs(runs)
    if not len(radii):
        raise ValueError("give at least one radius")
    parts = [_part(run, radii) for run in opened]
    paired = differences(opened, radii)
    together = _together(parts, paired) if len(parts) > 1 else None
    with _replaced(folder) as fresh:
        (fresh / PAGE).write_text(page_of(parts, paired, together, thumbnails=thumbnails), encoding="utf-8")
        if together is not None:
            _write_figures(fresh / _FIGURES, [together.picture])
        for part in parts:
            place = fresh / _FIGURES / (part.run.name if together else "")
            _write_figures(place, part.pictures.values())
        _write_tables(fresh / _TABLES, [*_stacked(parts, parts[0].tables), paired])
    return folder / PAGE


def _part(run: Run, radii: Sequence[float]) -> Part:
    summary = summarize(run.table, radii)
    tables = {table.name: table for table in tables_of(run, summary)}
    return Part(run, summary, tables, {picture.name: picture for picture in pictures_of(run)})


def _together(parts: Sequence[Part], paired: Table) -> Together:
    runs = [part.run for part in parts]
    inputs = f"{runs[0].inputs:,} inputs"
    about = (
        f"All figures on this page are of the {inputs} that all runs have."
        if any(run.inputs < run.finished for run in runs)
        else f"All runs are of the same {inputs}."
    )
    return Together(
        about, overlaid_curves(runs), [*_stacked(parts, ("certified-accuracy", "averages", "cost")), paired]
    )


def _stacked(parts: Sequence[Part], names: Iterable[str]) -> list[Table]:
    return [stacked([(part.run.name, part.tables[name]) for part in parts]) for name in names]


def _write_figures(folder: Path, pictures: Iterable[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        for kind in ("png", "pdf"):
            (folder / f"{picture.name}.{kind}").write_bytes(picture.files[kind])


def _write_tables(folder: Path, tables: Iterable[Table]) -> None:
    folder.mkdir()
    for table in tables:
        for kind, write in _FORMATS.items() if table.rows else ():
            (folder / f"{table.name}.{kind}").write_text(write(table), encoding="utf-8")


def _refuse_other_files(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is no folder: choose another place")
    if folder.exists() and (others := sorted({path.name for path in folder.iterdir()} - {PAGE, _FIGURES, _TABLES})):
        raise FileExistsError(f"{folder} holds other files than a report ({others[0]}): choose another folder")


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Gives a new folder to write to, which takes the place of another when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
