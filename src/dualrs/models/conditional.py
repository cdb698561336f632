"""Networks that are told the noise level, and how such a network becomes an ordinary base classifier."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.models.networks import ResNet9
from dualrs.models.recipes import Recipe, attach_recipe, recipe_of


class ConditionalResNet9(ResNet9):
    """A `ResNet9` that is told σ: behind each block come a scale and a shift per channel, functions of log σ.

    Freshly initialised it ignores σ and computes what a `ResNet9` with its weights does, whose weights it can start
    from (``load_state_dict(…, strict=False)``). The scales and shifts are FiLM of Perez et al. 2018 (arXiv 1709.07871).

    Args:
        num_classes: number of logits K.
        width: channels of the first layer; the last has eight times as many.
        mean: per-channel mean of the clean training images, in [0, 1]; its length sets the channels.
        std: per-channel standard deviation, in the same units.
    """

    takes_sigma = True

    _HIDDEN = 64
    _SMALLEST = 1e-3  # below it σ cannot be seen in an image of 256 levels, and log σ would run away

    def __init__(self, num_classes: int, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(num_classes, width, mean, std)
        self._channels = [factor * width for factor in (1, 2, 2, 4, 8, 8)]
        self.film = nn.Sequential(
            nn.Linear(1, self._HIDDEN), nn.SiLU(), nn.Linear(self._HIDDEN, 2 * sum(self._channels))
        )
        for parameter in self.film[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:  # type: ignore[override]
        """Maps images (B, C, H, W) in [0, 1] units and their noise levels (B,) in the same units to logits (B, K)."""
        log_sigma = sigma.clamp(min=self._SMALLEST).log()
        film = self.film(log_sigma[:, None])[:, :, None, None].split(
            [2 * channels for channels in self._channels], dim=1
        )
        features = self.normalize(x)
        for block, scale_and_shift in zip(self.features, film, strict=True):
            scale, shift = scale_and_shift.chunk(2, dim=1)
            features = block(features) * (1 + scale) + shift
        pooled = F.adaptive_max_pool2d(features, 1).flatten(1)
        logits: Tensor = self.head(pooled) * self._LOGIT_SCALE
        return logits


class AtSigma(nn.Module):
    """A network that is told σ, told always the same one: an ordinary base classifier.

    Several of them may hold one network: a bundle stores its weights once.

    Args:
        network: has the attribute ``takes_sigma = True`` and maps (B, C, H, W) and σ of shape (B,) to (B, K).
        sigma: the noise level that it is told, in input units. Any is sound; the σ of the smoothing is the one to tell.

    Raises:
        TypeError: the network is not told σ.
        ValueError: σ is not positive and finite.
    """

    sigma: Tensor

    def __init__(self, network: nn.Module, sigma: float) -> None:
        super().__init__()
        if not getattr(network, "takes_sigma", False):
            raise TypeError(f"{type(network).__name__} is not told σ: it has no attribute takes_sigma = True")
        if not (isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma must be positive and finite (a standard deviation in input units); got {sigma!r}")
        self.network = network
        # An argument of the recipe, and no weight: so all σ have the same weights.
        self.register_buffer("sigma", torch.tensor([sigma], dtype=torch.float32), persistent=False)
        if (recipe := recipe_of(network)) is not None:
            attach_recipe(self, Recipe("at-sigma", {"network": recipe.as_argument(), "sigma": float(sigma)}))

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        logits: Tensor = self.network(x, self.sigma.expand(x.shape[0]))
        return logits


def at_sigma(model: nn.Module, sigma: float) -> nn.Module:
    """The base classifier at one noise level: the model itself, or, if it is to be told σ, with σ told."""
    if not getattr(model, "takes_sigma", False):
        return model
    told = AtSigma(model, sigma)
    return told if model.training else told.eval()
