"""Runs on disk, as `dualrs certify` leaves them."""

import json

import polars as pl
import pytest

from dualrs.data import open_dataset
from dualrs.evaluation import CERTIFICATES, SUMMARY, Evaluation, oracle_rows, read_parquet, write_parquet
from dualrs.evaluation.attack import ATTEMPTS, Plan, claims_of
from dualrs.evaluation.attack._summary import summarize_attempts
from dualrs.evaluation.pages._runs import Run

SAMPLE = "fashion-mnist-sample"


def _metadata(**changes):
    return {
        "created": "2026-01-02T03:04:05+00:00",
        "wall_seconds": 100.0,
        "certification": {"n0": 100, "n": 1000, "alpha": 0.001, "tolerance": 0.0, "target": None, "seed": 5}
        | {"noise": "float32, test"},
        "model": {"digest": "ab" * 32, "num_classes": 10, "sigmas": [0.25, 0.5], "sigma_e": 1.0},
        "data": {"name": SAMPLE, "split": "test", "size": 1000, "digest": open_dataset(SAMPLE).digest},
        "engine": {"expert-0.5": {"backend": "torch", "device": "cpu", "precision": "float32", "votes": 5000}},
        "software": {"dualrs": "0.1.0"},
        "info": {},
        **changes,
    }


@pytest.fixture
def metadata():
    """Makes what a run records of itself, as far as a report reads it, with some sections set anew."""
    return _metadata


@pytest.fixture
def table(by_hand):
    """Five inputs, three methods and the oracle."""
    return pl.concat([by_hand, oracle_rows(by_hand)]).sort("idx", maintain_order=True)


@pytest.fixture
def run_of():
    """Makes a run in memory, of a table and what is recorded."""
    return lambda name, table, **metadata: Run(
        name, table, Evaluation(table, True, table["idx"].n_unique(), metadata, None)
    )


@pytest.fixture
def recorded(table, run_of):
    """A run in memory."""
    return run_of("by-hand", table, **_metadata())


@pytest.fixture
def save(tmp_path):
    """Writes a run to a folder of this name."""

    def write(name, table, **record):
        folder = tmp_path / name
        write_parquet(table, folder / CERTIFICATES)
        record = {"complete": True, "requested": table["idx"].n_unique(), "metadata": _metadata(), **record}
        (folder / SUMMARY).write_text(json.dumps(record))
        return folder

    return write


@pytest.fixture
def audited():
    """Audits three inputs of a run in its folder: one attempt at each, of which so many break."""

    def write(folder, breaks=0, **changes):
        plan = Plan(aims=("label",), budgets=(0.125, 1.0))
        rows = read_parquet(folder / CERTIFICATES).filter(pl.col("idx") < 9, method="dual")
        attempts = [
            {"idx": idx, "truth": 1, "label": label, "radius": length, "norm": norm, "votes": 100, "seconds": 0.1}
            | {"aim": aim, "certified": norm < radius, "decided": decided, "estimate": None if aim == "none" else -0.5}
            | {"broken": norm < radius and decided != label}
            for number, (idx, label, radius) in enumerate(rows.select("idx", "predicted", "radius").iter_rows())
            for aim, length, norm, decided in (
                ("none", radius, 0.0, label),
                ("label", radius, radius / 2, 1 - label if number < breaks else label),
                *([("label", 1.0, 0.9, 1 - label)] if radius < 0.9 else []),
            )
        ]
        figures = summarize_attempts(rows, pl.DataFrame(attempts, schema=ATTEMPTS), plan, 0.01)
        about = {"method": "dual", "complete": True, "requested": 3, "remarks": ["A remark."]}
        about["metadata"] = {"certification": claims_of(rows)}
        (folder / "attack.json").write_text(json.dumps({**about, **figures, **changes}))

    return write


@pytest.fixture
def many(table):
    """The five inputs again and again, a hundred in all, and each in the sample of images."""
    return pl.concat([table.with_columns(pl.col("idx") + 20 * i) for i in range(20)])
