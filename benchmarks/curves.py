"""Certified accuracy of the routed and the min rule, of every single σ and of the oracle, on shipped models.

All methods see the same votes. The runs go to benchmarks/results/curves-NAME, as `dualrs certify` writes them; they are
made under runs/, and go on there where they were interrupted.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
WORK = Path(__file__).resolve().parents[1] / "runs"
CIFAR10 = {"model": "cifar10", "execution": {"backend": "compile", "precision": "bfloat16"}}
RUNS: dict[str, dict[str, Any]] = {
    "cifar10": {**CIFAR10, "images": 1000, "n": 1000},
    "fashion-mnist": {"model": "fashion-mnist", "execution": {}, "images": 500, "n": 2000},
    "cifar10-10000": {**CIFAR10, "images": 250, "n": 10_000},
}
"""By name: the shipped model and the data set of its name, how networks vote, test images, estimation votes of every
model. The last one takes hours, and is made only if it is named; any other less than one, on two cores."""


def main() -> None:
    """Runs, prints the tables, and keeps the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="instead of those that the data set usually gets")
    parser.add_argument("names", nargs="*", default=list(RUNS)[:-1])
    options = parser.parse_args()

    import dualrs
    from dualrs.data import load
    from dualrs.evaluation import evaluate, render
    from dualrs.evaluation.config import evenly_spaced
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.progress import console

    for name in options.names:
        run = RUNS[name]
        dataset, work, kept = load(run["model"], "test"), WORK / f"curves-{name}", RESULTS / f"curves-{name}"
        found = evaluate(
            dualrs.load(run["model"], **run["execution"]),
            dataset,
            indices=evenly_spaced(options.images or run["images"], len(dataset)),
            n=run["n"],
            rules=["routed", "min"],
            folder=work,
            model_digest=bundle_digest(find_bundle(run["model"])),
        )
        console.print(render(found.summary))
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(work, kept, ignore=shutil.ignore_patterns(".*", "parts"))


if __name__ == "__main__":
    main()
