"""Recorded runs as worlds: every input with the class shares that the models were seen to vote with.

Replaying procedures against them costs no network, so that many variants can be compared on the same votes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dualrs.certificates import Certificate, Procedure, VoteRequest, run_procedure

RADII = np.arange(0, 2.75, 0.25)


@dataclass(frozen=True)
class World:
    """One input: its label, and the votes of every model in one fixed order."""

    label: int
    votes: dict[str, tuple[int, NDArray[np.int8]]]

    def run(self, procedure: Procedure) -> Certificate:
        """Answers every request with the votes that follow those it got."""
        read: dict[str, int] = {}

        def answer(request: VoteRequest) -> NDArray[np.int64]:
            classes, votes = self.votes[request.model]
            start = read.get(request.model, 0)
            read[request.model] = start + request.count
            return np.bincount(votes[start : start + request.count], minlength=classes)

        return run_procedure(procedure, answer)


@dataclass(frozen=True)
class Found:
    """What a procedure answered in all worlds."""

    certificates: list[Certificate]
    labels: list[int]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which labels are right."""
        return np.array([c.label == label for c, label in zip(self.certificates, self.labels, strict=True)])

    @property
    def radii(self) -> NDArray[np.float64]:
        """The certified radii."""
        return np.array([c.radius for c in self.certificates])

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Certified accuracy at `RADII`, in percent."""
        return 100 * ((self.radii > RADII[:, None]) & self.correct).mean(axis=1)

    @property
    def average_radius(self) -> float:
        """The mean radius, wrong labels and abstentions as 0."""
        return float((self.radii * self.correct).mean())

    @property
    def samples(self) -> float:
        """The mean number of votes."""
        return float(np.mean([c.samples for c in self.certificates]))


def worlds(folder: Path, votes: int, seed: int = 0) -> list[World]:
    """The inputs of a run over a data set, with so many votes of every model drawn from the recorded shares."""
    counts: dict[int, dict[str, Any]] = {}
    labels: dict[int, int] = {}
    for row in pl.read_parquet(folder / "certificates.parquet").iter_rows(named=True):
        labels[row["idx"]] = row["label"]
        if row["method"].startswith("global") or row["rule"] == "min":
            for stage in json.loads(row["stages"]):
                if stage["model"] == "estimator" or row["method"].startswith("global"):
                    seen = counts.setdefault(row["idx"], {})
                    seen[stage["model"]] = seen.get(stage["model"], 0) + np.array(stage["counts"])
    made = []
    for idx, models in counts.items():
        drawn = {}
        for i, (name, seen) in enumerate(sorted(models.items())):
            generator = np.random.default_rng([seed, idx, i])
            drawn[name] = len(seen), generator.choice(len(seen), votes, p=seen / seen.sum()).astype(np.int8)
        made.append(World(labels[idx], drawn))
    return made


def run(inputs: Sequence[World], make: Callable[[], Procedure]) -> Found:
    """Runs a fresh procedure in every world."""
    return Found([world.run(make()) for world in inputs], [world.label for world in inputs])
