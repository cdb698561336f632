"""Runs the notebooks of the documentation from top to bottom and keeps what they printed and drew.

python scripts/run_notebooks.py [NOTEBOOK …]   # all of them, if none is named
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
SECONDS = 300


def run(path: Path) -> Any:
    """A notebook after it ran, in a folder of its own; raises the error of a cell that fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return notebook


def cleaned(notebook: Any) -> Any:
    """The same without what differs from one run to the next and says nothing: times, progress."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _says_something(output)]
    return notebook


def _says_something(output: Any) -> bool:
    """Whether an output is more than a progress bar, which is erased at its end."""
    if output.output_type == "display_data":
        return "image/png" in output.data or bool(output.data.get("text/plain", "").strip())
    return output.get("name") != "stderr"


def main() -> None:
    """Runs and writes them."""
    import nbformat

    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(cleaned(run(path)), path)
        print(path.name, file=sys.stderr)


if __name__ == "__main__":
    main()
