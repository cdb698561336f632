"""Votes per second: dualrs, the bare network, the Adversarial Robustness Toolbox, and the plain loop of the field.

All run on the same network and the same images, in turn: A B C A B C …. A ratio is the median of the ratios within
each turn, so that a machine that is slower for a minute is slower for both sides.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from record import RESULTS, write
from report import throughput
from torch import Tensor, nn

import dualrs
from dualrs.certificates import certify, expert_name
from dualrs.data import DataUnavailableError, open_dataset
from dualrs.sampling import Backend, Engine, Job, TorchBackend, make_backend
from dualrs.sampling.folding import fold_batch_norms
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.sources import FloatNoise, NoiseSource
from dualrs.sampling.torch_backend import to_channels_last

SIGMA, SELECTION, ALPHA = 0.5, 100, 0.001
BATCH = 256
PLAIN_BATCH = 1000
ART_BATCHES = (32, 256)  # its own default, and that of dualrs
DATA = {"cifar10": "cifar10", "fashion-mnist": "fashion-mnist-sample"}
TARGETS = {"engine / bare": 0.95, "engine / ART": 2.5, "engine / plain loop": 3.0}

Run = Callable[[], int]
"""Does its work and returns how many votes it cast."""


class Subject(NamedTuple):
    """A network and the images that it votes on; ``data`` says where these come from."""

    network: nn.Module
    images: Tensor
    data: str

    @property
    def shape(self) -> torch.Size:
        """Of one image."""
        return self.images[0].shape


def subject(name: str, images: int) -> Subject:
    """The shipped expert for σ = 0.5 and the first test images, or random ones where the data set is not at hand."""
    model = dualrs.load(name)
    network = model.bases[expert_name(SIGMA)]
    try:
        dataset = open_dataset(DATA[name], "test")
    except DataUnavailableError:
        levels = torch.randint(256, (images, *model.input.shape), generator=torch.Generator().manual_seed(0))
        return Subject(network, levels / 255, "random in [0, 1]")  # on the lattice of 8-bit images, as exact noise asks
    return Subject(network, torch.stack([dataset.image(i) for i in range(images)]), dataset.name)


def backends(given: Subject) -> dict[str, Backend]:
    """Every way of dualrs to run the network on the CPU; those that this machine cannot are left out."""
    arguments = {"input_shape": given.shape, "batch_size": BATCH}
    ways: dict[str, Callable[[], Backend]] = {
        "onnxruntime": lambda: make_backend(given.network, **arguments, backend="onnx"),
        "torch": lambda: make_backend(given.network, **arguments, backend="torch"),
        "torch folded": lambda: _folded(given),
        "torch compiled": lambda: make_backend(given.network, **arguments, backend="compile"),
        "torch compiled, bfloat16": lambda: make_backend(
            given.network, **arguments, backend="compile", precision="bfloat16"
        ),
    }
    made = {}
    for name, way in ways.items():
        try:
            made[name] = way()
        except ValueError as error:
            print(f"no {name}: {error}")
    return made


def _folded(given: Subject) -> Backend:
    folded = fold_batch_norms(given.network, given.images[:1].expand(BATCH, *given.shape).clone())
    to_channels_last(folded)
    return TorchBackend(folded, name="torch folded")


def bare(backend: Backend, given: Subject, votes: int) -> Run:
    """The network alone, on one batch again and again: no noise, no counting. Nothing can be faster."""
    batch = given.images[:1] + SIGMA * torch.randn((BATCH, *given.shape), generator=torch.Generator().manual_seed(0))

    def run() -> int:
        rounds = math.ceil(len(given.images) * (votes + SELECTION) / BATCH)
        for _ in range(rounds):
            backend.logits(batch)
        return rounds * BATCH

    return run


def engine(backend: Backend, given: Subject, votes: int, noise: NoiseSource) -> Run:
    """CERTIFY on all images, as `certify_batch` runs it."""

    def run() -> int:
        fresh = Engine(lambda name, shape: backend, batch_size=BATCH, noise=noise)
        jobs = (
            Job(i, x, {"answer": certify(SIGMA, n0=SELECTION, n=votes, alpha=ALPHA)})
            for i, x in enumerate(given.images)
        )
        return sum(result.outcomes["answer"].certificate.samples for result in fresh.run(jobs))

    return run


def art(given: Subject, votes: int, batch_size: int) -> Run:
    """CERTIFY of the Adversarial Robustness Toolbox on one image: it draws the noise of all votes at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        classifier = PyTorchRandomizedSmoothing(
            model=copy.deepcopy(given.network),
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(given.shape),
            nb_classes=10,
            device_type="cpu",
            sample_size=SELECTION,
            scale=SIGMA,
            alpha=ALPHA,
        )
    image = given.images[:1].numpy()

    def run() -> int:
        classifier.certify(image, n=votes, batch_size=batch_size)
        return SELECTION + votes

    return run


def plain_loop(given: Subject, votes: int) -> Run:
    """The loop that papers publish: repeat the image, add noise, ask the module, count; here on one image."""
    x = given.images[0]

    def sample(count: int) -> np.ndarray:
        counts = np.zeros(10, dtype=np.int64)
        while count > 0:
            rows = min(PLAIN_BATCH, count)
            count -= rows
            batch = x.repeat((rows, 1, 1, 1))
            noise = torch.randn_like(batch) * SIGMA
            counts += np.bincount(given.network(batch + noise).argmax(1).numpy(), minlength=10)
        return counts

    def run() -> int:
        with torch.no_grad():
            return int(sample(SELECTION).sum() + sample(votes).sum())

    return run


def measure(runs: Mapping[str, Run], repeats: int) -> dict[str, list[float]]:
    """Votes per second of every run, in every turn; a turn before them, of all, is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            votes = run()
            if turn:
                rates[name].append(votes / (time.perf_counter() - started))
    return rates


def ratios(rates: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """What the targets are about, and what exact noise costs."""
    float_noise, exact_noise = "dualrs, float noise", "dualrs, exact noise"
    # The better of its two runs, so that nobody has to believe in a choice of batch size.
    rival = max((f"ART, batch {size}" for size in ART_BATCHES), key=lambda name: statistics.median(rates[name]))
    pairs = {
        "engine / bare": (float_noise, "bare onnxruntime"),
        "engine / ART": (float_noise, rival),
        "engine / plain loop": (float_noise, f"plain loop, batch {PLAIN_BATCH}"),
        "exact / float noise": (exact_noise, float_noise),
    }
    found = {}
    for name, (above, below) in pairs.items():
        values = [a / b for a, b in zip(rates[above], rates[below], strict=True)]
        found[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
        if name in TARGETS:
            found[name]["target"] = TARGETS[name]
    return found


def benchmark(name: str, *, images: int, votes: int, repeats: int) -> dict[str, Any]:
    """All ways, on one network."""
    given = subject(name, images)
    made = backends(given)
    fastest = made["onnxruntime"]
    runs = {
        # Side by side what is compared with each other.
        "bare onnxruntime": bare(fastest, given, votes),
        "dualrs, float noise": engine(fastest, given, votes, FloatNoise()),
        "dualrs, exact noise": engine(fastest, given, votes, LatticeNoise()),
        f"plain loop, batch {PLAIN_BATCH}": plain_loop(given, votes),
        **{f"ART, batch {size}": art(given, votes, size) for size in ART_BATCHES},
        **{f"bare {name}": bare(backend, given, votes) for name, backend in made.items() if backend is not fastest},
    }
    rates = measure(runs, repeats)
    return {
        "data": given.data,
        "votes_per_second": {way: {"median": statistics.median(r), "runs": r} for way, r in rates.items()},
        "ratios": ratios(rates),
    }


def main() -> None:
    """Measures, prints a table, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--images", type=int, default=4, help="that dualrs certifies in one run")
    parser.add_argument("--votes", type=int, default=2000, help="per image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RESULTS / "throughput.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {
        "sigma": SIGMA,
        "batch_size": BATCH,
        **{name: getattr(options, name) for name in ("images", "votes", "repeats", "threads")},
    }
    models = {
        name: benchmark(name, images=options.images, votes=options.votes, repeats=options.repeats)
        for name in options.models
    }
    record = {"settings": settings, "models": models}
    print(throughput(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
