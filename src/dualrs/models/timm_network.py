"""Any network of timm, with normalisation and resizing inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from dualrs.models.networks import Normalize

Interpolation = Literal["bilinear", "bicubic"]

# These would make timm read files or fetch something, which rebuilding a network from a bundle must never do.
_FORBIDDEN = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")

DETERMINED = ("num_classes", "in_chans")
"""Arguments of timm that those of `TimmNetwork` determine."""


class TimmNetwork(nn.Module):
    """A network of timm for images in [0, 1], with resizing and normalisation in front of it.

    Building it fetches nothing and reads no file, unless ``pretrained`` is set.

    Args:
        name: as `timm.list_models` lists it; a tag of pretrained weights may follow ("resnet18.a1_in1k").
        num_classes: number of logits K.
        mean: per-channel mean, in [0, 1], that is subtracted; its length sets the channels.
        std: per-channel standard deviation, in the same units.
        image_size: the height and width, in pixels, that images are resized to first (antialiased); None leaves them.
        interpolation: how, "bicubic" or "bilinear".
        arguments: further arguments of timm's constructor ("img_size", "drop_rate").
        pretrained: begin with the weights that timm publishes, fetched from the Hugging Face hub.

    Raises:
        ValueError: timm has no such network, or cannot build it of these arguments.
        OSError: there are no published weights to be had.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        image_size: int | None = None,
        interpolation: Interpolation = "bicubic",
        arguments: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        check_timm_name(name)
        if interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation must be one of {get_args(Interpolation)}; got {interpolation!r}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be a positive number of pixels; got {image_size!r}")
        arguments = dict(arguments or {})
        if wrong := sorted(arguments.keys() & {*_FORBIDDEN, *DETERMINED}):
            raise ValueError(
                f"{', '.join(wrong)} cannot be among the arguments for timm: num_classes, mean and std "
                "determine the shapes, and weights are loaded by dualrs"
            )
        self._size, self._interpolation = image_size, interpolation
        self.normalize = Normalize(mean, std)
        self.body = _create(name, pretrained, {**arguments, "num_classes": num_classes, "in_chans": len(mean)})

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, C, H, W) in [0, 1] units to logits (B, K)."""
        if self._size is not None:
            x = F.interpolate(x, (self._size, self._size), mode=self._interpolation, antialias=True)
        logits: Tensor = self.body(self.normalize(x))
        return logits


def check_timm_name(name: str) -> str:
    """Returns the name if timm knows such a network; raises ValueError with near matches if it does not."""
    import timm

    if not timm.is_model(name):
        near = ", ".join(f"timm:{match}" for match in get_close_matches(name, timm.list_models(), n=3, cutoff=0.5))
        hint = f"did you mean {near}?" if near else "timm.list_models() lists them"
        raise ValueError(f"unknown network 'timm:{name}': timm has no network of this name; {hint}")
    return name


class Published(NamedTuple):
    """What timm's published weights of a network are for.

    Args:
        num_classes: K.
        mean: per channel, of the inputs that they expect, in [0, 1] units.
        std: per channel, likewise.
        image_size: height and width, if the network takes images of one size only.
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Published:
        """Reads a pretrained configuration of timm; raises ValueError naming what it lacks."""
        if missing := sorted({"num_classes", "mean", "std"} - config.keys()):
            raise ValueError(f"timm's configuration does not say {', '.join(missing)}")
        size = config["input_size"][-1] if config.get("fixed_input_size") else None
        return cls(config["num_classes"], tuple(config["mean"]), tuple(config["std"]), size)


def published(name: str) -> Published:
    """What timm's published weights of a network are for.

    Raises:
        ValueError: timm has no such network, or no weights for it.
    """
    from timm.models import get_pretrained_cfg

    config: Any = get_pretrained_cfg(check_timm_name(name), allow_unregistered=True)
    if config is None or not (config.hf_hub_id or config.url or config.file):
        raise ValueError(f"timm publishes no weights for {name!r}")
    return Published.from_config(config.to_dict())


def _create(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # each network has its own ways to refuse
        if pretrained:
            raise OSError(
                f"the published weights of 'timm:{name}' cannot be had: {error}. Fetch them where the hub can be "
                "reached, or pass a local file to dualrs.models.load_classifier"
            ) from error
        raise ValueError(f"timm cannot build {name!r} of {dict(arguments)}: {error}") from error
