"""How many votes a decision takes, computed exactly: the confidence sequences against the bound of fixed length.

The question is whether a success probability exceeds p0 = Φ(1), that is whether a radius of σ is certified. One
stops where the lower bound exceeds p0 (yes), where the upper bound falls below it (no), and at the cap. The
distribution of the successes among the paths that go on is computed from look to look, so nothing here is simulated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, write
from report import sequences
from scipy.stats import binom

from dualrs.certificates import (
    ConfidenceSequence,
    MixtureSequence,
    SpendingSequence,
    clopper_pearson_lower,
    gaussian_probability,
    gaussian_radius,
    geometric_looks,
)

LEVEL, CAP, FIRST = 0.001, 10_000, 50
PROBABILITIES = (0.5, 0.7, 0.8, 0.86, 0.9, 0.95, 0.99, 0.999)
P0 = gaussian_probability(1.0, 1.0)

Limits = list[tuple[int, int, int]]
"""For each look: the number of trials, the most successes that say no, the fewest that say yes."""


def limits(sequence: ConfidenceSequence, looks: Iterable[int]) -> Limits:
    """Where the sequence decides; both limits only grow from look to look."""
    found = []
    no, yes = -1, 0
    for t in looks:
        while yes <= t and sequence.lower(yes, t) <= P0:
            yes += 1
        while no < t and sequence.upper(no + 1, t) < P0:
            no += 1
        found.append((t, no, yes))
    return found


def decide(decisions: Limits, p: float) -> dict[str, float]:
    """The expected number of trials until the decision, and the probabilities of yes, no and neither."""
    undecided = np.ones(1)  # by the number of successes
    expected = yes = no = 0.0
    before = 0
    for t, refused, proved in decisions:
        expected += (t - before) * undecided.sum()
        undecided = np.convolve(undecided, _steps(t - before, p))
        yes += undecided[proved:].sum()
        no += undecided[: refused + 1].sum()
        undecided = undecided[:proved]
        undecided[: refused + 1] = 0.0
        before = t
    return {"expected": float(expected), "yes": float(yes), "no": float(no), "neither": float(undecided.sum())}


@lru_cache(maxsize=64)
def _steps(trials: int, p: float) -> np.ndarray:
    return binom.pmf(np.arange(trials + 1), trials, p)


def kinds() -> Iterator[tuple[str, ConfidenceSequence, Iterable[int]]]:
    """The sequences, and after which trials each is looked at."""
    looks = geometric_looks(FIRST, CAP)
    yield "spending", SpendingSequence(looks, LEVEL), looks
    yield "mixture, same looks", MixtureSequence(looks, LEVEL), looks
    yield "mixture, every trial", MixtureSequence((CAP,), LEVEL), range(1, CAP + 1)


def at_cap(sequence: ConfidenceSequence) -> dict[str, dict[str, float]]:
    """The lower bound where the cap is reached with the expected successes, against Clopper and Pearson's."""
    found = {}
    for p in PROBABILITIES:
        k = round(p * CAP)
        bound, fixed = sequence.lower(k, CAP), clopper_pearson_lower(k, CAP, LEVEL)
        found[f"{p:g}"] = {"lower": bound, "fixed": fixed, "ratio": bound / fixed}
        if fixed > 0.5:
            found[f"{p:g}"]["radius_ratio"] = gaussian_radius(bound, 1.0) / gaussian_radius(fixed, 1.0)
    return found


def main() -> None:
    """Computes, prints a table, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "sequences.json")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name, sequence, looks in kinds():
        decisions = limits(sequence, looks)
        found[name] = {
            "decisions": {f"{p:g}": decide(decisions, p) for p in PROBABILITIES},
            "at_cap": at_cap(sequence),
        }
    record = {"settings": {"level": LEVEL, "p0": P0, "cap": CAP, "first_look": FIRST}, "sequences": found}
    print(sequences(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
