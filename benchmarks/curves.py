"""Certified accuracy of the routed and the min rule, of every single σ and of the oracle, on shipped models.

All methods see the same votes. The runs go to benchmarks/results/curves-NAME, as `dualrs certify` writes them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
VOTES = {"cifar10": 1000, "fashion-mnist": 2000}
"""Estimation votes of every model, by data set: what 500 images take in less than an hour on two cores."""


def main() -> None:
    """Runs, prints the tables, and keeps the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("names", nargs="*", default=list(VOTES))
    options = parser.parse_args()

    import dualrs
    from dualrs.data import load
    from dualrs.evaluation import evaluate, render
    from dualrs.evaluation.config import evenly_spaced
    from dualrs.models import bundle_digest, find_bundle
    from dualrs.progress import console

    for name in options.names:
        dataset = load(name, "test")
        folder = RESULTS / f"curves-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        found = evaluate(
            dualrs.load(name),
            dataset,
            indices=evenly_spaced(options.images, len(dataset)),
            n=VOTES[name],
            rules=["routed", "min"],
            folder=folder,
            model_digest=bundle_digest(find_bundle(name)),
        )
        console.print(render(found.summary))


if __name__ == "__main__":
    main()
