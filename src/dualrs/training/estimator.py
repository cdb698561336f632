"""The variance estimator: a network that sees a noisy input and names the σ certified furthest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.data import ArrayDataset
from dualrs.models import Chain, weights_digest
from dualrs.progress import console
from dualrs.training.batches import Batch
from dualrs.training.config import EstimatorConfig
from dualrs.training.fronts import Diffusion, put_behind
from dualrs.training.loop import Objective, fit
from dualrs.training.losses import consistency, soft_cross_entropy
from dualrs.training.surrogate import exclusion_margins, utility_loss

_COLLAPSED = 0.98  # a share of all choices that leaves next to nothing to choose


def class_weights(best: Tensor, num_candidates: int) -> Tensor:
    """Weight of each candidate σ: N / (K · n_i), the inverse of its share among the best, 1 if all are even.

    Source: Sun, Mao & Vechev 2026, class balancing; scaled to a weighted mean of one.
    """
    counts = torch.bincount(best, minlength=num_candidates)
    return len(best) / (num_candidates * counts.clamp_min(1))


def variance_objective(radii: Tensor, sigma_e: float, config: EstimatorConfig) -> Objective:
    """The estimator's loss: weighted cross-entropy, consistency between noisy copies, utility of the routed radius.

    ``E[w_e (CE + w_r · L_con) + missed utility]``. Soft targets are ``softmax(R_c / temperature)``; ``w_e``
    balances the best σ's; ``w_r`` is R_c at the largest (strong) or smallest (weak) σ chosen among the copies,
    without gradient.

    Args:
        radii: certified radius of every training image at every candidate, shape (N, K), rows not all 0.
        sigma_e: noise level of the estimator.
        config: the parts of the loss, their weights, and the number of copies m.

    Source: Sun, Mao & Vechev 2026 (arXiv 2512.01782), training of the variance estimator; for the utility
    `dualrs.training.surrogate`.
    """
    candidates = radii.shape[1]
    best = radii.argmax(dim=1)
    weights = class_weights(best, candidates) if config.class_weights else torch.ones(candidates)
    copies, utility = config.noise_vectors, config.utility
    soft = torch.softmax(radii / config.temperature, dim=1)
    targets = soft if config.targets == "soft" else F.one_hot(best, candidates).float()
    if utility is not None:
        levels, worth = torch.tensor(utility.radii), torch.tensor(utility.worth)

    def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        images, reached, wanted = batch.images, batch.pick(radii), batch.pick(best)
        noise = batch.normal(copies).flatten(0, 1)
        noisy = images.repeat(copies, 1, 1, 1).add_(noise, alpha=sigma_e)
        logits = model(noisy.contiguous(memory_format=torch.channels_last)).float()
        by_copy, chosen = logits.view(copies, len(images), candidates), logits.detach().argmax(dim=1)
        weight = weights.to(batch.device)[wanted]
        metrics = {"label_accuracy": (chosen == wanted.repeat(copies)).float().mean()}
        loss = logits.new_zeros(())
        if config.targets != "none":
            cross_entropy = soft_cross_entropy(logits, batch.pick(targets).repeat(copies, 1))
            loss = loss + (weight.repeat(copies) * cross_entropy).mean()
        if config.consistency > 0 or config.entropy > 0:
            ramp = min(1.0, batch.done / config.consistency_warmup) if config.consistency_warmup else 1.0
            per_image = consistency(by_copy, weight=ramp * config.consistency, entropy_weight=ramp * config.entropy)
            trust = _radius_weight(reached, chosen.view(copies, -1), config.radius_weight)
            metrics["consistency"] = per_image.mean().detach()
            loss = loss + (trust * weight * per_image).mean()
        if utility is not None:
            margins = exclusion_margins(by_copy, sigma_e, mean_of_images=batch.mean)
            counted = levels.to(batch.device), worth.to(batch.device)
            missed = utility_loss(margins, reached, *counted, sharpness=utility.sharpness).mean()
            metrics["missed_utility"] = missed.detach()
            loss = loss + missed
        for i in range(candidates):
            metrics[f"share_{i}"] = (chosen == i).float().mean()
        return loss, metrics

    return objective


def _radius_weight(radii: Tensor, chosen: Tensor, kind: str) -> Tensor:
    """w_r for each image: radii (B, K), choices of the copies (m, B)."""
    if kind == "none":
        return torch.ones_like(radii[:, 0])
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
    diffusion: Diffusion | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Trains the variance estimator, continuing from the folder's checkpoint if there is one.

    A remark says when it begins to choose one σ nearly always, or another one so, and when that is over, with the
    shares: such a model does what the single expert there does, with more votes.

    Args:
        config: network, loss and optimisation.
        data: the labelled images.
        radii: their certified radii, shape (N, K); images that no expert certifies are left out.
        sigma_e: noise level of the estimator.
        start: a network of the same architecture (but for the last layer) whose features to begin with.
        folder: where checkpoints and metrics go.
        seed: of the initial weights, the data order, the augmentation and the noise.
        diffusion: the diffusion model in front of it, if it is there already.
        device: where the training runs.

    Raises:
        ValueError: no image is certified at any σ.
    """
    kept = np.flatnonzero(radii.max(axis=1) > 0)
    if not len(kept):
        raise ValueError(f"none of the {len(data)} labelled images is certified at any σ; train the experts longer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = config.network.build(num_classes=radii.shape[1], mean=data.mean, std=data.std)
    front: nn.Module | None = None
    if config.denoiser is not None:
        front = put_behind(
            config.denoiser,
            model if start is None else start,
            data,
            (sigma_e,),
            folder=folder / "denoiser",
            seed=seed,
            diffusion=diffusion,
            device=device,
        )[sigma_e].denoiser
    if start is not None:
        _take_features(model, start, freeze=config.frozen)
    if front is not None:
        model = Chain(front, model, sigma=sigma_e if getattr(front, "takes_sigma", False) else None)
    fit(
        model,
        variance_objective(torch.from_numpy(radii[kept]).float(), sigma_e, config),
        data.images,
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
        rows=kept,
        watch=_collapse_reporter(),
        device=device,
    )
    return model


def _take_features(model: nn.Module, start: nn.Module, *, freeze: bool) -> None:
    """Copies all weights that fit, which is all but the last layer's, and freezes them if asked.

    Raises:
        ValueError: the two are of different architectures.
    """
    *_, last = (name for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    own, theirs = (
        {n: w for n, w in net.state_dict().items() if not n.startswith(f"{last}.")} for net in (model, start)
    )
    if differing := [
        n for n in own.keys() | theirs.keys() if n not in own or n not in theirs or own[n].shape != theirs[n].shape
    ]:
        raise ValueError(
            f"the estimator cannot start from the expert's features, which differ in "
            f"{', '.join(sorted(differing)[:4])}: give both the same network"
        )
    model.load_state_dict(theirs, strict=False)
    if freeze:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(f"{last}."))


def _collapse_reporter() -> Callable[[int, Mapping[str, float]], None]:
    """Remarks on epochs as they come, but only where the σ that is chosen nearly always is another than before."""
    alone: int | None = None

    def report(epoch: int, metrics: Mapping[str, float]) -> None:
        nonlocal alone
        shares = [value for name, value in metrics.items() if name.startswith("share_")]
        before, alone = alone, next((i for i, share in enumerate(shares) if share >= _COLLAPSED), None)
        if alone == before:
            return
        listed = ", ".join(f"{share:.1%}" for share in shares)
        remark = (
            f"it no longer chooses one σ nearly always ({listed})"
            if alone is None
            else f"it chooses one σ nearly always ({listed}): a smaller consistency weight, a longer warm-up of it or "
            "a better network may help; or that σ alone is the best choice"
        )
        console.print(f"variance estimator, epoch {epoch}: {remark}", soft_wrap=True)

    return report
