"""The commands that take results: import, export, compare, report."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dualrs.cli._shared import AsJson, out
from dualrs.progress import console as remarks

Radii = Annotated[str, typer.Option(help="Of the tables, separated by commas; 0, 0.25, … 2.5 if absent.")]


def import_(
    log: Annotated[Path, typer.Argument(help="A certification log: idx label predict radius correct time.")],
    output: Annotated[Path, typer.Option(help="The results table to write (.parquet).")],
    sigma: Annotated[float | None, typer.Option(help="Noise level of the log.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Its estimation samples.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Failure probability of each of its certificates.")] = None,
    method: Annotated[str | None, typer.Option(help="What to call it; global-σ if absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file.")] = False,
) -> None:
    """Read a published certification log, to compare it with runs.

    A log that contradicts the --alpha, --n and --sigma it is said to have is told on.

    Example: dualrs import noise_0.50.tsv --sigma 0.5 --n 100000 --alpha 0.001 --output published.parquet
    """
    from dualrs.evaluation import import_log, write_parquet

    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} is there already: choose another --output, or --overwrite")
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        table = import_log(log, method=method, sigma=sigma, n=n, alpha=alpha)
    for doubt in doubts:
        remarks.print(f"[yellow]warning:[/] {escape(str(doubt.message))}", highlight=False, soft_wrap=True)
    write_parquet(table, output)
    out.print(f"{len(table):,} inputs: {output}", soft_wrap=True)


def export(
    run: Annotated[str, typer.Argument(help="A run's folder, or a results table (.parquet).")],
    output: Annotated[Path, typer.Option(help="The log to write.")],
    method: Annotated[str | None, typer.Option(help="Which of its methods; dual if absent.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that file.")] = False,
) -> None:
    """Write one method of a run as a certification log, for the field's scripts.

    Example: dualrs export runs/cifar10 --method global-0.5 --output noise_0.50.tsv
    """
    from dualrs.evaluation import export_log, load_run

    out.print(f"log: {export_log(load_run(run), output, method=method, overwrite=overwrite)}", soft_wrap=True)


def compare(
    run_a: Annotated[str, typer.Argument(help="A run's folder or a results table (.parquet), and :METHOD.")],
    run_b: Annotated[str, typer.Argument(help="Another, or the same with another method.")],
    radii: Radii = "",
    confidence: Annotated[float, typer.Option(help="Of each interval by itself.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Compare two methods on the inputs that both were run on, pair by pair.

    Example: dualrs compare runs/cifar10:dual runs/cifar10:global-0.5
    """
    from dualrs.evaluation import compare as paired
    from dualrs.evaluation import load_run, render_comparison

    (a, method_a), (b, method_b) = (_run_and_method(name) for name in (run_a, run_b))
    comparison = paired(
        load_run(a),
        load_run(b),
        _radii(radii),
        methods=(method_a, method_b),
        names=(run_a, run_b),
        confidence=confidence,
    )
    print(json.dumps(comparison.to_dict())) if as_json else out.print(render_comparison(comparison))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs' folders or results tables (.parquet), of the same data.")],
    output: Annotated[Path, typer.Option(help="The report's folder; an earlier report in it is replaced.")],
    radii: Radii = "",
    no_thumbnails: Annotated[
        bool, typer.Option("--no-thumbnails", help="Leave the pictures of the inputs out, to pass the page on.")
    ] = False,
) -> None:
    """Write a report of runs: a page for the browser that needs no network, figures, and tables for papers.

    Several runs are compared on the inputs that all have.

    Example: dualrs report runs/quickstart --output runs/report --radii 0,0.5,1
    """
    from dualrs.evaluation import write_report

    page = write_report(runs, output, radii=_radii(radii), thumbnails=not no_thumbnails)
    out.print(f"report: {page}", soft_wrap=True)


def _radii(text: str) -> Sequence[float]:
    from dualrs.evaluation import STANDARD_RADII

    try:
        return [float(part) for part in text.split(",")] if text else STANDARD_RADII
    except ValueError as error:
        raise ValueError(f"--radii are numbers separated by commas; got {text!r}") from error


def _run_and_method(name: str) -> tuple[str, str | None]:
    """Splits RUN:METHOD; a path may have a colon of its own."""
    run, colon, method = name.rpartition(":")
    return (run, method) if colon and not Path(name).exists() else (name, None)
