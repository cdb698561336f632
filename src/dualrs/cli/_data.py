"""The commands about data sets: data list, data fetch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dualrs.cli._shared import AsJson, out
from dualrs.progress import console as remarks


def data_list(as_json: AsJson = False) -> None:
    """List the data sets, and which of them are here."""
    from dualrs.data import available

    found = available()
    if as_json:
        print(json.dumps([asdict(info) for info in found], default=str))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("name", "images", "here", "description"):
        table.add_column(column, no_wrap=column != "description")
    for info in found:
        sizes = ", ".join(f"{size:,} {split}" for split, size in info.splits.items())
        about = f"{info.description}. Licence: {info.licence}."
        table.add_row(info.name, sizes, "yes" if info.present else "no", about)
    out.print(table)


def data_fetch(
    name: Annotated[str, typer.Argument(help="The data set.")],
    archive: Annotated[
        Path | None, typer.Option("--from", help="Read this archive or folder instead of downloading.")
    ] = None,
) -> None:
    """Fetch a data set from the first source that works, verified by digest.

    Example: dualrs data fetch cifar10
    """
    from dualrs.data import fetch

    with remarks.status(f"fetching {name}") as status:
        folder = fetch(name, archive=archive, progress=lambda what, share: status.update(_fetching(what, share)))
    out.print(f"{name}: {folder}")


def _fetching(what: str, share: float | None) -> str:
    return what if share is None else f"{what} {share:.0%}"
