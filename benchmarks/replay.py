"""What goals save and lose at n = 10 000, and how little hangs on the division of α, on the inputs of `curves.py`.

A simulation: the class shares that were recorded for every input are taken for its probabilities.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from dualrs.certificates import Goal, certify, dual_certify, routed, routed_certify

RESULTS = Path(__file__).resolve().parent / "results"
SIGMAS, SIGMA_E, N, ALPHA = (0.25, 0.5, 1.0), 1.0, 10_000, 0.001
TARGET = 0.5
GOALS = {
    "full": Goal(),
    "tolerance 0.05": Goal(tolerance=0.05),
    "target 0.5": Goal(target=TARGET),
    "prediction": Goal(target=0.0),
}
SHARES: dict[str, dict[str, float]] = {
    "as shipped": {},
    **{f"winner {share:g}": {"_WINNER": share} for share in (0.5, 0.65, 0.9)},
    **{f"exclusion {share:g}": {"_EXCLUSION": share} for share in (0.25, 0.5, 0.9)},
    **{f"top {share:g}": {"_TOP": share} for share in (0.3, 0.6)},
    **{f"last look {share:g}": {"_FINAL_IN_FULL": share} for share in (0.5, 0.9)},
}


def replay(name: str) -> dict[str, Any]:
    """All figures for one data set."""
    from worlds import RADII, run, worlds

    inputs = worlds(RESULTS / f"curves-{name}", N + 100)
    arguments = {"n": N, "alpha": ALPHA}
    make = partial(routed_certify, SIGMA_E, SIGMAS, **arguments)
    found = {goal: run(inputs, partial(make, goal=GOALS[goal])) for goal in GOALS}
    full = found["full"]
    least = run(inputs, partial(dual_certify, SIGMA_E, SIGMAS, **arguments))
    singles = {sigma: run(inputs, partial(certify, sigma, **arguments, model=f"expert-{sigma:g}")) for sigma in SIGMAS}
    best = np.max([one.radii * one.correct for one in singles.values()], axis=0)
    plain = singles[0.5].samples
    same = (found["target 0.5"].radii > TARGET) == (full.radii > TARGET)
    below = (least.radii > 0) & (least.radii < 2.5 * SIGMA_E)
    rows = {"min rule": least, **found, "mixture, full": run(inputs, partial(make, sequence="mixture"))}
    shares = {}
    for division, changes in SHARES.items():
        with mock.patch.multiple(routed, **changes) if changes else nullcontext():
            changed = run(inputs, make)
        shares[division] = {
            "average_radius": changed.average_radius,
            "accuracy": float(changed.accuracy.mean()),
            "samples": changed.samples,
        }
    return {
        "inputs": len(inputs),
        "plain_samples": plain,
        "methods": {
            method: {
                "samples": one.samples,
                "ratio": one.samples / plain,
                "average_radius": one.average_radius,
                "accuracy": one.accuracy.tolist(),
                "abstained": float(np.mean([c.abstained for c in one.certificates])),
            }
            for method, one in rows.items()
        },
        "global": {f"{sigma:g}": one.accuracy.tolist() for sigma, one in singles.items()},
        "oracle": (100 * (best > RADII[:, None]).mean(axis=1)).tolist(),
        "same_decision": float(same.mean()),
        "tolerance_loss": float((full.accuracy - found["tolerance 0.05"].accuracy).mean()),
        "largest_loss_to_min": float(np.max((least.radii - full.radii)[below], initial=0.0)),
        "shares": shares,
    }


def _votes(folder: Path) -> int:
    """How many each model of a run gave at most."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return int(summary["metadata"]["certification"]["n"])


def main() -> None:
    """Replays, prints the section, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "replay.json")
    options = parser.parse_args()
    names = [path.name.removeprefix("curves-") for path in sorted(RESULTS.glob("curves-*")) if _votes(path) < N]
    record = {"settings": {"n": N, "alpha": ALPHA, "target": TARGET}, "data": {name: replay(name) for name in names}}

    from record import write
    from report import replay as section

    print(section(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
