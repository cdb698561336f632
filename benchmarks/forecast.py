"""What `dualrs plan` forecasts against what the run then takes, with the shipped models: votes, seconds, radii, memory.

Every way to run is forecast and run in turns, on other images each time: what else a machine does changes within
minutes, and no forecast knows it. Memory is that of the two commands, each a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Nothing heavy is imported here: the peak of a process begins with what its parent held when it started it.
RESULTS = Path(__file__).resolve().parent / "results"
ALONE = {"global_sigmas": False, "n": 10_000}
WAYS: dict[str, dict[str, Any]] = {
    "routed and every σ, n = 1,000": {"n": 1000},
    "routed, n = 10,000": ALONE,
    "tolerance 0.05, n = 10,000": {**ALONE, "tolerance": 0.05},
    "target 0.5, n = 10,000": {**ALONE, "target": 0.5},
}
IMAGES = {"fashion-mnist": (20, 8, 12, 128), "cifar10": (4, 2, 3, 64)}  # of each way, in each turn
DATA = {"fashion-mnist": "fashion-mnist-sample"}
TURNS, SAMPLE = 5, 64


def measure(model: str) -> dict[str, list[dict[str, Any]]]:
    """All ways of a model, in this process: for each its turns."""
    from dualrs.data import open_dataset
    from dualrs.evaluation import evaluate, forecast
    from dualrs.evaluation.selection import evenly_spaced
    from dualrs.smoothing import load

    smoothed, dataset = load(model), open_dataset(DATA.get(model, model), "test")
    forecast(smoothed, dataset, indices=range(2), n=100, alternatives=False)  # what is made once
    ways: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for turn in range(TURNS):
        for (name, way), images in zip(WAYS.items(), IMAGES[model], strict=True):
            indices = evenly_spaced(TURNS * images, len(dataset))[turn::TURNS]
            plan = forecast(smoothed, dataset, indices=indices, sample=SAMPLE, alternatives=False, **way)
            started = time.perf_counter()
            run = evaluate(smoothed, dataset, indices=indices, **way).summary
            seconds = time.perf_counter() - started
            ways[name].append(
                {
                    "images": images,
                    "sample": plan.sample,
                    "votes": plan.votes.expected,
                    "votes_ends": [plan.votes.low, plan.votes.high],
                    "votes_found": sum(engine["votes"] for engine in run["metadata"]["engine"].values()),
                    "seconds": plan.seconds.expected - plan.startup_seconds,
                    "seconds_found": seconds,
                    "average_radius": plan.planned.average_radius,
                    "average_radius_found": run["average_certified_radius"][plan.method],
                }
            )
            print(model, name, ways[name][-1], file=sys.stderr, flush=True)
    return ways


def measure_memory(model: str) -> dict[str, int]:
    """The peak that a forecast says a run will have, and the run's, in bytes."""
    way, images = next(iter(WAYS.values())), IMAGES[model][0]
    with tempfile.TemporaryDirectory() as folder:
        config, data = Path(folder) / "run.yaml", DATA.get(model, model)
        settings = {"model": model, "data": data, "images": images, "output": f"{folder}/run", **way}
        config.write_text(json.dumps(settings), encoding="utf-8")  # which is YAML too
        plan, _ = call(sys.executable, "-m", "dualrs.cli", "plan", str(config), "--json")
        _, peak = call(sys.executable, "-m", "dualrs.cli", "certify", str(config), "--json")
    return {"forecast": plan["memory"]["peak"], "found": peak}


def call(*command: str) -> tuple[Mapping[str, Any], int]:
    """Runs a program; gives what it prints as JSON, and its peak memory in bytes."""
    with tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(command, stdout=printed)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
        printed.seek(0)
        return json.loads(printed.read()), used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "forecast.json")
    parser.add_argument("--child", metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child)))
        return
    memory = {model: measure_memory(model) for model in IMAGES}
    ways = {model: call(sys.executable, __file__, "--child", model)[0] for model in IMAGES}
    record = {"settings": {"alpha": 0.001, "turns": TURNS, "sample": SAMPLE}, "ways": ways, "memory": memory}

    from record import write

    write(options.output, record)


if __name__ == "__main__":
    main()
