"""What several commands share: where they print, options, exit codes, opened data, what an interruption says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dualrs.progress import console as remarks

if TYPE_CHECKING:
    from dualrs.data import Dataset
    from dualrs.sampling import Runner
    from dualrs.smoothing import Smoothed

out = Console(markup=False, highlight=False)  # what is printed are paths, names and figures, with brackets or not
if not out.is_terminal:
    out.width = max(out.width, 100)  # a file has no width, and rich would assume 80 columns


class Engines(StrEnum):
    """Who does the work of a command."""

    LOCAL = "local"
    RAY = "ray"


Device = Annotated[str, typer.Option(help="Where the networks run: cpu, cuda, …")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Samples = Annotated[int, typer.Option("--n", help="Estimation samples of each stage.")]
Alpha = Annotated[float, typer.Option(help="Failure probability of each certificate.")]

Engine = Annotated[Engines, typer.Option(help="Who does the work: this process, or the workers of a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: HOST:PORT, ray://HOST:PORT, or auto; one on this machine if absent."),
]
Workers = Annotated[int | None, typer.Option(help="Workers on it; as many as it has devices for, if absent.")]
Threads = Annotated[int | None, typer.Option(help="Processors for each worker; one if absent.")]

WRONG, FAILED, INTERRUPTED = 3, 4, 130


def runner_for(
    engine: Engines, *, address: str | None, workers: int | None, threads: int | None, device: str
) -> Runner | None:
    """Where work is done, by the options of a command; None for this process.

    Raises:
        ValueError: options of a cluster for this process.
    """
    given = {"--address": address, "--workers": workers, "--threads": threads}
    if engine is Engines.RAY:
        from dualrs.distributed import RayRunner

        return RayRunner(address=address, workers=workers, threads=threads or 1, device=device)
    if meant := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{' and '.join(meant)}: only with --engine ray")
    return None


def open_data(name: str, model: Smoothed, split: str = "test") -> Dataset:
    """Opens data; images of a folder are brought to the size that the model takes."""
    from dualrs.data import open_dataset

    sides = set(model.input.shape[1:]) if model.input and name.startswith("folder:") else set()
    return open_dataset(name, split, size=sides.pop() if len(sides) == 1 else None)


def data_of(bundle: str) -> str | None:
    """The test images of a shipped model's data set, if they are here."""
    from dualrs.data import available
    from dualrs.models import shipped_models

    name = "fashion-mnist-sample" if bundle == "fashion-mnist" else bundle
    here = {info.name for info in available() if info.present}
    return name if bundle in shipped_models() and name in here else None


@contextmanager
def resumable() -> Iterator[None]:
    """Ends an interrupted command with a line that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        remarks.print("[yellow]Interrupted:[/] run the same command again to go on where this one stopped.")
        raise typer.Exit(INTERRUPTED) from None
