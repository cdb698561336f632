"""From a configuration to a dual model: experts, labels, estimator, bundle — each step kept once done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dualrs.data import ArrayDataset
from dualrs.files import atomic_write
from dualrs.models import InputSpec, weights_digest
from dualrs.progress import console
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier
from dualrs.training.config import ExpertConfig, TrainingConfig
from dualrs.training.estimator import train_estimator
from dualrs.training.experts import noisy_accuracy, train_expert
from dualrs.training.labels import label_radii, true_class_votes


class Pipeline:
    """The training of one dual model; every method continues what an earlier, interrupted call began.

    Args:
        config: the whole training.
        train: the training split.
        test: the split on which accuracies are reported, never chosen.
    """

    def __init__(self, config: TrainingConfig, train: ArrayDataset, test: ArrayDataset) -> None:
        self.config, self._train, self._test = config, train, test
        labelled = min(config.labels.images or len(train), len(train))
        self._labelled = train.subset(range(labelled))

    def run(self) -> Path:
        """Does whatever is not done yet and returns the folder of the finished bundle."""
        experts = self.experts()
        radii = self.labels(experts)
        estimator = self.estimator(experts, radii)
        return self._bundle(experts, estimator)

    def experts(self) -> dict[float, nn.Module]:
        """Trains every expert that is not trained yet; returns them by σ (one object may serve several)."""
        trained: dict[float, nn.Module] = {}
        for number, expert in enumerate(self.config.experts):
            start = trained[expert.start_from] if expert.start_from is not None else None
            model = self._expert(expert, start, seed=self.config.seed + number)
            trained.update(dict.fromkeys(expert.sigmas, model))
        return dict(sorted(trained.items()))

    def labels(self, experts: dict[float, nn.Module]) -> NDArray[np.float64]:
        """Labels the training images that are not labelled yet; radii of shape (images, σ)."""
        config, labels = self.config, self.config.labels
        votes = [self._votes(sigma, expert) for sigma, expert in experts.items()]
        radii = label_radii(
            np.stack(votes, axis=1), config.sigmas, n=labels.n, mapped_n=labels.mapped_n, alpha=labels.alpha
        )
        best = np.where(radii.max(axis=1) > 0, radii.argmax(axis=1), -1)
        shares = {f"{sigma:g}": float((best == i).mean()) for i, sigma in enumerate(config.sigmas)}
        shares["none"] = float((best == -1).mean())
        _write_json(config.output / "labels" / "summary.json", {"images": len(radii), "best_sigma_shares": shares})
        return radii

    def estimator(self, experts: dict[float, nn.Module], radii: NDArray[np.float64]) -> nn.Module:
        """Trains the variance estimator unless it is trained."""
        config = self.config.estimator
        return train_estimator(
            config,
            self._labelled,
            radii,
            self.config.sigma_e,
            start=experts[config.start_from] if config.start_from is not None else None,
            folder=self.config.output / "estimator",
            seed=self.config.seed + len(self.config.experts),
        )

    def _expert(self, expert: ExpertConfig, start: nn.Module | None, *, seed: int) -> nn.Module:
        names = "-".join(f"{sigma:g}" for sigma in expert.sigmas)
        folder = self.config.output / f"expert-{names}"
        model = train_expert(expert, self._train, start=start, folder=folder, seed=seed)
        _round_weights(model)
        if not (folder / "summary.json").exists():
            accuracy = {f"{sigma:g}": noisy_accuracy(model, self._test, sigma) for sigma in expert.sigmas}
            _write_json(folder / "summary.json", {"test_accuracy_one_noise_draw": accuracy})
            for sigma, value in accuracy.items():
                console.print(f"expert for σ={sigma}: {value:.2%} of test images right under one noise draw")
        return model

    def _votes(self, sigma: float, expert: nn.Module) -> NDArray[np.int64]:
        n, seed = self.config.labels.n, self.config.seed
        return true_class_votes(
            SmoothedClassifier(expert, sigma, len(self._train.classes)),
            self._labelled,
            n=n,
            seed=seed,
            path=self.config.output / "labels" / f"votes-{sigma:g}.npz",
            key=f"{weights_digest(expert)[:16]} {self._labelled.digest[:16]} n={n} seed={seed}",
        )

    def _bundle(self, experts: dict[float, nn.Module], estimator: nn.Module) -> Path:
        config = self.config
        model = DualSmoothedClassifier(estimator, config.sigma_e, experts, len(self._train.classes))
        model.input = InputSpec(self._train.input_shape)
        model.classes = self._train.classes
        model.info = {
            "name": config.name,
            "data": {"name": self._train.name, "train_digest": self._train.digest},
            "training": config.model_dump(mode="json", exclude={"output"}),
            **{path.parent.name: json.loads(path.read_text()) for path in config.output.glob("*/summary.json")},
        }
        return model.save(config.output / "bundle", half=True)


def _round_weights(network: nn.Module) -> None:
    """Rounds to float16, as bundles store weights, so that all that follows is about the network that is stored."""
    rounded = {name: value.half().float() for name, value in network.state_dict().items() if value.is_floating_point()}
    network.load_state_dict(rounded, strict=False)


def _write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
