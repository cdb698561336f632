"""Experts: classifiers trained under Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.data import ArrayDataset
from dualrs.models import weights_digest
from dualrs.training.config import ExpertConfig
from dualrs.training.loop import Objective, fit


def gaussian_augmentation(labels: Tensor, sigmas: Sequence[float], *, label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy on images with Gaussian noise, σ drawn uniformly from ``sigmas`` for each image.

    Args:
        labels: class of every training image, shape (N,).
        sigmas: noise levels, in the units of the images.
        label_smoothing: share of the target spread evenly over all classes.

    Source: Cohen et al. 2019 (arXiv 1902.02918), section 3.3; several σ as in its noise-augmented training.
    """
    levels = torch.tensor(sigmas, dtype=torch.float32)

    def objective(
        model: nn.Module, images: Tensor, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        chosen = levels[torch.randint(len(levels), (len(images),), generator=generator)]
        noise = torch.randn(images.shape, generator=generator)
        noisy = torch.addcmul(images, noise, chosen.view(-1, 1, 1, 1))
        logits = model(noisy.contiguous(memory_format=torch.channels_last)).float()
        targets = labels[rows]
        loss = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        return loss, {"accuracy": (logits.argmax(1) == targets).float().mean()}

    return objective


def train_expert(
    config: ExpertConfig, data: ArrayDataset, *, start: nn.Module | None, folder: Path, seed: int
) -> nn.Module:
    """Trains one expert on a data set, continuing from the folder's checkpoint if there is one.

    Args:
        config: network, noise levels and optimisation.
        data: the training split.
        start: an expert of the same architecture whose weights to begin with.
        folder: where checkpoints and metrics go.
        seed: of the initial weights, the data order, the augmentation and the noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.network.build(num_classes=len(data.classes), mean=data.mean, std=data.std)
    if start is not None:
        model.load_state_dict(start.state_dict())
    names = ", ".join(f"{sigma:g}" for sigma in config.sigmas)
    fit(
        model,
        gaussian_augmentation(torch.from_numpy(data.labels), config.sigmas, label_smoothing=config.label_smoothing),
        torch.from_numpy(data.images),
        config.optimization,
        folder=folder,
        seed=seed,
        settings={
            "expert": config.model_dump(mode="json"),
            "data": data.digest,
            "start": None if start is None else weights_digest(start),
        },
        description=f"expert for σ={names}",
    )
    return model


@torch.inference_mode()
def noisy_accuracy(model: nn.Module, data: ArrayDataset, sigma: float, *, seed: int = 0) -> float:
    """Accuracy under a single draw of Gaussian noise per image: what one vote of the smoothed classifier is worth."""
    generator = torch.Generator().manual_seed(seed)
    correct = 0
    for rows in torch.arange(len(data)).split(256):
        images, labels = data.tensors(rows.numpy())
        noisy = images + sigma * torch.randn(images.shape, generator=generator)
        logits = model(noisy.contiguous(memory_format=torch.channels_last))
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(data)
