"""Small residual networks, built by name, with input normalisation inside.

Certified radii are measured in the units of the tensor that receives the noise, so everything that
rescales an image has to happen behind the noise: each network here takes images in [0, 1] (noisy ones
leave that range) and normalises them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normalize(nn.Module):
    """Shifts and scales each channel: ``(x - mean) / std``, with statistics in the units of the input."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or any(s <= 0 for s in std):
            raise ValueError(f"mean and std need one entry per channel and std > 0; got {mean=} and {std=}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises a batch of shape (B, C, H, W)."""
        return (x - self.mean) / self.std


class ConvBlock(nn.Sequential):
    """3 x 3 convolution, batch normalisation, ReLU, and optionally a 2 x 2 max-pool."""

    def __init__(self, channels_in: int, channels_out: int, *, pool: bool = False) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pool else []))


class Residual(nn.Module):
    """Adds the output of two convolution blocks to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ConvBlock(channels, channels), ConvBlock(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to the same shape."""
        out: Tensor = x + self.blocks(x)
        return out


class ResNet9(nn.Module):
    """A nine-layer residual network for images of about 32 x 32 pixels.

    Args:
        num_classes: number of logits K.
        width: channels of the first layer; the last has eight times as many.
        mean: per-channel mean of the clean training images, in [0, 1]; its length sets the channels.
        std: per-channel standard deviation, in the same units.
    """

    # The maxima over a feature map are large at initialisation; unscaled, the first updates diverge.
    _LOGIT_SCALE = 0.125

    def __init__(self, num_classes: int, width: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.features = nn.Sequential(
            ConvBlock(len(mean), width),
            ConvBlock(width, 2 * width, pool=True),
            Residual(2 * width),
            ConvBlock(2 * width, 4 * width, pool=True),
            ConvBlock(4 * width, 8 * width, pool=True),
            Residual(8 * width),
        )
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        features = self.features(self.normalize(x))
        pooled = F.adaptive_max_pool2d(features, 1).flatten(1)
        logits: Tensor = self.head(pooled) * self._LOGIT_SCALE
        return logits


class SmallConvNet(nn.Module):
    """Strided convolutions, then linear layers, with ReLU between them and nothing that normalises inside.

    With its defaults, the small network of Wong et al. 2018 (arXiv 1805.12514), whose robust weights are published.

    Args:
        num_classes: number of logits K.
        mean: per-channel mean of the clean training images, in [0, 1]; its length sets the channels.
        std: per-channel standard deviation, in the same units.
        image_size: height and width of the images, in pixels.
        channels: of each convolution, 4 x 4 with stride 2 and padding 1; each halves the image.
        hidden: units of each linear layer before the last.
    """

    def __init__(
        self,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        image_size: int = 32,
        channels: Sequence[int] = (16, 32),
        hidden: Sequence[int] = (100,),
    ) -> None:
        super().__init__()
        side = image_size >> len(channels)
        if side < 1:
            raise ValueError(f"{len(channels)} halvings leave nothing of images of {image_size} pixels")
        self.normalize = Normalize(mean, std)
        layers: list[nn.Module] = []
        for before, after in pairwise((len(mean), *channels)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()]
        layers.append(nn.Flatten())
        sizes = (channels[-1] * side * side, *hidden, num_classes)
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])  # logits are not clipped

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        logits: Tensor = self.body(self.normalize(x))
        return logits
