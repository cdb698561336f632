"""Votes and seconds for an input at n = 10 000: the dual model against plain smoothing, with the shipped models.

Every method runs by itself, sharing no votes with another, on the same groups of inputs in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dualrs.certificates import Procedure, certify, expert_name

RESULTS = Path(__file__).resolve().parent / "results"
N, ALPHA, SIGMA = 10_000, 0.001, 0.5
IMAGES = {"cifar10": 30, "fashion-mnist": 60}
GROUP = 10


def methods(model: Any) -> dict[str, Callable[[], Procedure]]:
    """By name; plain smoothing is CERTIFY of Cohen et al. 2019 with one expert."""
    made = {"plain": partial(certify, SIGMA, n=N, alpha=ALPHA, model=expert_name(SIGMA))}
    ways: dict[str, dict[str, Any]] = {
        "min rule": {"rule": "min"},
        "routed, full": {},
        "routed, tolerance 0.05": {"tolerance": 0.05},
        "routed, target 0.5": {"target": 0.5},
    }
    return made | {name: partial(model.procedure, n=N, alpha=ALPHA, **way) for name, way in ways.items()}


def measure(name: str, images: int) -> dict[str, Any]:
    """Votes, seconds and fill rates of every method."""
    import dualrs
    from dualrs.data import load
    from dualrs.evaluation.config import evenly_spaced
    from dualrs.progress import Progress
    from dualrs.sampling import Job

    model = dualrs.load(name)
    dataset = load(name, "test")
    positions = evenly_spaced(images, len(dataset))
    made = methods(model)
    engines = {method: model.engine() for method in made}
    found = {method: {"seconds": 0.0, "votes": 0, "slots": 0, "by_model": {}} for method in made}
    # What is made once, such as exported networks, is not the price of an input.
    warm = {"a": model.procedure(n=300), "b": certify(SIGMA, n=300, model=expert_name(SIGMA))}
    list(model.engine().run([Job(0, dataset.image(positions[0]), warm)]))
    with Progress(f"measuring {name}", total=len(positions) * len(made), unit="images") as progress:
        for start in range(0, len(positions), GROUP):
            group = [dataset.image(position) for position in positions[start : start + GROUP]]
            for method, make in made.items():
                started = time.perf_counter()
                list(engines[method].run([Job(i, x, {"a": make()}) for i, x in enumerate(group)]))
                found[method]["seconds"] += time.perf_counter() - started
                progress.advance(len(group), note=method)
    for method, engine in engines.items():
        found[method] |= {
            "votes": sum(stats.votes for stats in engine.stats.values()) / len(positions),
            "seconds": found[method]["seconds"] / len(positions),
            "fill_rate": sum(s.votes for s in engine.stats.values()) / sum(s.slots for s in engine.stats.values()),
            "by_model": {model: stats.votes / len(positions) for model, stats in sorted(engine.stats.items())},
        }
        del found[method]["slots"]
    plain = found["plain"]
    for one in found.values():
        one |= {"votes_ratio": one["votes"] / plain["votes"], "seconds_ratio": one["seconds"] / plain["seconds"]}
    return {"images": len(positions), "methods": found}


def main() -> None:
    """Measures, prints the section, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "cost.json")
    options = parser.parse_args()
    data = {name: measure(name, images) for name, images in IMAGES.items()}
    record = {"settings": {"n": N, "alpha": ALPHA, "sigma": SIGMA, "group": GROUP}, "data": data}

    from record import write
    from report import cost

    print(cost(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
