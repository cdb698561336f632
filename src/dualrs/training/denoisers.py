"""Denoisers: trained to restore images, a classifier's answers to them, or both; and diffusion models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.data import ArrayDataset
from dualrs.models import Chain, NoiseSchedule, new_unet, weights_digest
from dualrs.training.batches import Batch
from dualrs.training.config import DenoiserConfig, DenoiserStage, DiffusionConfig
from dualrs.training.devices import on_device
from dualrs.training.loop import Objective, fit
from dualrs.training.losses import soft_cross_entropy

Classify = Callable[[Tensor], Tensor]
"""Denoised images (B, C, H, W) to logits (B, K), differentiable in the images."""


def denoising_objective(
    stage: DenoiserStage,
    sigmas: Sequence[float],
    classify: Classify,
    labels: Tensor,
    *,
    layers: Sequence[nn.Module] = (),
    takes_sigma: bool = False,
) -> Objective:
    """The loss of a denoiser: how far its images, and what a classifier makes of them, are from those without noise.

    With σ of δ drawn uniformly from ``sigmas`` for each image, the weighted sum of

    - mse: ``mean((D(x + δ) − x)²)``;
    - features: the mean over the layers of ``mean((f_l(D(x + δ)) − f_l(x))²) / var(f_l(x))``;
    - stability: ``T² · mean(CE(target, softmax(f(D(x + δ)) / T)))``. The target is the classifier's answer to the clean
      image, its most likely class ("hard", T = 1) or its probabilities at temperature T ("soft"), or the true class
      ("labels", T = 1).

    No gradient flows into what is aimed at.

    Args:
        stage: the weights and the kind of target. Without weight the classifier is not asked.
        sigmas: noise levels, in the units of the images.
        classify: the classifier f, which must have no trainable weights and be in eval mode.
        labels: class of every training image, shape (N,).
        layers: the layers f_l of the classifier.
        takes_sigma: whether the denoiser is called with σ.

    Source: Salman et al. 2020 (arXiv 2003.01908), eq. 3 (MSE) and eq. 4 (stability); Liao et al. 2018 (arXiv
    1712.02976), guidance by features, here relative to their variance; Hinton et al. 2015 (arXiv 1503.02531),
    temperature and T². A classifier that never saw noise is sure of its wrong answers, and at T = 1 teaches little.
    """
    levels = torch.tensor(sigmas, dtype=torch.float32)

    def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        images = batch.images
        chosen = levels.to(batch.device)[batch.integers(len(levels))]
        noise = batch.normal()
        noisy = torch.addcmul(images, noise, chosen.view(-1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
        denoised = (model(noisy, chosen) if takes_sigma else model(noisy)).float()
        error = F.mse_loss(denoised, images)
        loss, metrics = stage.mse * error, {"mse": error.detach()}
        if not stage.asks_classifier:
            return loss, metrics
        logits, found = _ask(classify, layers, denoised)
        with torch.no_grad():
            clean, wanted = _ask(classify, layers, images.contiguous(memory_format=torch.channels_last))
        for ours, theirs in zip(found, wanted, strict=True):
            loss = loss + stage.features / len(wanted) * F.mse_loss(ours, theirs) / batch.variance(theirs)
        if stage.stability > 0:
            targets = _targets(stage, clean, batch.pick(labels))
            answers = soft_cross_entropy(logits / stage.temperature, targets).mean()
            loss = loss + stage.stability * stage.temperature**2 * answers
        metrics["agreement"] = (logits.argmax(1) == clean.argmax(1)).float().mean()
        return loss, metrics

    return objective


def _ask(classify: Classify, layers: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The logits for images, and what the layers gave on the way."""
    outputs: list[Tensor] = []
    # Only for this call: a layer with a hook is one that folding leaves alone.
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[2].float())) for layer in layers]
    try:
        return classify(images).float(), outputs
    finally:
        for hook in hooks:
            hook.remove()


def _targets(stage: DenoiserStage, clean: Tensor, labels: Tensor) -> Tensor:
    """What the classifier ought to answer, as distributions (B, K), given its logits for the clean images."""
    if stage.targets == "soft":
        return (clean / stage.temperature).softmax(1)
    return F.one_hot(labels if stage.targets == "labels" else clean.argmax(1), clean.shape[1]).float()


def train_denoiser(
    config: DenoiserConfig,
    data: ArrayDataset,
    classifier: nn.Module,
    sigmas: Sequence[float],
    *,
    folder: Path,
    seed: int,
    device: str = "cpu",
) -> dict[float, Chain]:
    """Trains a denoiser for a classifier, stage after stage, continuing from the folder's checkpoints.

    Args:
        config: network and stages.
        data: the training split.
        classifier: maps images (B, C, H, W) in [0, 1] units to logits (B, K); it is left as it is, and so are the
            statistics of its normalisation.
        sigmas: noise levels of the training.
        folder: where checkpoints and metrics go, in one sub-folder per stage.
        seed: of the initial weights, the data order, the augmentation and the noise.
        device: where both run during the training.

    Returns:
        Denoiser and classifier as one base classifier for every σ; one object serves all of them if the denoiser
        is not told σ. The parts are copies, in eval mode.

    Raises:
        ValueError: the classifier has no layer of a name that the configuration gives.
    """
    frozen = copy.deepcopy(classifier).eval().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = config.network.build(channels=data.input_shape[0])
    chains = _chains(denoiser, frozen, sigmas, takes_sigma=config.network.takes_sigma)
    classify = chains[sigmas[0]].classify
    names = ", ".join(f"{sigma:g}" for sigma in sigmas)
    start: str | None = None
    for number, stage in enumerate(config.stages):
        objective = denoising_objective(
            stage,
            sigmas,
            classify,
            torch.from_numpy(data.labels),
            layers=[_layer(frozen, name) for name in stage.layers],
            takes_sigma=config.network.takes_sigma,
        )
        with on_device(frozen, device):
            fit(
                denoiser,
                objective,
                data.images,
                stage.optimization,
                folder=folder / f"stage-{number}",
                seed=seed + number,
                settings={
                    "denoiser": config.network.model_dump(mode="json"),
                    "stage": stage.model_dump(mode="json"),
                    "sigmas": list(sigmas),
                    "data": data.digest,
                    "classifier": weights_digest(frozen),
                    "start": start,
                },
                description=f"denoiser for σ={names}, stage {number + 1} of {len(config.stages)}",
                device=device,
            )
        start = weights_digest(denoiser)
    return chains


def _layer(classifier: nn.Module, name: str) -> nn.Module:
    try:
        return classifier.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in classifier.named_children())
        raise ValueError(f"this {type(classifier).__name__} has no layer {name!r}; it has {known}") from error


def _chains(
    denoiser: nn.Module, classifier: nn.Module, sigmas: Sequence[float], *, takes_sigma: bool
) -> dict[float, Chain]:
    if takes_sigma:
        return {sigma: Chain(denoiser, classifier, sigma=sigma).eval() for sigma in sigmas}
    return dict.fromkeys(sigmas, Chain(denoiser, classifier).eval())


def diffusion_objective(schedule: NoiseSchedule) -> Objective:
    """How well the noise is found: ``mean((ε − ε_θ(√ᾱ_t · x + √(1−ᾱ_t) · ε, t))²)``, x in [-1, 1], t uniform.

    The model is called like a ``diffusers.UNet2DModel``.

    Source: Ho et al. 2020 (arXiv 2006.11239), eq. 14.
    """
    left = torch.from_numpy(schedule.alphas_cumprod()).float().view(-1, 1, 1, 1)

    def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        timesteps = batch.integers(schedule.steps)
        noise, share = batch.normal(), left.to(batch.device)[timesteps]
        noisy = share.sqrt() * (2 * batch.images - 1) + (1 - share).sqrt() * noise
        estimate = model(noisy.contiguous(memory_format=torch.channels_last), timesteps, return_dict=False)[0]
        return F.mse_loss(estimate.float(), noise), {}

    return objective


def train_diffusion(
    config: DiffusionConfig, data: ArrayDataset, *, folder: Path, seed: int, device: str = "cpu"
) -> nn.Module:
    """Trains a diffusion model's network, continuing from the folder's checkpoint if there is one.

    ``Chain(OneShotDenoiser(network, config.noise_schedule, sigma), classifier)`` is then a base classifier for
    noise level σ, whatever the classifier.

    Args:
        config: network, schedule and optimisation.
        data: the training split; height and width must be multiples of four.
        folder: where checkpoints and metrics go.
        seed: of the initial weights, the data order, the augmentation, the steps and the noise.
        device: where the training runs.

    Returns:
        A ``diffusers.UNet2DModel`` in eval mode.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: images have another size.
    """
    channels, height, width = data.input_shape
    if height % 4 or width % 4:
        raise ValueError(f"height and width of the images must be multiples of 4; got {height} x {width}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = new_unet(
            {
                "in_channels": channels,
                "out_channels": channels,
                "block_out_channels": [config.width, 2 * config.width, 2 * config.width],
                "layers_per_block": config.depth,
                "down_block_types": ["DownBlock2D"] * 3,
                "up_block_types": ["UpBlock2D"] * 3,
                "norm_num_groups": 8,
                "add_attention": False,
            }
        )
    fit(
        network,
        diffusion_objective(config.noise_schedule),
        data.images,
        config.optimization,
        folder=folder,
        seed=seed,
        settings={"diffusion": config.model_dump(mode="json"), "data": data.digest},
        description="diffusion model",
        device=device,
    )
    return network
