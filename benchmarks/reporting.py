"""How long `dualrs report` takes and how much memory: 10,000 inputs × 3 methods, and a million rows.

The runs are made up: votes are drawn from binomials, and their records have the size of real ones. Every measurement
has a process of its own. Seconds are of the processor too, since those of the clock say little on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory import peak

# Nothing heavy is imported here: the peak of a process begins with what its parent held when it started it.
if TYPE_CHECKING:
    import numpy as np
    import polars as pl

CASES = {"10,000 inputs, 3 methods": (10_000, 5.0, None), "1,000,000 rows": (333_334, 20.0, 2 * 10**9)}
"""By name: how many inputs, the seconds aimed at, and the bytes."""
LOW, HIGH = 0.25, 0.5
CLASSES, N0, N, ALPHA = 10, 100, 10_000, 0.001


def make(inputs: int, folder: Path) -> None:
    """Writes a run: a dual method with the routed rule, and its two experts."""
    import numpy as np
    import polars as pl

    from dualrs.evaluation.manifest import Manifest
    from dualrs.evaluation.runs import evaluation_of, write_run

    rng = np.random.default_rng(0)
    label = rng.integers(0, CLASSES, inputs)
    margin = rng.normal(0.6, 0.7, inputs)  # the true radius, below 0 where the answer is wrong
    winner = np.where(margin > 0, label, (label + 3) % CLASSES)
    common = {"idx": np.arange(inputs), "label": label, "winner": winner}
    singles = {sigma: single(rng, np.abs(margin), winner, sigma) for sigma in (LOW, HIGH)}
    experts = [_rows(f"global-{sigma}", {**common, **columns}) for sigma, columns in singles.items()]
    choice = margin.clip(0) * rng.uniform(0.7, 1.6, inputs)  # the radius of the choice
    dual = _rows("dual", {**common, **chosen(singles, margin < 0.4, choice)})
    dual = dual.with_columns(rule=pl.lit("routed"), samples=pl.Series(rng.integers(N0 + N, 2 * N, inputs)))
    rows = pl.concat([dual, *experts])
    methods = rows["method"].unique(maintain_order=True).to_list()
    made_with = {
        "certification": {"n0": N0, "n": N, "alpha": ALPHA, "seed": 0, "methods": methods},
        "model": {"digest": None, "sigmas": [LOW, HIGH], "sigma_e": 1.0, "num_classes": CLASSES},
        "data": {"name": "made up", "split": "test", "digest": None},
    }
    session = {"started": "2026-01-01T00:00:00+00:00", "wall_seconds": 1.0, "engine": {}}
    session |= {"software": {}, "machine": {}, "info": {}}
    every = frozenset(range(inputs))
    manifest = Manifest(made_with, requested=every, whole=every, sessions=(session,))
    write_run(evaluation_of(manifest, rows, folder), manifest, folder)


def single(rng: np.random.Generator, margin: np.ndarray, winner: np.ndarray, sigma: float) -> dict[str, Any]:
    """The radii and votes of one expert."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    from dualrs.certificates import clopper_pearson_lower

    bounds = clopper_pearson_lower(np.arange(N + 1), N, ALPHA)
    votes = rng.binomial(N, ndtr(margin / sigma))
    stages = [
        f"[{_stage('selection', sigma, w, N0, N0)},{_stage('estimation', sigma, w, v, N)}]"
        for w, v in zip(winner.tolist(), votes.tolist(), strict=True)
    ]
    radius = sigma * np.where(bounds > 0.5, ndtri(bounds.clip(0.5)), 0.0)
    return {"radius": radius[votes], "sigma": np.full(len(votes), sigma), "stages": stages}


def chosen(singles: dict[float, dict[str, Any]], low: np.ndarray, choice: np.ndarray) -> dict[str, Any]:
    """The radii and votes of the dual method, which takes one expert or the other."""
    import numpy as np

    sigma = np.where(low, LOW, HIGH)
    classifier = np.where(low, singles[LOW]["radius"], singles[HIGH]["radius"])
    pairs = zip(singles[LOW]["stages"], singles[HIGH]["stages"], low.tolist(), strict=True)
    votes = [(a if first else b).replace('"estimation', '"classifier/estimation') for a, b, first in pairs]
    asked = _stage("estimator/estimation", 1.0, 0, 900, 1000)
    routes = [
        f"[{_route(s, 0.0, str(c))},{_route(LOW + HIGH - s, x, 'null')}]"
        for s, c, x in zip(sigma.tolist(), classifier.tolist(), choice.tolist(), strict=True)
    ]
    return {
        "radius": np.minimum(classifier, choice),
        "sigma": sigma,
        "stages": [f"[{asked},{stages[1:]}" for stages in votes],
        "estimator_radius": choice,
        "classifier_radius": classifier,
        "routes": routes,
    }


def _stage(name: str, sigma: float, winner: int, votes: int, trials: int) -> str:
    counts = ["0"] * CLASSES
    counts[winner], counts[(winner + 1) % CLASSES] = str(votes), str(trials - votes)
    level = "null" if name == "selection" else ALPHA
    return (
        f'{{"name":"{name}","model":"expert-{sigma}","sigma":{sigma},"counts":[{",".join(counts)}],'
        f'"trials":{trials},"level":{level}}}'
    )


def _route(sigma: float, exclusion: float, agreement: str) -> str:
    return (
        f'{{"sigma":{sigma},"exclusion_radius":{exclusion},"agreement_radius":{agreement},"expert":"expert-{sigma}"}}'
    )


def _rows(method: str, columns: dict[str, Any]) -> pl.DataFrame:
    import polars as pl

    from dualrs.evaluation import SCHEMA

    abstained = pl.col("radius") <= 0
    table = pl.DataFrame(columns).with_columns(
        method=pl.lit(method),
        predicted=pl.when(~abstained).then("winner"),
        abstained=abstained,
        correct=(pl.col("winner") == pl.col("label")) & ~abstained,
        samples=pl.lit(N0 + N),
        seconds=pl.lit(0.25),
        alpha=pl.lit(ALPHA),
        rule=pl.lit("cohen"),
        expert=pl.format("expert-{}", "sigma"),
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in table.columns]
    return table.with_columns(missing).select(SCHEMA.names()).cast(SCHEMA)


def child(folder: Path) -> dict[str, Any]:
    """Writes the report of a run in this process, and gives what that took."""
    from dualrs.evaluation import write_report

    clock, processor, before = time.perf_counter(), time.process_time(), peak()
    page = write_report([folder], folder / "report")
    return {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": time.process_time() - processor,
        "before": before,
        "peak": peak(),
        "page": page.stat().st_size,
    }


def measure(inputs: int) -> dict[str, Any]:
    """Runs `make` and `child`, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--make", folder, str(inputs)], check=True)
        command = [sys.executable, __file__, "--child", folder]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"inputs": inputs, **json.loads(printed)}


def main() -> None:
    """Measures, prints, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results" / "reporting.json")
    parser.add_argument("--make", nargs=2, metavar=("FOLDER", "INPUTS"), help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(int(options.make[1]), Path(options.make[0]))
        return
    if options.child:
        print(json.dumps(child(options.child)))
        return
    found = {}
    for name, (inputs, seconds, most) in CASES.items():
        found[name] = {**measure(inputs), "targets": {"seconds": seconds, "peak": most}}
        print(name, json.dumps(found[name]))

    from record import write

    write(options.output, {"settings": {"n0": N0, "n": N, "alpha": ALPHA, "sigmas": [LOW, HIGH]}, "cases": found})


if __name__ == "__main__":
    main()
