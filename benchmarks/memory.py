"""Peak resident memory of certifying one image, for few votes and for a hundred times as many.

Every measurement has a process of its own. The classifier costs next to nothing, so that the engine is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Nothing heavy is imported here: the peak of a process begins with what its parent held when it started it.
SHAPE, CLASSES = (3, 32, 32), 10
SIGMA, SIGMAS, SIGMA_E = 0.5, (0.25, 0.5, 1.0), 1.0
COUNTS = (10_000, 1_000_000)
RULES = ("certify", "routed_certify")
TARGET = 1.05


def child(rule: str, n: int) -> dict[str, Any]:
    """Certifies one image in this process, and gives its peak memory in bytes before and after."""
    import torch

    from dualrs.certificates import certify, routed_certify
    from dualrs.sampling import CallableBackend, Engine, Job

    bases = {"estimator": CallableBackend(lambda batch: batch[:, 0, 0, : len(SIGMAS)])}
    other = CallableBackend(lambda batch: batch[:, 0, 0, :CLASSES])
    engine = Engine(lambda name, shape: bases.get(name, other))
    x = torch.zeros(SHAPE)
    x[0, 0, 1] = 1.0  # a label that gets most votes, and not all

    def run(votes: int) -> int:
        procedure = certify(SIGMA, n=votes) if rule == "certify" else routed_certify(SIGMA_E, SIGMAS, n=votes)
        (result,) = engine.run([Job(0, x, {"answer": procedure})])
        return result.outcomes["answer"].certificate.samples

    run(1000)  # what is made once
    before = peak()
    return {"votes": run(n), "before": before, "peak": peak()}


def peak() -> int:
    """The most memory that this process ever had resident, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(rule: str, n: int) -> dict[str, Any]:
    """Runs `child` in a process of its own."""
    command = [sys.executable, __file__, "--child", rule, str(n)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(rules: Iterable[str]) -> dict[str, Any]:
    """The peaks of each rule, and the ratio of the last to the first."""
    found = {}
    for rule in rules:
        runs = {str(n): measure(rule, n) for n in COUNTS}
        first, *_, last = (run["peak"] for run in runs.values())
        found[rule] = {"runs": runs, "ratio": last / first, "target": TARGET}
    return found


def main() -> None:
    """Measures, prints a table, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "results" / "memory.json")
    parser.add_argument("--child", nargs=2, metavar=("RULE", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        rule, n = options.child
        print(json.dumps(child(rule, int(n))))
        return
    record = {"settings": {"shape": SHAPE, "counts": COUNTS}, "rules": compare(RULES)}

    from record import write
    from report import memory

    print(memory(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
