"""A denoiser and whatever else stands between the noisy input and a classifier, as one base classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.models.recipes import Recipe, attach_recipe, recipe_of
from dualrs.models.registry import build_network


class Chain(nn.Module):
    """A base classifier made of a denoiser, clipping, resizing and a classifier, in this order.

    Certificates of the chain are about noise on the images that it receives, before any of these. It can be
    saved in a bundle if all of its parts can.

    Source: denoised smoothing, Salman et al. 2020 (arXiv 2003.01908).

    Args:
        denoiser: maps noisy images (B, C, H, W) in [0, 1] units to clean ones; one with a true attribute
            ``takes_sigma`` is called with σ as its second argument. None: there is none.
        classifier: maps images to logits (B, K).
        sigma: the noise level that a denoiser is told, in [0, 1] units; no other denoiser needs it.
        clip: whether the denoised images are clipped to [0, 1], as real images are.
        size: height and width that the classifier expects, if they differ from the input's; bicubic with
            antialiasing.

    Raises:
        ValueError: the denoiser takes σ and none is given, or it or the size is not positive.
    """

    sigma: Tensor | None

    def __init__(
        self,
        denoiser: nn.Module | None,
        classifier: nn.Module,
        *,
        sigma: float | None = None,
        clip: bool = True,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier
        self._told = bool(getattr(denoiser, "takes_sigma", False))
        if self._told and sigma is None:
            raise ValueError(f"this {type(denoiser).__name__} takes σ: give the chain the sigma that it serves")
        if sigma is not None and not sigma > 0:
            raise ValueError(f"sigma must be positive; got {sigma}")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f"size must be a positive height and width; got {size}")
        self._clip, self._size = clip, None if size is None else (size[0], size[1])
        # Not saved with the weights, which may be rounded to 16 bits: the recipe has it.
        self.register_buffer("sigma", None if sigma is None else torch.tensor([sigma]), persistent=False)
        recipes = [None if part is None else recipe_of(part) for part in (denoiser, classifier)]
        if recipes[1] is not None and (denoiser is None or recipes[0] is not None):
            parts = dict(zip(("denoiser", "classifier"), (r and r.as_argument() for r in recipes), strict=True))
            options = {"sigma": sigma, "clip": clip, "size": None if size is None else list(size)}
            attach_recipe(self, Recipe("chain", {**parts, **options}))

    @classmethod
    def from_recipes(cls, denoiser: Mapping[str, Any] | None, classifier: Mapping[str, Any], **options: Any) -> Chain:
        """Rebuilds a chain whose parts are given by ``name`` and ``arguments``, as its own recipe has them."""
        return cls(
            None if denoiser is None else build_network(Recipe(**denoiser)),
            build_network(Recipe(**classifier)),
            **options,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps noisy images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        return self.classify(self.denoise(x))

    def denoise(self, x: Tensor) -> Tensor:
        """The denoiser's images for noisy ones, neither clipped nor resized."""
        if self.denoiser is None:
            return x
        denoised: Tensor = self.denoiser(x, self.sigma) if self._told else self.denoiser(x)
        return denoised

    def classify(self, denoised: Tensor) -> Tensor:
        """The logits for images that were denoised: clips, resizes and classifies."""
        if self._clip:
            denoised = denoised.clamp(0.0, 1.0)
        if self._size is not None:
            denoised = F.interpolate(denoised, self._size, mode="bicubic", antialias=True, align_corners=False)
        logits: Tensor = self.classifier(denoised)
        return logits
