"""Certification on a Ray cluster: a second worker, the cost of scheduling, the driver's memory, a thousand devices.

The cluster is on this machine and ends with the measurement; the thousand devices are simulated, with task times that
were measured. Parts may be measured one at a time: the others of the record stay.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parent / "results" / "distributed.json"
TASKS, TASK_SECONDS = 10_000, 0.02
INPUTS = (100_000, 1_000_000)
DEVICES, SIMULATED = 1000, 1_000_000
HOURS_BETWEEN_FAILURES, SECONDS_TO_REPLACE = 24.0, 120.0
ROUND_TRIP = 0.002
TARGETS = {"speedup": 1.8, "overhead": 0.03, "memory": 1.5e9, "utilisation": 0.95}


def speedup(images: int = 48, n: int = 1000, repeats: int = 3) -> dict[str, Any]:
    """Seconds of certifying real images on one worker and on two, in turns, each worker on a processor of its own.

    A worker with one thread for its network draws noise in another, so one alone would take more than a processor.
    """
    import ray

    import dualrs
    from dualrs.data import open_dataset
    from dualrs.distributed import RayRunner
    from dualrs.evaluation import procedures
    from dualrs.evaluation.certifying import Certifying
    from dualrs.sampling import Item

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    model, data = dualrs.load("fashion-mnist"), open_dataset("fashion-mnist-sample", "test")
    work = Certifying(model, procedures(model, n=n), model.to_input(data.image(0)).shape, 0)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeats):
        for workers, taken in seconds.items():
            with tempfile.TemporaryDirectory() as claims, RayRunner(workers=workers).hire(on_one(work, claims)) as crew:
                items = [Item(i, model.to_input(data.image(i))) for i in range(images)]
                list(crew.run(items[:2]))  # which makes all of them ready, and their networks warm
                started = time.perf_counter()
                list(crew.run(items))
                taken.append(time.perf_counter() - started)
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    return {
        "settings": {"images": images, "n": n, "repeats": repeats},
        "seconds": {str(workers): taken for workers, taken in seconds.items()},
        "ratios": ratios,
        "median": statistics.median(ratios),
    }


def on_one(work: Any, claims: str) -> Any:
    """The same work, by workers that each keep to a processor, which they claim by making a folder."""
    from dualrs.sampling import Work

    @dataclass
    class OnOne(Work):
        work: Work
        claims: str

        @property
        def stats(self) -> Any:
            return self.work.stats

        def describe(self) -> Mapping[str, Any]:
            for number, processor in enumerate(sorted(os.sched_getaffinity(0))):
                with contextlib.suppress(FileExistsError):
                    Path(self.claims, str(number)).mkdir()
                    os.sched_setaffinity(0, {processor})  # also of all threads that are begun from now on
                    return self.work.describe()
            raise RuntimeError("there are more workers than processors")

        def run(self, items: Any) -> Iterator[Any]:
            return self.work.run(items)

    return OnOne(work, claims)


def overhead(tasks: int = TASKS, seconds: float = TASK_SECONDS, workers: int = 2) -> dict[str, Any]:
    """Which share of the workers' time is not spent in their tasks, which sleep."""
    import ray

    from dualrs.distributed import RayRunner

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with RayRunner(workers=workers).hire(sleeping(seconds)) as crew:
        list(crew.run(_points(4 * workers)))
        before, started, cpu = crew.stats["sleep"].seconds, time.perf_counter(), time.process_time()
        assert sum(1 for _ in crew.run(_points(tasks))) == tasks
        wall, driver = time.perf_counter() - started, time.process_time() - cpu
        busy = crew.stats["sleep"].seconds - before
    return {
        "settings": {"tasks": tasks, "seconds": seconds, "workers": workers},
        "wall_seconds": wall,
        "busy_seconds": busy,
        "driver_seconds": driver,
        "overhead": 1 - busy / (workers * wall),
    }


def sleeping(seconds: float) -> Any:
    """A work whose tasks take so many seconds, and no processor."""
    from dualrs.sampling import Done, Item, ModelStats, Work
    from dualrs.sampling.intake import Intake

    @dataclass
    class Sleeping(Work):
        seconds: float
        stats: dict[str, ModelStats] = field(default_factory=dict)

        def describe(self) -> Mapping[str, Any]:
            return {"sleep": {"device": "cpu"}}

        def run(self, items: Intake[Item]) -> Iterator[Done]:
            stats = self.stats.setdefault("sleep", ModelStats(device="cpu"))
            while (item := items.take(wait=True)) is not None:
                started = time.perf_counter()
                time.sleep(self.seconds)
                stats.seconds += time.perf_counter() - started
                stats.votes, stats.slots = stats.votes + 1, stats.slots + 1
                yield Done(item.key, None)

    return Sleeping(seconds)


def _points(count: int) -> Iterator[Any]:
    import torch

    from dualrs.sampling import Item

    x = torch.zeros(1)
    return (Item(key, x) for key in range(count))


def memory(inputs: Sequence[int] = INPUTS) -> dict[str, Any]:
    """Peak memory of the driver for two numbers of inputs; each in a process of its own."""
    found = {}
    for count in inputs:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--child", str(count), folder]
            found[str(count)] = json.loads(
                subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            )
    return {"runs": found, "peak": max(run["peak"] for run in found.values())}


def child(count: int, folder: str) -> dict[str, Any]:
    """Certifies so many synthetic inputs with a classifier that costs next to nothing."""
    import ray
    import torch

    from dualrs.distributed import RayRunner
    from dualrs.evaluation import evaluate
    from dualrs.smoothing import SmoothedClassifier

    class Synthetic:
        name, split, classes, digest = "synthetic", "test", ("a", "b"), "0" * 64

        def __len__(self) -> int:
            return count

        def image(self, i: int) -> torch.Tensor:
            return torch.tensor([[[i % 997 / 997.0, i / count]]])

        def label(self, i: int) -> int:
            return i % 2

    def classifier(batch: torch.Tensor) -> torch.Tensor:
        return batch.flatten(1)

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    model, started = SmoothedClassifier(classifier, 0.5, 2, batch_size=1024), time.perf_counter()
    options: dict[str, Any] = {"n0": 8, "n": 32, "alpha": 0.1, "rules": ["cohen"], "model_digest": "synthetic"}
    evaluation = evaluate(model, Synthetic(), folder=folder, runner=RayRunner(workers=2), **options)
    assert evaluation.complete
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"inputs": count, "peak": peak, "seconds": time.perf_counter() - started}


def simulation(
    devices: int = DEVICES, inputs: int = SIMULATED, *, driver_seconds: float, seed: int = 0
) -> dict[str, Any]:
    """A run on a thousand devices of unequal speed that fail now and then, by the dispatcher that runs have.

    Every device does one input after the other, asks for more when there is nothing ahead, and answers at most ten
    times a second. The driver serves one answer after the other, which takes ``driver_seconds`` for each.
    """
    from dualrs.distributed import Dispatcher

    chance = random.Random(seed)
    times = _task_seconds()
    dispatcher = Dispatcher(_points(inputs))
    pace = [chance.choice((0.5, 1.0, 1.0, 2.0)) for _ in range(devices)]  # three generations of devices
    cost = [chance.choice(times) for _ in range(10_007)]
    workers = [_Simulated() for _ in range(devices)]
    events = [(chance.random(), number, 0) for number in range(devices)]  # when a device asks, and in which life
    heapq.heapify(events)
    deaths = [chance.expovariate(1 / (3600 * HOURS_BETWEEN_FAILURES)) for _ in range(devices)]
    driver_free, finished_at, busy, lost, failures = 0.0, 0.0, 0.0, 0.0, 0
    while not dispatcher.finished:
        now, number, _ = heapq.heappop(events)
        worker = workers[number]
        if now >= deaths[number]:
            failures += 1
            lost += worker.unfinished(deaths[number])
            assert not dispatcher.lose(number, "failed")
            workers[number] = _Simulated()
            back = max(now, deaths[number] + SECONDS_TO_REPLACE)
            deaths[number] = back + chance.expovariate(1 / (3600 * HOURS_BETWEEN_FAILURES))
            heapq.heappush(events, (back, number, 0))
            continue
        served = max(now + ROUND_TRIP / 2, driver_free) + driver_seconds
        driver_free = served
        for key, seconds in worker.done(now):
            if dispatcher.done(number, key):
                finished_at = max(finished_at, now)
                busy += seconds
        wanted = max(0, max(1, 2 * worker.begun_lately(now)) - worker.waiting(now))
        for item in dispatcher.share(number, wanted):
            worker.give(item.key, pace[number] * cost[item.key % len(cost)], served + ROUND_TRIP / 2)
        heapq.heappush(events, (worker.asks_again(served + ROUND_TRIP / 2), number, 0))
    return {
        "settings": {
            "devices": devices,
            "inputs": inputs,
            "driver_seconds": driver_seconds,
            "round_trip": ROUND_TRIP,
            "hours_between_failures": HOURS_BETWEEN_FAILURES,
            "seconds_to_replace": SECONDS_TO_REPLACE,
            "task_seconds": {"mean": statistics.mean(times), "least": min(times), "most": max(times)},
        },
        "hours": finished_at / 3600,
        "failures": failures,
        "utilisation": busy / (devices * finished_at),
    }


@dataclass
class _Simulated:
    """A device: what it is to do, one after the other, as (key, from, to)."""

    plan: list[tuple[int, float, float]] = field(default_factory=list)
    last_answer: float = 0.0

    def give(self, key: int, seconds: float, now: float) -> None:
        begin = max(now, self.plan[-1][2] if self.plan else now)
        self.plan.append((key, begin, begin + seconds))

    def done(self, now: float) -> list[tuple[int, float]]:
        found = [(key, end - begin) for key, begin, end in self.plan if end <= now]
        self.plan = [each for each in self.plan if each[2] > now]
        return found

    def begun_lately(self, now: float) -> int:
        lately, self.last_answer = self.last_answer, now
        return sum(lately < begin <= now for _, begin, _ in self.plan)

    def waiting(self, now: float) -> int:
        return sum(begin > now for _, begin, _ in self.plan)

    def unfinished(self, now: float) -> float:
        return sum(max(0.0, now - begin) for _, begin, end in self.plan if end > now)

    def asks_again(self, now: float) -> float:
        """When the last of what was given begins or the first is done, within a second."""
        if not self.plan:
            return now + 1.0
        return min(max(now + 0.1, min(self.plan[-1][1], self.plan[0][2])), now + 1.0)


def _task_seconds() -> list[float]:
    """What images took in the committed run on CIFAR-10 with every method, in seconds."""
    import polars as pl

    from dualrs.evaluation import load_run

    table = load_run(RECORD.parent / "curves-cifar10")
    return table.group_by("idx").agg(pl.col("seconds").max())["seconds"].to_list()


def main() -> None:
    """Measures what is named, or everything, and keeps the rest of the record."""
    parts = {"speedup": speedup, "overhead": overhead, "memory": memory, "simulation": None}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all if none is named")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(int(options.child[0]), options.child[1])))
        return
    from record import machine, write

    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name in options.parts or parts:
        measure = parts[name]
        if measure is not None:
            found = measure()
        else:
            cost = record["overhead"]["driver_seconds"] / record["overhead"]["settings"]["tasks"]
            found = simulation(driver_seconds=cost)
        record[name] = {**found, "machine": machine()}
        print(name, json.dumps(found, indent=1))
        write(RECORD, {"targets": TARGETS, **record})


if __name__ == "__main__":
    main()
