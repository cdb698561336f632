"""One call of a diffusion model as a denoiser, off the shelf or trained here (the extra ``dualrs[diffusion]``).

A diffusion model's network was trained to find the noise in ``√ᾱ_t · x + √(1−ᾱ_t) · ε``, x in [-1, 1] and ε standard
normal. A noisy image of randomized smoothing, scaled by √ᾱ_t, is just that, for the step t whose ratio
``√(1−ᾱ_t) / √ᾱ_t`` is the noise level.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dualrs.extras import missing
from dualrs.models.recipes import Recipe, attach_recipe

ScheduleKind = Literal["linear", "scaled-linear", "cosine"]
_KINDS: Mapping[str, ScheduleKind] = {
    "linear": "linear",
    "scaled_linear": "scaled-linear",
    "squaredcos_cap_v2": "cosine",
}


@dataclass(frozen=True)
class NoiseSchedule:
    """How much of an image is left after each step of a diffusion.

    Args:
        kind: how the variance β_t that a step adds grows: "linear", "scaled-linear" (its root grows linearly), or
            "cosine" (ᾱ_t is a squared cosine).
        steps: T.
        beta_start: β of the first step; without meaning for "cosine".
        beta_end: β of the last step, likewise.

    Raises:
        ValueError: there is no such kind, or a number is out of range.

    Source: Ho et al. 2020 (arXiv 2006.11239, linear); Nichol & Dhariwal 2021 (arXiv 2102.09672, eq. 17, cosine).
    """

    kind: ScheduleKind
    steps: int
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ValueError(f"unknown schedule {self.kind!r}; known: {', '.join(get_args(ScheduleKind))}")
        if self.steps < 1 or not 0 < self.beta_start <= self.beta_end < 1:
            raise ValueError(f"a schedule has steps >= 1 and 0 < beta_start <= beta_end < 1; got {self}")

    @classmethod
    def from_scheduler(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """The schedule of a diffusers scheduler, given its configuration.

        Raises:
            ValueError: the model predicts something else than the noise, or has a schedule not known here.
        """
        predicts = config.get("prediction_type", "epsilon")
        if predicts != "epsilon":
            raise ValueError(f"the diffusion model must predict the noise (epsilon); this one predicts {predicts!r}")
        name = config.get("beta_schedule", "linear")
        special = [key for key in ("trained_betas", "rescale_betas_zero_snr") if config.get(key)]
        if name not in _KINDS or special:
            raise ValueError(
                f"the noise schedule is {name!r}{' with ' + ', '.join(special) if special else ''}; known are "
                f"{', '.join(_KINDS)}: pass a NoiseSchedule"
            )
        return cls(
            _KINDS[name],
            int(config.get("num_train_timesteps", 1000)),
            float(config.get("beta_start", 1e-4)),
            float(config.get("beta_end", 0.02)),
        )

    def alphas_cumprod(self) -> NDArray[np.float64]:
        """ᾱ_t for t = 0, …, T − 1: the share of the image's variance that is left at t, shape (T,)."""
        return np.cumprod(1.0 - self._betas(), dtype=np.float64)

    def _betas(self) -> NDArray[np.float64]:
        if self.kind == "linear":
            return np.linspace(self.beta_start, self.beta_end, self.steps)
        if self.kind == "scaled-linear":
            return np.linspace(math.sqrt(self.beta_start), math.sqrt(self.beta_end), self.steps) ** 2
        left = np.cos((np.arange(self.steps + 1) / self.steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas: NDArray[np.float64] = np.minimum(1.0 - left[1:] / left[:-1], 0.999)
        return betas

    def timestep(self, sigma: float) -> int:
        """The first t with ``√(1−ᾱ_t) / √ᾱ_t >= 2σ``, where σ is the noise level of images in [0, 1].

        Raises:
            ValueError: σ is not positive, or larger than the diffusion ever gets.

        Source: Carlini et al. 2022 (arXiv 2206.10550), Algorithm 1, with images in [-1, 1].
        """
        ratios = self._ratios()
        if not 0 < sigma <= ratios[-1] / 2:
            raise ValueError(f"this diffusion has noise levels up to σ = {ratios[-1] / 2:g}; got {sigma}")
        return int(np.argmax(ratios >= 2 * sigma))

    def ratio(self, timestep: int) -> float:
        """``√(1−ᾱ_t) / √ᾱ_t``, the noise level at t for images in [-1, 1] when these are not shrunk."""
        return float(self._ratios()[timestep])

    def _ratios(self) -> NDArray[np.float64]:
        left = self.alphas_cumprod()
        ratios: NDArray[np.float64] = np.sqrt((1.0 - left) / left)
        return ratios


IMPROVED_DIFFUSION = NoiseSchedule("cosine", 4000)
"""Of the CIFAR-10 model of Nichol & Dhariwal 2021, which Carlini et al. 2022 use."""

GUIDED_DIFFUSION = NoiseSchedule("linear", 1000)
"""Of the ImageNet models of Dhariwal & Nichol 2021 (arXiv 2105.05233), which they use too."""


class OneShotDenoiser(nn.Module):
    """Estimates clean images by one call of a diffusion model's network.

    The noise is in the image already, at exactly the σ that the certificate is about: none is added here. The step t
    belongs to a level that is σ rounded up to the next in the schedule; the rounding concerns only what the network
    is told and how much of its estimate is subtracted, never the noise that is certified against.

    Args:
        unet: the network: a ``diffusers.UNet2DModel``, or any module that is called like it, as
            ``unet(x_t, t, return_dict=False)``, and returns a tuple whose first entry is (B, C', H, W). The first C
            channels are its estimate of ε; more of them, as learned variances are, play no part.
        schedule: with which it was trained.
        sigma: the noise level σ of the images, in [0, 1] units.

    Raises:
        ValueError: σ is beyond the schedule.

    Source: Carlini et al. 2022 (arXiv 2206.10550), Algorithm 1; the estimate of x is eq. 15 of Ho et al. 2020.
    """

    takes_sigma = False

    def __init__(self, unet: nn.Module, schedule: NoiseSchedule, sigma: float) -> None:
        super().__init__()
        self.unet = unet
        self._timestep = schedule.timestep(sigma)
        self._ratio = schedule.ratio(self._timestep)
        self._scale = 1.0 / math.sqrt(1.0 + self._ratio**2)
        config = getattr(unet, "config", None)
        if type(unet).__name__ == "UNet2DModel" and config is not None:
            plain = {key: value for key, value in dict(config).items() if not key.startswith("_")}
            # As it will be read back: lists in the place of tuples.
            arguments = {"unet": json.loads(json.dumps(plain)), "schedule": asdict(schedule), "sigma": sigma}
            attach_recipe(self, Recipe("one-shot", arguments))

    @classmethod
    def from_recipe(cls, unet: Mapping[str, Any], schedule: Mapping[str, Any], sigma: float) -> OneShotDenoiser:
        """Rebuilds a denoiser with a fresh network, from the configuration of a ``UNet2DModel``."""
        return cls(new_unet(unet), NoiseSchedule(**schedule), sigma)

    def forward(self, x: Tensor) -> Tensor:
        """Maps noisy images (B, C, H, W) in [0, 1] units to clean ones in [0, 1]."""
        centred = 2.0 * x - 1.0
        estimate = self.unet(self._scale * centred, self._timestep, return_dict=False)[0]
        noise = estimate[:, : x.shape[1]]
        clean: Tensor = (centred - self._ratio * noise).clamp(-1.0, 1.0)
        return (clean + 1.0) / 2.0


def new_unet(config: Mapping[str, Any]) -> nn.Module:
    """A ``diffusers.UNet2DModel`` with fresh weights (torch's global generator), given its constructor's arguments.

    Raises:
        ImportError: diffusers is not installed.
    """
    network: nn.Module = _diffusers().UNet2DModel(**config)
    return network


def load_unet(source: str | Path) -> tuple[nn.Module, NoiseSchedule]:
    """Loads a diffusion model's network and noise schedule, as diffusers saves them.

    Args:
        source: a folder, or a name on the Hugging Face hub: of a pipeline with ``unet`` and ``scheduler`` in
            sub-folders, or with both side by side. Weights must be safetensors: nothing is unpickled.

    Raises:
        ImportError: diffusers is not installed.
        OSError: something is missing there.
        ValueError: the schedule is not known here, or the model does not predict the noise.
    """
    diffusers, where = _diffusers(), str(source)
    # Else diffusers asks for the package accelerate, aloud and at every call.
    how = {"use_safetensors": True, "low_cpu_mem_usage": False}
    try:
        unet = diffusers.UNet2DModel.from_pretrained(where, subfolder="unet", **how)
        schedule = diffusers.DDPMScheduler.load_config(where, subfolder="scheduler")
    except OSError:
        unet = diffusers.UNet2DModel.from_pretrained(where, **how)
        schedule = diffusers.DDPMScheduler.load_config(where)
    return unet.eval(), NoiseSchedule.from_scheduler(schedule)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise missing("diffusion models need diffusers", "diffusion") from error
    return diffusers
