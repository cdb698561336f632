"""Objectives of experts: each method's noise, wired to its formulae in `dualrs.training.losses`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.smoothing.ascent import l2_ascent
from dualrs.training.losses import (
    bottom_k_cross_entropy,
    consistency,
    kl_divergence,
    log_mean_softmax,
    macer_hinge,
    mix_with_uniform,
    soft_cross_entropy,
)
from dualrs.training.methods.attacks import attacked
from dualrs.training.methods.sections import (
    CatRS,
    Consistency,
    Gaussian,
    Macer,
    Method,
    SmoothAdv,
    SmoothMix,
    Stability,
)

if TYPE_CHECKING:  # the loop imports the configuration, which imports the methods
    from dualrs.training.batches import Batch
    from dualrs.training.loop import Objective

_Outcome = tuple[Tensor, Mapping[str, Tensor]]
_PIXELS = (0.0, 1.0)  # the range of an image's values


def expert_objective(
    method: Method,
    labels: Tensor,
    sigmas: Sequence[float],
    *,
    label_smoothing: float = 0.0,
    shares: Tensor | None = None,
) -> Objective:
    """The objective of a training method; σ is drawn from ``sigmas`` for each image, once for all its copies.

    Attacks see the network in eval mode and leave its parameters' gradients, its modes and its buffers alone. Losses
    are computed in float32 whatever the precision of the network. The metrics hold ``accuracy``, of the noisy copies
    that the network is trained on.

    A network whose attribute ``takes_sigma`` is true is called with the noise levels of its rows, (B,), as its second
    argument; the level of a clean image is 0.

    Args:
        method: which loss, and its hyper-parameters.
        labels: class of every training image, shape (N,).
        sigmas: noise levels, in the units of the images.
        label_smoothing: share of the target spread evenly over all classes, in the cross-entropies with the label.
        shares: how likely each of ``sigmas`` is for each training image, (N, len(sigmas)); uniform if None.
    """
    levels = torch.tensor(sigmas, dtype=torch.float32)

    def objective(model: nn.Module, batch: Batch) -> _Outcome:
        drawn = batch.integers(len(levels)) if shares is None else batch.choices(shares)
        sigma = levels.to(batch.device)[drawn]
        noise = batch.normal(method.noise_vectors)
        step = _Step(model, batch, batch.pick(labels), sigma, noise, label_smoothing)
        match method:
            case Gaussian():
                loss, metrics = _gaussian(step)
            case Stability():
                loss, metrics = _stability(method, step)
            case SmoothAdv():
                loss, metrics = _smoothadv(method, step)
            case Macer():
                loss, metrics = _macer(method, step)
            case Consistency():
                loss, metrics = _consistency(method, step)
            case SmoothMix():
                loss, metrics = _smoothmix(method, step)
            case CatRS():
                loss, metrics = _catrs(method, step)
        return loss, metrics

    return objective


def gaussian_augmentation(labels: Tensor, sigmas: Sequence[float], *, label_smoothing: float = 0.0) -> Objective:
    """Cross-entropy on images with Gaussian noise; see `expert_objective` for the arguments.

    Source: Cohen et al. 2019 (arXiv 1902.02918), section 3.3; several σ as in its noise-augmented training.
    """
    return expert_objective(Gaussian(), labels, sigmas, label_smoothing=label_smoothing)


@dataclass(frozen=True)
class _Step:
    """One batch of images and its noise.

    Attributes:
        model: the network in training.
        batch: the images, and whatever randomness a method needs beyond the noise.
        labels: (B,).
        sigma: (B,), noise level of each image.
        noise: (m, B, C, H, W), of unit variance.
        label_smoothing: of the cross-entropies with the labels.
    """

    model: nn.Module
    batch: Batch
    labels: Tensor
    sigma: Tensor
    noise: Tensor
    label_smoothing: float

    @property
    def images(self) -> Tensor:
        """The images (B, C, H, W), without noise."""
        return self.batch.images

    def logits(self, images: Tensor) -> Tensor:
        """Logits (m, B, K) of the noisy copies of images, which are (B, C, H, W) or differ by copy, (m, B, C, H, W)."""
        noisy = torch.addcmul(images, self.noise, _per_image(self.sigma))
        copies = len(self.noise)
        logits = _predict(self.model, noisy.flatten(0, 1), self.sigma.repeat(copies))
        return logits.view(copies, -1, logits.shape[1])

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Mean over all copies (m, B, K) of the cross-entropy with the labels."""
        labels = self.labels.repeat(len(logits))
        return F.cross_entropy(logits.flatten(0, 1), labels, label_smoothing=self.label_smoothing)

    def smoothed_loss(self, images: Tensor) -> Tensor:
        """What attacks on the soft smoothed classifier ascend: its cross-entropy (B,) with the labels."""
        return F.cross_entropy(log_mean_softmax(self.logits(images)), self.labels, reduction="none")

    def warmth(self, warmup: float) -> float:
        """A factor that grows linearly from 0 to 1 in a share of the training."""
        return min(1.0, self.batch.done / warmup) if warmup else 1.0

    def accuracy(self, logits: Tensor) -> Tensor:
        """Share of the copies (m, B, K) that are classified correctly."""
        return (logits.argmax(dim=2) == self.labels).float().mean()


def _gaussian(step: _Step) -> _Outcome:
    logits = step.logits(step.images)
    return step.cross_entropy(logits), {"accuracy": step.accuracy(logits)}


def _stability(method: Stability, step: _Step) -> _Outcome:
    clean = _predict(step.model, step.images, torch.zeros_like(step.sigma))
    logits = step.logits(step.images)
    stability = soft_cross_entropy(logits[0], clean.softmax(dim=1)).mean()
    loss = step.cross_entropy(clean.unsqueeze(0)) + method.weight * stability
    return loss, {"accuracy": step.accuracy(logits), "stability": stability.detach()}


def _smoothadv(method: SmoothAdv, step: _Step) -> _Outcome:
    epsilon = method.epsilon * step.warmth(method.warmup)
    with attacked(step.model):
        adversarial = l2_ascent(
            step.smoothed_loss,
            step.images,
            centre=step.images,
            steps=method.steps,
            step_size=2 * epsilon / method.steps,
            radius=epsilon,
            box=_PIXELS,
        )
    # The same draws as in the attack: they are what the image is adversarial to.
    logits = step.logits(adversarial)
    return step.cross_entropy(logits), {"accuracy": step.accuracy(logits)}


def _macer(method: Macer, step: _Step) -> _Outcome:
    logits = step.logits(step.images)
    natural = F.cross_entropy(log_mean_softmax(logits), step.labels, label_smoothing=step.label_smoothing)
    robustness = macer_hinge(logits, step.labels, step.sigma, beta=method.beta, gamma=method.gamma).mean()
    loss = natural + (method.weight if step.batch.done >= method.deferred else 0.0) * robustness
    return loss, {"accuracy": step.accuracy(logits), "robustness": robustness.detach()}


def _consistency(method: Consistency, step: _Step) -> _Outcome:
    logits = step.logits(step.images)
    regulariser = consistency(logits, weight=method.weight, entropy_weight=method.entropy).mean()
    loss = step.cross_entropy(logits) + regulariser
    return loss, {"accuracy": step.accuracy(logits), "consistency": regulariser.detach()}


def _smoothmix(method: SmoothMix, step: _Step) -> _Outcome:
    ascend = partial(
        l2_ascent,
        step.smoothed_loss,
        centre=step.images,
        step_size=method.step_size * _per_image(step.sigma),
        radius=method.max_norm,
        box=_PIXELS,
    )
    warmth = step.warmth(method.warmup)
    with attacked(step.model):
        first = ascend(step.images, steps=1) if method.one_step else step.images
        far = ascend(first, steps=method.steps - method.one_step)
    near = torch.lerp(step.images, first, warmth)
    logits = step.logits(near)
    log_p = log_mean_softmax(logits)
    # λ ends at one half, where the mixed image is as far from the clean one as from the adversarial one.
    share = step.batch.uniform() / 2
    mixed = torch.lerp(near, far, _per_image(share))
    divergence = kl_divergence(mix_with_uniform(log_p, share), step.logits(mixed)).mean(dim=0)
    right = log_p.argmax(dim=1) == step.labels
    mixing = (right * divergence).mean()
    loss = step.cross_entropy(logits) + warmth * method.weight * mixing
    return loss, {"accuracy": step.accuracy(logits), "mixing": mixing.detach()}


def _catrs(method: CatRS, step: _Step) -> _Outcome:
    logits = step.logits(step.images)
    copies = len(logits)
    confidence = (logits.argmax(dim=2) == step.labels).float().mean(dim=0)
    # K ~ Bin(m, confidence), but at least one copy of every image counts.
    kept = (step.batch.uniform(copies) < confidence).sum(dim=0).clamp_min(1)
    low = bottom_k_cross_entropy(logits, step.labels, kept, label_smoothing=step.label_smoothing)
    # The target has no gradient: copies are pulled to the prediction, never the prediction to its worst copy.
    target = log_mean_softmax(logits).detach()
    with attacked(step.model):
        worst = l2_ascent(
            lambda images: kl_divergence(target, step.logits(images)),
            step.images.expand(copies, -1, -1, -1, -1),
            centre=step.images,
            steps=method.steps,
            step_size=2 * method.epsilon / method.steps,
            radius=method.epsilon,
            box=None,  # it is the noise that is perturbed, and noisy images leave the box anyway
        )
    high = kl_divergence(target, step.logits(worst)).amax(dim=0) * (kept == copies)
    loss = (low + method.weight * high).mean()
    return loss, {"accuracy": step.accuracy(logits), "worst_case": high.mean().detach()}


def _predict(model: nn.Module, images: Tensor, sigma: Tensor) -> Tensor:
    """Logits (B, K) in float32 of noisy images, whose levels a network that asks for them is told."""
    images = images.contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(images, sigma) if getattr(model, "takes_sigma", False) else model(images)
    return logits.float()


def _per_image(values: Tensor) -> Tensor:
    """Values (B,) in a shape that broadcasts over images (..., B, C, H, W)."""
    return values.view(-1, 1, 1, 1)
