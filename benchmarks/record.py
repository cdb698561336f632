"""What all benchmarks share: where their records lie, how they are written, and what machine they were made on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
_LIBRARIES = ("adversarial-robustness-toolbox",)  # beside those that dualrs records of itself


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record, with the machine that it was made on, as JSON; whole or not at all."""
    from dualrs.files import write_json

    write_json(path, {**content, "machine": machine()})


def machine() -> dict[str, Any]:
    """Describes the processor, how much of it there was, and the software."""
    from dualrs.evaluation import metadata as evaluation

    return {
        **evaluation.machine(set()),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "nice": os.nice(0) if hasattr(os, "nice") else None,
        "software": {**evaluation.software(), **{name: _version(name) for name in _LIBRARIES}},
    }


def _cpu() -> str | None:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
