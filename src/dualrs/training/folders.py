"""Where a training keeps what: a folder for every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dualrs.files import write_json
from dualrs.training.config import (
    DiffusionConfig,
    ExpertConfig,
    OffTheShelfConfig,
    OneShotConfig,
    TrainingConfig,
)

_LONGEST_NAME = 80
_OF_THE_CANDIDATES = ("labels", "validation")  # what is known of each expert whatever the others are


class Folders:
    """The folders of a training.

    Experts and their labels are there once, whatever the pool. All that depends on which experts there are to choose
    from, above all the estimator, is in a folder of that pool: another pool begins anew and overwrites nothing.

    Args:
        config: of the training.

    Attributes:
        root: the folder of the whole training.
        fronts: every denoiser of an expert and of the estimator.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.root = config.output
        fronts = [expert.denoiser for expert in config.experts if isinstance(expert, OffTheShelfConfig)]
        self.fronts = [front for front in (*fronts, config.estimator.denoiser) if front is not None]
        models = [front.diffusion for front in self.fronts if isinstance(front, OneShotConfig)]
        self._trained = list(dict.fromkeys(model for model in models if isinstance(model, DiffusionConfig)))

    def expert(self, expert: ExpertConfig | OffTheShelfConfig) -> Path:
        """Where an expert is trained, or its denoiser."""
        return self.root / (expert.name or f"expert-{'-'.join(f'{sigma:g}' for sigma in expert.sigmas)}")

    def diffusion(self, denoiser: OneShotConfig) -> Path:
        """Where the diffusion model of a denoiser is trained, if it is; alike ones share a folder."""
        model = denoiser.diffusion
        number = self._trained.index(model) if isinstance(model, DiffusionConfig) else 0
        return self.root / (f"diffusion-{number + 1}" if number else "diffusion")

    def step(self, step: str, names: Sequence[str], number: int = 0) -> Path:
        """Where a step is done for a pool of experts with these names, in a round."""
        if number == 0 and step in _OF_THE_CANDIDATES:
            return self.root / step
        pool = self.root / _pool_name(names)
        return pool / step if number == 0 else pool / f"round-{number}" / step

    @property
    def selection(self) -> Path:
        """What the choice of the pool was made by."""
        return self.root / "selection" / "pools.json"

    @property
    def bundle(self) -> Path:
        """The finished model."""
        return self.root / "bundle"


def _pool_name(names: Sequence[str]) -> str:
    name = f"pool-{'+'.join(name.removeprefix('expert-') for name in names)}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"pool-of-{len(names)}-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:8]}"


def kept_json(path: Path, made_with: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a file, made anew if it is not there or was made with something else.

    Args:
        path: of the file.
        made_with: all that the content depends on, as JSON values.
        make: makes it, as JSON values.
    """
    recorded = json.loads(json.dumps(made_with))
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.get("made_with") == recorded:
            return found
    write_json(path, {**make(), "made_with": recorded})
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return made
