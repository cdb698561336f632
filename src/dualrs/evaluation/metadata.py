"""What a run's numbers depend on, for its record: software, machine, models, data."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

import dualrs
from dualrs.data import Dataset
from dualrs.sampling import ModelStats
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
    gpus = {name: torch.cuda.get_device_name(name) for name in sorted(devices) if name.startswith("cuda")}
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "gpus": gpus,
    }


def describe_model(model: SmoothedClassifier | DualSmoothedClassifier, digest: str | None) -> dict[str, Any]:
    """Describes a model: Σ and σ_e in input units (σ_e null without an estimator), and the digest of its bundle."""
    if isinstance(model, DualSmoothedClassifier):
        levels = {"sigmas": list(model.sigmas), "sigma_e": model.sigma_e}
    else:
        levels = {"sigmas": [model.sigma], "sigma_e": None}
    return {"digest": digest, "num_classes": model.num_classes, **levels}


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Describes a data set: name, split (null if it has none), size and digest; may read every file of a folder."""
    return {
        "name": dataset.name,
        "split": getattr(dataset, "split", None),
        "size": len(dataset),
        "digest": dataset.digest,
    }


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
