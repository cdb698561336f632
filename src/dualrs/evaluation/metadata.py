"""What a run's numbers depend on, for its record: software, machine, models, data."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

import dualrs
from dualrs.data import Dataset, ImageFolder
from dualrs.evaluation.manifest import Manifest
from dualrs.evaluation.metrics import by_slices
from dualrs.evaluation.table import ORACLE
from dualrs.models import recipe_of, weights_digest
from dualrs.sampling import Backend, Base, Crew, ModelStats, precision_of
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

DTYPE = "float32"
"""In which inputs, noise and logits are passed to and from a backend."""
_LIBRARIES = ("torch", "numpy", "scipy", "onnxruntime", "polars")


def software() -> dict[str, Any]:
    """Gives the versions of dualrs, Python and the libraries that results may depend on."""
    return {
        "dualrs": dualrs.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }


def machine(devices: set[str]) -> dict[str, Any]:
    """Describes the machine: operating system, processor, threads, and the GPU of each CUDA device used."""
    gpus = {
        name: torch.cuda.get_device_name(name)
        for name in sorted(devices)
        if name.startswith("cuda") and torch.cuda.is_available()
    }
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "gpus": gpus,
    }


def describe_model(model: SmoothedClassifier | DualSmoothedClassifier, digest: str | None) -> dict[str, Any]:
    """Describes a model: Σ and σ_e in input units (σ_e null without an estimator), and the digest of its bundle.

    ``bases`` has the digests of its base classifiers, null for callables, which have none. Where the experts have names
    of their own, ``names`` gives them in the order of Σ.
    """
    bases = {name: _digest(base) for name, base in model.bases.items()}
    about: dict[str, Any] = {"digest": digest, "num_classes": model.num_classes, "bases": bases}
    if not isinstance(model, DualSmoothedClassifier):
        return {**about, "sigmas": [model.sigma], "sigma_e": None}
    named = {} if model.names is None else {"names": list(model.names)}
    return {**about, "sigmas": list(model.sigmas), **named, "sigma_e": model.sigma_e}


def _digest(base: Base | Backend) -> str | None:
    """What tells a base classifier from others: recipe and weights of a module, the content of a file."""
    if isinstance(base, nn.Module):
        recipe = recipe_of(base)
        known = json.dumps(recipe and recipe.as_argument(), sort_keys=True)
        return hashlib.sha256(f"{known} {weights_digest(base)}".encode()).hexdigest()
    if isinstance(base, str | os.PathLike):
        return hashlib.sha256(Path(base).read_bytes()).hexdigest()
    return None


def describe_functions(
    model: SmoothedClassifier | DualSmoothedClassifier, shape: torch.Size
) -> dict[str, dict[str, Any]]:
    """Describes what the certificates are about: in which form, on what and in which batches base classifiers run.

    Args:
        model: whose backends are made, if they are not there yet.
        shape: of one input.
    """
    rows = model.engine().batch_size
    backends = {name: model.backend(name, shape) for name in model.bases}
    return {
        name: {
            "backend": backend.name,
            "device": backend.device.partition(":")[0],  # whichever of several GPUs
            "precision": precision_of(backend),
            "batch_size": backend.batch_size or rows,
        }
        for name, backend in backends.items()
    }


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Describes a data set: name, split (null if it has none), size and digest; may read every file of a folder.

    Of a folder of images, ``image_size`` is the side that they were brought to.
    """
    brought = {"image_size": dataset.size} if isinstance(dataset, ImageFolder) else {}
    return {
        "name": dataset.name,
        "split": getattr(dataset, "split", None),
        "size": len(dataset),
        **brought,
        "digest": dataset.digest,
    }


def describe_session(devices: set[str], info: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a session that begins: when, with which software, on what, and whatever else is worth recording."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": software(),
        "machine": machine(devices),
        "info": dict(info),
    }


def describe_run(manifest: Manifest, table: pl.DataFrame) -> dict[str, Any]:
    """Describes a run, as `describe_work` does, and its methods by what their rows say of them."""
    methods = _describe_methods(manifest.methods, table)
    about = describe_work(manifest)
    return {**about, "certification": {**about["certification"], "methods": methods}}


def describe_work(manifest: Manifest) -> dict[str, Any]:
    """Describes what something was made with and, over all its sessions, what was done and how long it took.

    A session that was killed counts as far as it is on record, which is to within seconds. Software, machine and
    ``info`` are those of the last session; the others follow under ``earlier_sessions``.
    """
    *earlier, last = manifest.sessions
    return {
        "created": manifest.sessions[0]["started"],
        "wall_seconds": sum(session["wall_seconds"] for session in manifest.sessions),
        **manifest.made_with,
        "engine": describe_engine(_totals(manifest)),
        **{name: last[name] for name in ("software", "machine", "info")},
        "earlier_sessions": earlier,
    }


def _describe_methods(methods: list[str], table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """The rule of each method, α, and its split, which is gathered from all rows: an abstention may skip a stage."""
    described: dict[str, dict[str, Any]] = {}
    for method, rule, alpha, stage in by_slices(table, _levels).iter_rows():
        about = described.setdefault(method, {"rule": rule, "alpha": alpha, "alpha_split": {}})
        if stage and stage["level"] is not None:
            about["alpha_split"][stage["name"]] = stage["level"]
    return {method: described[method] for method in methods if method in described}


def _levels(rows: pl.DataFrame) -> pl.DataFrame:
    """The stages of these rows, each with its level once: there are few, however many rows."""
    stages = pl.col("stages").str.json_decode(pl.List(pl.Struct({"name": pl.String(), "level": pl.Float64()})))
    own = rows.filter(pl.col("rule") != ORACLE).select("method", "rule", "alpha", stage=stages)
    return own.explode("stage").unique(maintain_order=True)


def _totals(manifest: Manifest) -> dict[str, ModelStats]:
    """What each model did in all sessions together."""
    totals: dict[str, ModelStats] = {}
    for session in manifest.sessions:
        for name, recorded in session["engine"].items():
            stats = ModelStats(**recorded)
            before = totals.get(name, replace(stats, votes=0, slots=0, seconds=0.0))
            totals[name] = replace(
                stats,
                votes=before.votes + stats.votes,
                slots=before.slots + stats.slots,
                seconds=before.seconds + stats.seconds,
            )
    return totals


def describe_engine(stats: Mapping[str, ModelStats]) -> dict[str, dict[str, Any]]:
    """Describes, per model that was asked, on what it ran, how many votes it gave, and how fast.

    ``votes`` counts every vote once, however many methods used it; ``fill_rate`` is the share of evaluated
    rows that were asked for.
    """
    return {
        name: {
            "backend": model.backend,
            "device": model.device,
            "precision": model.precision,
            "batch_size": model.batch_size,
            "votes": model.votes,
            "seconds": model.seconds,
            "votes_per_second": model.votes / model.seconds if model.seconds else None,
            "fill_rate": model.fill_rate,
        }
        for name, model in sorted(stats.items())
    }


def with_progress(begun: Mapping[str, Any], crew: Crew) -> dict[str, Any]:
    """What is known of a session now: how it began, what its models have done, and what became of its workers."""
    return {**begun, "engine": {name: asdict(stats) for name, stats in list(crew.stats.items())}, **crew.record()}
