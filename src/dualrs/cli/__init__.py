"""The command line: parses, calls, prints.

Results go to standard output, progress and remarks to standard error. Exit codes: 0 done, 1 failed,
2 bad input, 3 an audit found certificates wrong, 4 inputs failed and were set aside, 130 interrupted (what was finished
is kept).

A command is a function of one of the modules here; heavy libraries are imported when it runs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

import dualrs
from dualrs.cli import _certifying, _data, _models, _planning, _results, _serving, _sharing, _training
from dualrs.cli._shared import INTERRUPTED, WRONG, out
from dualrs.progress import console as remarks

__all__ = ["INTERRUPTED", "WRONG", "app", "main"]

app = typer.Typer(
    name="dualrs",
    help="Certified robustness by dual randomized smoothing.\n\nStart with: dualrs quickstart",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
data = typer.Typer(help="Data sets: list and fetch them.", no_args_is_help=True)

_COMMANDS: dict[str, Callable[..., None]] = {
    "quickstart": _certifying.quickstart,
    "plan": _planning.plan,
    "certify": _certifying.certify,
    "merge": _certifying.merge,
    "predict": _models.predict,
    "attack": _models.attack,
    "doctor": _models.doctor,
    "train": _training.train,
    "label": _training.label,
    "import": _results.import_,
    "export": _results.export,
    "compare": _results.compare,
    "report": _results.report,
    "serve": _serving.serve,
    "token": _serving.token,
    "verify": _serving.verify,
    "export-onnx": _sharing.export_onnx,
    "share": _sharing.share,
}
for _name, _function in _COMMANDS.items():  # --help lists them in this order
    app.command(_name)(_function)
data.command("list")(_data.data_list)
data.command("fetch")(_data.data_fetch)
app.add_typer(data, name="data")


def main() -> None:
    """Runs the command line; bad input ends it with one line that says what is wrong."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is an interruption too
    try:
        app()
    except (ValueError, OSError) as error:
        _fail(error, code=2)
    except (RuntimeError, ImportError) as error:
        _fail(error, code=1)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(dualrs.__version__)
        raise typer.Exit


def _fail(error: Exception, *, code: int) -> None:
    # Messages quote what the user gave, which may look like markup.
    remarks.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    for note in getattr(error, "__notes__", []):
        remarks.print(note, highlight=False, markup=False, soft_wrap=True)
    sys.exit(code)
