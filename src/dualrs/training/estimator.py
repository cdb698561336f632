"""The variance estimator: a network that sees a noisy input and names the σ certified furthest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dualrs.data import ArrayDataset
from dualrs.models import weights_digest
from dualrs.training.config import EstimatorConfig
from dualrs.training.loop import Objective, fit
from dualrs.training.losses import consistency, soft_cross_entropy


def class_weights(best: Tensor, num_candidates: int) -> Tensor:
    """Weight of each candidate σ: N / (K · n_i), the inverse of its share among the best, 1 if all are even.

    Source: Sun, Mao & Vechev 2026, class balancing; scaled to a weighted mean of one.
    """
    counts = torch.bincount(best, minlength=num_candidates)
    return len(best) / (num_candidates * counts.clamp_min(1))


def variance_objective(radii: Tensor, sigma_e: float, config: EstimatorConfig) -> Objective:
    """The estimator's loss: weighted soft cross-entropy, plus consistency between noisy copies.

    ``E[w_e (softCE + w_r · L_con)]``. Targets are ``softmax(R_c / temperature)``; ``w_e`` balances the best
    σ's; ``w_r`` is R_c at the largest (strong) or smallest (weak) σ chosen among the copies, without
    gradient.

    Args:
        radii: certified radius of every training image at every candidate, shape (N, K), rows not all 0.
        sigma_e: noise level of the estimator.
        config: temperature, weights and number of copies m.

    Source: Sun, Mao & Vechev 2026 (arXiv 2512.01782), training of the variance estimator.
    """
    targets = torch.softmax(radii / config.temperature, dim=1)
    best = radii.argmax(dim=1)
    weights = class_weights(best, radii.shape[1]) if config.class_weights else torch.ones(radii.shape[1])
    copies = config.noise_vectors

    def objective(
        model: nn.Module, images: Tensor, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        noise = torch.randn((copies * len(images), *images.shape[1:]), generator=generator)
        noisy = images.repeat(copies, 1, 1, 1).add_(noise, alpha=sigma_e)
        logits = model(noisy.contiguous(memory_format=torch.channels_last)).float()
        chosen = logits.detach().argmax(dim=1)
        weight = weights[best[rows]]
        cross_entropy = soft_cross_entropy(logits, targets[rows].repeat(copies, 1))
        loss = (weight.repeat(copies) * cross_entropy).mean()
        metrics = {"label_accuracy": (chosen == best[rows].repeat(copies)).float().mean()}
        if config.consistency > 0 or config.entropy > 0:
            per_image = consistency(
                logits.view(copies, len(images), -1), weight=config.consistency, entropy_weight=config.entropy
            )
            trust = _radius_weight(radii[rows], chosen.view(copies, -1), config.radius_weight)
            metrics["consistency"] = per_image.mean().detach()
            loss = loss + (trust * weight * per_image).mean()
        for i in range(radii.shape[1]):
            metrics[f"share_{i}"] = (chosen == i).float().mean()
        return loss, metrics

    return objective


def _radius_weight(radii: Tensor, chosen: Tensor, kind: str) -> Tensor:
    """w_r for each image: radii (B, K), choices of the copies (m, B)."""
    if kind == "none":
        return torch.ones(len(radii))
    index = chosen.amax(dim=0) if kind == "strong" else chosen.amin(dim=0)
    return radii.gather(1, index.unsqueeze(1)).squeeze(1)


def train_estimator(
    config: EstimatorConfig,
    data: ArrayDataset,
    radii: NDArray[np.float64],
    sigma_e: float,
    *,
    start: nn.Module | None,
    folder: Path,
    seed: int,
) -> nn.Module:
    """Trains the variance estimator, continuing from the folder's checkpoint if there is one.

    Args:
        config: network, loss and optimisation.
        data: the labelled images.
        radii: their certified radii, shape (N, K); images that no expert certifies are left out.
        sigma_e: noise level of the estimator.
        start: a network of the same architecture (but for the last layer) whose features to begin with.
        folder: where checkpoints and metrics go.
        seed: of the initial weights, the data order, the augmentation and the noise.

    Raises:
        ValueError: no image is certified at any σ.
    """
    kept = np.flatnonzero(radii.max(axis=1) > 0)
    if not len(kept):
        raise ValueError(f"none of the {len(data)} labelled images is certified at any σ; train the experts longer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.network.build(num_classes=radii.shape[1], mean=data.mean, std=data.std)
    if start is not None:
        features = {key: value for key, value in start.state_dict().items() if not key.startswith("head.")}
        model.load_state_dict(features, strict=False)
    fit(
        model,
        variance_objective(torch.from_numpy(radii[kept]).float(), sigma_e, config),
        torch.from_numpy(data.images[kept]),
        config.optimization,
        folder=folder,
        seed=seed,
        settings={
            "estimator": config.model_dump(mode="json"),
            "sigma_e": sigma_e,
            "data": data.digest,
            "radii": hashlib.sha256(radii.tobytes()).hexdigest(),
            "start": None if start is None else weights_digest(start),
        },
        description="variance estimator",
    )
    return model
