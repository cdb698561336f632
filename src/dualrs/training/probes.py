"""How fast the steps of a training are: measured on throw-away copies, in a second or so each."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from dualrs.data import ArrayDataset
from dualrs.models import Chain, OneShotDenoiser, at_sigma
from dualrs.sampling import Base, make_backend
from dualrs.training.config import (
    AnyDenoiser,
    DenoiserConfig,
    DiffusionConfig,
    ExpertConfig,
    FineTuning,
    Optimization,
    SelectionConfig,
    TrainingConfig,
    UtilityConfig,
)
from dualrs.training.denoisers import train_denoiser, train_diffusion
from dualrs.training.estimator import train_estimator
from dualrs.training.experts import fine_tune_expert, train_expert
from dualrs.training.fronts import Diffusion, get_diffusion
from dualrs.training.pool import Member, as_one, load_ready
from dualrs.training.processes import quietly
from dualrs.training.selection import head_steps, noisy_features, rank_pools

_ENOUGH = 0.25  # seconds: less is measured too coarsely
_MOST_IMAGES = 4096

M = TypeVar("M", bound=BaseModel)


class Probes:
    """Measures seconds per image of each kind of step, with fresh networks of the same architectures.

    Args:
        config: the whole training.
        train: its training split, without validation images.
        device: where networks run.

    Raises:
        OSError, ValueError, ImportError: from every method, where something that is off the shelf cannot be had.
    """

    def __init__(self, config: TrainingConfig, train: ArrayDataset, device: str) -> None:
        self._config, self._train, self._device = config, train, device
        self._candidates = sum(len(expert.sigmas) for expert in config.experts)
        self._diffusions: dict[str | DiffusionConfig, Diffusion] = {}

    def expert(self, expert: ExpertConfig) -> float:
        """An epoch of an expert's training."""

        def train(data: ArrayDataset, folder: Path, batch: int) -> None:
            train_expert(_brief(expert, batch), data, start=None, folder=folder, seed=0, device=self._device)

        return self._training(train, expert.optimization)

    def denoiser(self, denoiser: DenoiserConfig, stage: int, number: int | None) -> float:
        """An epoch of a stage of a denoiser's training, for an expert by its number, or for the estimator (None)."""
        config = self._config
        sigmas = (config.sigma_e,) if number is None else config.experts[number].sigmas
        classifier = self._plain_estimator() if number is None else self._ready[number]
        assert isinstance(classifier, nn.Module)  # load_ready has seen to it

        def train(data: ArrayDataset, folder: Path, batch: int) -> None:
            train_denoiser(
                _brief(denoiser, batch), data, classifier, sigmas, folder=folder, seed=0, device=self._device
            )

        return self._training(train, denoiser.stages[stage].optimization, log=f"stage-{stage}")

    def diffusion(self, model: DiffusionConfig) -> float:
        """An epoch of a diffusion model's training."""

        def train(data: ArrayDataset, folder: Path, batch: int) -> None:
            train_diffusion(_brief(model, batch), data, folder=folder, seed=0, device=self._device)

        return self._training(train, model.optimization)

    def estimator(self) -> float:
        """An epoch of the estimator's training, behind a denoiser that is there."""
        config = self._config.estimator
        bare = config.model_copy(update={"denoiser": None})
        start = None if config.start_from is None else self._plain_estimator()

        def train(data: ArrayDataset, folder: Path, batch: int) -> None:
            radii = np.eye(self._candidates)[np.arange(len(data)) % self._candidates]
            brief, sigma_e = _brief(bare, batch), self._config.sigma_e
            train_estimator(brief, data, radii, sigma_e, start=start, folder=folder, seed=0, device=self._device)

        seconds = self._training(train, config.optimization)
        if config.denoiser is None:
            return seconds
        front = self._behind(config.denoiser, nn.Flatten(), self._config.sigma_e)
        return seconds + config.noise_vectors * self._forward(front)

    def fine_tuning(self, config: FineTuning, number: int) -> float:
        """An epoch of an expert's fine-tuning; 0 for one that cannot be trained."""
        bases = self._bases(number)
        network = as_one([Member(f"{sigma:g}", sigma, base) for sigma, base in bases.items()])
        if network is None:
            return 0.0

        def train(data: ArrayDataset, folder: Path, batch: int) -> None:
            shares = np.full((len(data), len(bases)), 1 / len(bases), dtype=np.float32)
            brief, sigmas = _brief(config, batch), tuple(bases)
            fine_tune_expert(
                network, brief, data, sigmas, shares, folder=folder, seed=0, name="probe", device=self._device
            )

        return self._training(train, config.optimization)

    def votes(self, number: int, sigma: float, n: int) -> float:
        """All votes of an expert at one σ."""
        base = self._bases(number)[sigma]
        return n * self._forward(at_sigma(base, sigma) if isinstance(base, nn.Module) else base)

    def choices(self, n: int) -> float:
        """All votes of the estimator."""
        front, network = self._config.estimator.denoiser, self._plain_estimator()
        if front is not None:
            network = self._behind(front, network, self._config.sigma_e)
        return n * self._forward(network)

    def selection(self, config: SelectionConfig, images: int, pools: int) -> float:
        """A pool of the choice between so many, with its share of the features' time."""
        backbone, sigma_e = self._plain_estimator(), self._config.sigma_e
        few = self._train.subset(range(2))
        features = noisy_features(backbone, few, sigma_e, copies=config.copies, seed=0, device=self._device)
        views = torch.randn(config.copies, 64, features.shape[2]).to(features.device)
        utility = self._config.estimator.utility or UtilityConfig()
        started = time.perf_counter()
        rank_pools(views, np.eye(2)[np.arange(64) % 2], sigma_e, utility, judged=16)
        head = (time.perf_counter() - started) * head_steps(images) / head_steps(0)
        return head + self._forward(backbone) * config.copies * images / pools

    def _training(
        self, train: Callable[[ArrayDataset, Path, int], None], plan: Optimization, *, log: str = "."
    ) -> float:
        size, limit = 2, min(len(self._train), max(_MOST_IMAGES, plan.batch_size))
        while True:
            with tempfile.TemporaryDirectory(prefix="dualrs-") as folder, quietly():
                train(self._train.subset(range(size)), Path(folder), min(size, plan.batch_size))
                lines = (Path(folder) / log / "metrics.jsonl").read_text().splitlines()
            seconds = float(json.loads(lines[-1])["seconds"])  # of the second epoch: the first one warms up
            if seconds >= _ENOUGH or 4 * size > limit:
                return seconds / size
            size *= 4

    def _forward(self, base: Base) -> float:
        shape, most = self._train.input_shape, self._config.labels.batch_size
        if not isinstance(base, nn.Module):
            backend = make_backend(base, input_shape=shape, batch_size=most)
        else:  # as it is: exporting or compiling it, which is faster in the end, takes longer than a probe should
            precision = self._config.labels.precision
            backend = make_backend(
                base.eval(),
                input_shape=shape,
                batch_size=most,
                backend="torch",
                device=self._device,
                precision=precision,
            )
        size = backend.batch_size or 2
        while True:
            batch = torch.rand(size, *shape)
            backend.logits(batch)
            started = time.perf_counter()
            backend.logits(batch)
            seconds = time.perf_counter() - started
            if seconds >= _ENOUGH or 4 * size > most:
                return seconds / size
            size *= 4

    @cached_property
    def _ready(self) -> dict[int, Base]:
        return load_ready(self._config, len(self._train.classes))

    def _bases(self, number: int) -> dict[float, Base]:
        """An expert at each of its noise levels, with weights as they come."""
        expert = self._config.experts[number]
        if isinstance(expert, ExpertConfig):
            data = self._train
            network = expert.network.build(num_classes=len(data.classes), mean=data.mean, std=data.std)
            return dict.fromkeys(expert.sigmas, network)
        ready = self._ready[number]
        if expert.denoiser is None or not isinstance(ready, nn.Module):
            return dict.fromkeys(expert.sigmas, ready)
        return {sigma: self._behind(expert.denoiser, ready, sigma) for sigma in expert.sigmas}

    def _plain_estimator(self) -> nn.Module:
        data = self._train
        return self._config.estimator.network.build(num_classes=self._candidates, mean=data.mean, std=data.std).eval()

    def _behind(self, denoiser: AnyDenoiser, classifier: nn.Module, sigma: float) -> Chain:
        front = self._front(denoiser, sigma).requires_grad_(False)
        return Chain(front, classifier, sigma=sigma if getattr(front, "takes_sigma", False) else None).eval()

    def _front(self, denoiser: AnyDenoiser, sigma: float) -> nn.Module:
        if isinstance(denoiser, DenoiserConfig):
            return denoiser.network.build(channels=self._train.input_shape[0])
        model = denoiser.diffusion
        if model not in self._diffusions:
            few = self._train.subset(range(2))
            with tempfile.TemporaryDirectory(prefix="dualrs-") as folder, quietly():
                self._diffusions[model] = get_diffusion(
                    _brief(denoiser, 2), few, folder=Path(folder), seed=0, device=self._device
                )
        return OneShotDenoiser(*self._diffusions[model], sigma)


def _brief(section: M, batch: int) -> M:
    """A section with all its trainings shortened to two epochs of batches no larger than this."""
    changes: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, Optimization):
            changes[name] = value.model_copy(update={"epochs": 2, "batch_size": batch})
        elif isinstance(value, BaseModel):
            changes[name] = _brief(value, batch)
        elif isinstance(value, tuple):
            changes[name] = tuple(_brief(each, batch) if isinstance(each, BaseModel) else each for each in value)
    return section.model_copy(update=changes)
