"""Seconds and peak memory of analysing results tables, of ten thousand inputs and of a million rows.

The tables are made up: a dual method with its routes and two single σ, each row with the votes of its stages, as a run
writes them. Every size has a process of its own, whose peak includes all libraries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Nothing heavy is imported here: the peak of a process begins with what its parent held when it started it.
INPUTS = (10_000, 333_334)
METHODS, CLASSES, TRIALS, ALPHA = ("dual", "global-0.25", "global-0.5"), 10, 10_000, 0.001
TARGETS = {"seconds": (1.0, 20.0), "peak": 2 * 10**9}


def table(start: int, stop: int) -> Any:
    """The rows of some inputs; what they hold depends on their index alone."""
    import numpy as np
    import polars as pl

    from dualrs.evaluation import SCHEMA

    rows = []
    for idx in range(start, stop):
        rng = np.random.default_rng(idx)
        label, chosen = int(rng.integers(CLASSES)), int(rng.integers(2))
        shares = np.sort(rng.beta(4, 1, 2))[::-1]
        singles = [
            _row(idx, f"global-{sigma:g}", label, sigma=sigma, share=share, rng=rng)
            for sigma, share in zip((0.25, 0.5), shares, strict=True)
        ]
        dual = singles[chosen] | {"method": "dual", "rule": "routed", "estimator_radius": 0.7}
        stages = dual["stages"].replace('"name":"', '"name":"classifier/')
        estimator = _stage("estimator/estimation", "estimator", 1.0, [4000, 6000], ALPHA / 2)
        routes = [
            {"sigma": s, "exclusion_radius": 0.7 * i, "agreement_radius": 0.2, "expert": f"expert-{s:g}"}
            for i, s in enumerate((0.25, 0.5))
        ]
        dual |= {
            "classifier_radius": dual["radius"],
            "radius": min(dual["radius"], 0.7),
            "stages": f"{stages[:-1]},{json.dumps(estimator, separators=(',', ':'))}]",
            "routes": json.dumps(routes, separators=(",", ":")),
        }
        rows += [dual, *singles]
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(idx: int, method: str, label: int, *, sigma: float, share: float, rng: Any) -> dict[str, Any]:
    votes = int(rng.binomial(TRIALS, share))
    top = label if votes > TRIALS / 2 else (label + 1) % CLASSES
    abstained = abs(votes - TRIALS / 2) < 200
    expert = f"expert-{sigma:g}"
    counts = [(TRIALS - votes) // (CLASSES - 1)] * CLASSES
    counts[label] = votes
    stages = [
        _stage("selection", expert, sigma, [count // 100 for count in counts], None),
        _stage("estimation", expert, sigma, counts, ALPHA),
    ]
    return {
        "idx": idx,
        "method": method,
        "label": label,
        "predicted": None if abstained else top,
        "abstained": abstained,
        "correct": top == label and not abstained,
        "radius": 0.0 if abstained else sigma * 3 * abs(2 * votes / TRIALS - 1),
        "sigma": sigma,
        "expert": expert,
        "samples": TRIALS + 100,
        "seconds": float(rng.exponential()),
        "alpha": ALPHA,
        "rule": "cohen",
        "stages": json.dumps(stages, separators=(",", ":")),
    }


def _stage(name: str, model: str, sigma: float, counts: list[int], level: float | None) -> dict[str, Any]:
    trials = max(sum(counts), 1)
    return {"name": name, "model": model, "sigma": sigma, "counts": counts, "trials": trials, "level": level}


def child(path: Path) -> dict[str, Any]:
    """Analyses a table in this process; gives the seconds of each step, and the peak memory in bytes.

    Beside the time that passed it gives the processor's, of all threads together, which a busy machine does not change.
    """
    import polars as pl

    from dualrs.evaluation import compare, export_log, import_log, oracle_rows, read_parquet, summarize

    seconds: dict[str, dict[str, float]] = {"wall": {}, "processor": {}}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        seconds["wall"][step] = time.perf_counter() - wall
        seconds["processor"][step] = time.process_time() - processor
        return result

    log = path.with_suffix(".tsv")
    rows = timed("read", lambda: read_parquet(path))
    complete = timed("oracle", lambda: pl.concat([rows, oracle_rows(rows)]).sort("idx", maintain_order=True))
    timed("summarize", lambda: summarize(complete))
    timed("compare", lambda: compare(complete, complete, methods=METHODS[:2]))
    timed("export", lambda: export_log(complete, log))
    timed("import", lambda: import_log(log))
    return {"rows": len(rows), "seconds": seconds, "peak": _peak()}


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write_table(inputs: int, path: Path, pieces: int = 20_000) -> None:
    """Writes a made-up results table piece by piece."""
    import pyarrow.parquet as pq

    from dualrs.evaluation import SCHEMA

    arrow = SCHEMA.to_frame().to_arrow().schema
    with pq.ParquetWriter(path, arrow) as writer:
        for start in range(0, inputs, pieces):
            writer.write_table(table(start, min(start + pieces, inputs)).to_arrow())


def measure(inputs: int) -> dict[str, Any]:
    """Makes a table, and runs `child` on it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "certificates.parquet"
        subprocess.run([sys.executable, __file__, "--write", str(inputs), str(path)], check=True)
        command = [sys.executable, __file__, "--child", str(path)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Measures, prints the figures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results" / "analysis.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, metavar=("INPUTS", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child)))
        return
    if options.write:
        write_table(int(options.write[0]), Path(options.write[1]))
        return
    runs = {str(inputs): measure(inputs) for inputs in INPUTS}

    from record import write

    for run in runs.values():
        print(f"{run['rows']:,} rows, peak {run['peak'] / 2**20:,.0f} MiB")
        for clock, steps in run["seconds"].items():
            print(f"  {clock}: {', '.join(f'{step} {seconds:.2f} s' for step, seconds in steps.items())}")
    write(options.output, {"settings": {"methods": METHODS, "targets": TARGETS}, "runs": runs})


if __name__ == "__main__":
    main()
