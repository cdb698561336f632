"""From a configuration to a dual model: experts, labels, estimator, bundle — each step kept once done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from dualrs.data import ArrayDataset
from dualrs.files import atomic_write
from dualrs.progress import console
from dualrs.training.config import ExpertConfig, TrainingConfig
from dualrs.training.experts import noisy_accuracy, train_expert


class Pipeline:
    """The training of one dual model; every method continues what an earlier, interrupted call began.

    Args:
        config: the whole training.
        train: the training split.
        test: the split on which accuracies are reported, never chosen.
    """

    def __init__(self, config: TrainingConfig, train: ArrayDataset, test: ArrayDataset) -> None:
        self.config, self._train, self._test = config, train, test

    def experts(self) -> dict[float, nn.Module]:
        """Trains every expert that is not trained yet; returns them by σ (one object may serve several)."""
        trained: dict[float, nn.Module] = {}
        for number, expert in enumerate(self.config.experts):
            start = trained[expert.start_from] if expert.start_from is not None else None
            model = self._expert(expert, start, seed=self.config.seed + number)
            trained.update(dict.fromkeys(expert.sigmas, model))
        return dict(sorted(trained.items()))

    def _expert(self, expert: ExpertConfig, start: nn.Module | None, *, seed: int) -> nn.Module:
        names = "-".join(f"{sigma:g}" for sigma in expert.sigmas)
        folder = self.config.output / f"expert-{names}"
        model = train_expert(expert, self._train, start=start, folder=folder, seed=seed)
        if not (folder / "summary.json").exists():
            accuracy = {f"{sigma:g}": noisy_accuracy(model, self._test, sigma) for sigma in expert.sigmas}
            _write_json(folder / "summary.json", {"test_accuracy_one_noise_draw": accuracy})
            for sigma, value in accuracy.items():
                console.print(f"expert for σ={sigma}: {value:.2%} of test images right under one noise draw")
        return model


def _write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
