"""The residual networks for CIFAR of He et al. 2015, in the two forms in which published weights come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.models.networks import Normalize

DEPTHS = (20, 32, 44, 56, 110)
"""Of the networks in the paper (its table 6)."""

Shortcut = Literal["pad", "projection"]


class PadShortcut(nn.Module):
    """Halves height and width by leaving out every second pixel, and adds channels of zeros on either side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        before = (channels_out - channels_in) // 2
        self._padding = (0, 0, 0, 0, before, channels_out - channels_in - before)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels_in, H, W) to (B, channels_out, ⌈H/2⌉, ⌈W/2⌉)."""
        return F.pad(x[:, :, ::2, ::2], self._padding)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to their input or its shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 and shortcut == "pad":
            self.downsample = PadShortcut(channels_in, channels_out)
        elif stride > 1:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels_in, H, W) to (B, channels_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))


class CifarResNet(nn.Module):
    """The residual network for images of about 32 x 32 pixels of He et al. 2015 (arXiv 1512.03385, section 4.2).

    Args:
        depth: layers with weights, one of `DEPTHS`: three stages of (depth - 2) / 6 blocks.
        num_classes: number of logits K.
        mean: per-channel mean of the clean training images, in [0, 1]; its length sets the channels.
        std: per-channel standard deviation, in the same units.
        width: channels of the first stage; each further stage has twice as many.
        shortcut: "pad", without parameters, as in the paper (its option A); "projection", a 1 x 1 convolution (option
            B), as in the certified networks of Cohen et al. 2019 and those that build on their code.

    Raises:
        ValueError: there is no such depth or shortcut.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        width: int = 16,
        shortcut: Shortcut = "pad",
    ) -> None:
        super().__init__()
        if depth not in DEPTHS or shortcut not in get_args(Shortcut):
            raise ValueError(
                f"depth must be one of {DEPTHS} and shortcut one of {get_args(Shortcut)}; "
                f"got {depth!r} and {shortcut!r}"
            )
        blocks = (depth - 2) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(len(mean), width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, 1, shortcut)
        self.layer2 = _stage(blocks, width, 2 * width, 2, shortcut)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2, shortcut)
        self.head = nn.Linear(4 * width, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        out = F.relu(self.bn1(self.conv1(self.normalize(x))))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.head(out.mean(dim=(2, 3)))
        return logits


def _stage(blocks: int, channels_in: int, channels_out: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(channels_in, channels_out, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels_out, channels_out, 1, shortcut) for _ in range(blocks - 1)))
