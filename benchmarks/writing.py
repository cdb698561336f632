"""How much of a run's time goes into writing its results, as they come and at the end.

Seconds are of the processor, of all threads that write and of the whole process, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from record import RESULTS, write

MODEL, DATA, IMAGES, N, TARGET = "fashion-mnist", "fashion-mnist-sample", 100, 2_000, 0.01


class Clock:
    """Adds up the processor's seconds of calls, each in the thread that makes it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function."""

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            begin = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.thread_time() - begin

        return run


def measure(folder: Path) -> dict[str, Any]:
    """Certifies images with results in the folder; gives the seconds of writing, of drawing curves, and of all."""
    from dualrs.data import open_dataset
    from dualrs.evaluation import evaluate, runs, store
    from dualrs.evaluation.selection import evenly_spaced
    from dualrs.smoothing import load

    parts, end, curves = Clock(), Clock(), Clock()
    store.RunStore.flush = parts.timed(store.RunStore.flush)  # type: ignore[method-assign]
    store.write_run, runs.plot_curves = end.timed(store.write_run), curves.timed(runs.plot_curves)
    model, data = load(MODEL), open_dataset(DATA)
    begin, clock = time.process_time(), time.perf_counter()
    found = evaluate(model, data, indices=evenly_spaced(IMAGES, len(data)), n=N, folder=folder)
    return {
        "rows": len(found.table),
        "seconds": time.perf_counter() - clock,
        "processor": {
            "run": time.process_time() - begin,
            "parts": parts.seconds,
            "end": end.seconds - curves.seconds,
            "curves": curves.seconds,
        },
    }


def main() -> None:
    """Measures, prints the figures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "writing.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder) / "run")
    print(json.dumps(found))
    write(options.output, {"settings": {"model": MODEL, "images": IMAGES, "n": N, "target": TARGET}, **found})


if __name__ == "__main__":
    main()
