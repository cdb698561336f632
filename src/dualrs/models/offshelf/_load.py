"""Any classifier that users already have, by one name for where it is."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dualrs.models.normalisation import NORMALISATIONS, Normalisation, find_normalisation, scale_of_training
from dualrs.models.offshelf._checkpoints import Checkpoint, CheckpointError, read_checkpoint
from dualrs.models.offshelf._fitting import count_outputs, fit_weights, split_normalisation, without_common_prefix
from dualrs.models.offshelf._hub import fetch_from_hub
from dualrs.models.recipes import Recipe
from dualrs.models.registry import TIMM, build_network, check_network_name, classifier_names, network_constructor
from dualrs.models.remote import HttpClassifier
from dualrs.models.timm_network import Published, published
from dualrs.sampling import Base

_HUB = "hf:"
_FORMS = (
    "a file of weights (.safetensors, .pt, .pth, .th), an .onnx file, timm:NAME, hf:owner/name, "
    "package.module:function, or http://… of an endpoint that returns labels"
)


# Architectures as checkpoints by the code of Cohen et al. 2019, and of those that build on it, name them; their data.
_PUBLISHED = {
    "cifar_resnet20": ("resnet20", "cifar10"),
    "cifar_resnet110": ("resnet110", "cifar10"),
    "resnet50": (f"{TIMM}resnet50", "imagenet"),
}


@dataclass(frozen=True)
class _Wishes:
    """What the user said about a classifier, besides where it is."""

    architecture: str | None = None
    num_classes: int | None = None
    normalisation: str | tuple[Sequence[float], Sequence[float]] = "auto"
    image_size: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    entry: str | None = None

    def allow(self, what: str, *names: str) -> None:
        """Raises ValueError if anything was said but these."""
        default = _Wishes()
        said = [name for name in vars(self) if getattr(self, name) != getattr(default, name)]
        if wrong := [name for name in said if name not in names]:
            takes = f"takes {', '.join(names)} only" if names else "takes no further arguments"
            raise ValueError(f"{what} {takes}; got {', '.join(wrong)}")


def load_classifier(
    source: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    normalisation: str | tuple[Sequence[float], Sequence[float]] = "auto",
    image_size: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    entry: str | None = None,
) -> Base:
    """Loads a classifier as a base classifier for images in [0, 1], with its normalisation inside.

    No code is run from files or from the hub. A network comes back in eval mode with a recipe, so that bundles can
    hold it, and so does the path of an ``.onnx`` file; callables and endpoints work, but cannot be saved.

    Args:
        source: one of

            - a file of weights: a state dict, or a checkpoint that has one. Published checkpoints of Cohen et al.
              2019, Salman et al. 2019, Jeong & Shin 2020 and others on their code say their architecture
              (``cifar_resnet20``, ``cifar_resnet110``, ``resnet50`` for ImageNet) and need no further argument. That
              of MACER (Zhai et al. 2020) is ``architecture="resnet110"`` with ``normalisation="none"``;
            - an ``.onnx`` file;
            - "timm:NAME": a network of timm with its published weights;
            - "hf:owner/name" or "hf:owner/name@revision": a network of timm on the Hugging Face hub;
            - "package.module:function": a callable from images (B, C, H, W) to logits (B, K); imports the module;
            - the URL of an endpoint, see `dualrs.models.HttpClassifier`.
        architecture: of a file of weights, as networks are registered ("resnet20", "timm:resnet50"); None takes what
            the file says.
        num_classes: K; None takes what the weights say. An endpoint needs it.
        normalisation: of `dualrs.models.NORMALISATIONS`, or a pair (mean, std) for images in [0, 1]. "auto" takes the
            layer's own numbers if the file has them, and what timm publishes for its weights. Published smoothing
            checkpoints have none: theirs is the usual one of their data, or, if the statistics of the first BatchNorm
            show that inputs were only centred (as in Salman et al. 2019), "…-centre". For anything else it must be
            named; ``dualrs doctor`` finds out whether it was the right one.
        image_size: resize images to this inside of the network; for networks of timm. None leaves them, but for
            published weights of a network that takes one size only.
        arguments: further arguments of the architecture.
        entry: where in a checkpoint the weights are ("state_dict.0"); None looks at the usual places.

    Raises:
        CheckpointError: the weights do not fit, or it cannot be told how they are to be used.
        FileNotFoundError: there is no such file, and the name is of no other form.
        OSError: what is to be fetched cannot be had.
        TypeError: the name of a callable names something else.
        ValueError: an argument that this source does not take, or that is impossible.
    """
    name = os.fspath(source)
    wishes = _Wishes(architecture, num_classes, normalisation, image_size, arguments or {}, entry)
    path = Path(name)
    if name.startswith(("http://", "https://")):
        wishes.allow("an endpoint", "num_classes")
        if num_classes is None:
            raise ValueError(f"an endpoint does not say how many classes there are: pass num_classes for {name}")
        return HttpClassifier(name, num_classes)
    if name.startswith(TIMM):
        return _from_timm(name, wishes)
    if name.startswith(_HUB):
        return _from_hub(name, wishes)
    if path.suffix == ".onnx" and path.is_file():
        wishes.allow("an .onnx file")
        return path
    if path.is_file():
        return _from_file(path, wishes)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", name):
        wishes.allow("a Python callable")
        return _from_python(name)
    raise FileNotFoundError(f"there is no file {name}, and it names nothing else; a classifier is {_FORMS}")


def _from_timm(name: str, wishes: _Wishes) -> nn.Module:
    wishes.allow("a network of timm with published weights", "num_classes", "normalisation", "image_size", "arguments")
    purpose = published(name.removeprefix(TIMM))
    normalisation, wishes = _expected(purpose, wishes, name), _sized(purpose, wishes)
    return _build(name, purpose.num_classes, normalisation, wishes, pretrained=True).eval()


def _from_hub(name: str, wishes: _Wishes) -> nn.Module:
    wishes.allow("a network on the hub", "num_classes", "normalisation", "image_size", "arguments")
    model = fetch_from_hub(name.removeprefix(_HUB))
    normalisation = _expected(model.published, wishes, name)
    wishes = _sized(model.published, replace(wishes, arguments={**model.arguments, **wishes.arguments}))
    network = _build(f"{TIMM}{model.architecture}", model.published.num_classes, normalisation, wishes)
    return fit_weights(network, read_checkpoint(model.weights).weights, f"{TIMM}{model.architecture}", name)


def _expected(purpose: Published, wishes: _Wishes, name: str) -> Normalisation:
    """The normalisation that published weights expect, unless another was named."""
    if wishes.num_classes not in (None, purpose.num_classes):
        raise CheckpointError(
            f"{name} classifies into {purpose.num_classes} classes; num_classes is {wishes.num_classes}. To train it "
            "for other classes, name it as the network of an expert in a training, with pretrained: true"
        )
    if wishes.normalisation == "auto":
        return Normalisation(purpose.mean, purpose.std)
    return find_normalisation(wishes.normalisation, len(purpose.mean))


def _sized(purpose: Published, wishes: _Wishes) -> _Wishes:
    """With the one size of images that the network takes, unless it is built for another."""
    fixed = None if "img_size" in wishes.arguments else purpose.image_size
    return replace(wishes, image_size=wishes.image_size or fixed)


def _from_file(path: Path, wishes: _Wishes) -> nn.Module:
    checkpoint = read_checkpoint(path, wishes.entry)
    weights, layer = split_normalisation(checkpoint.weights)
    weights = without_common_prefix(weights)
    architecture = wishes.architecture or _named_in_file(checkpoint)
    if architecture in _PUBLISHED and wishes.architecture is None:
        architecture = _PUBLISHED[architecture][0]
    check_network_name(architecture)
    classes = wishes.num_classes or count_outputs(weights)
    if classes is None:
        raise CheckpointError(f"the number of classes cannot be told from {path}: pass num_classes")
    normalisation = _normalisation(wishes, checkpoint, weights, layer, architecture)
    choices = inspect.signature(network_constructor(architecture)).parameters
    arguments = {**{name: value for name, value in _seen(weights).items() if name in choices}, **wishes.arguments}
    network = _build(architecture, classes, normalisation, replace(wishes, arguments=arguments))
    return fit_weights(network, weights, f"{architecture} with num_classes={classes}", str(path))


def _named_in_file(checkpoint: Checkpoint) -> str:
    if checkpoint.arch in _PUBLISHED:
        return checkpoint.arch
    says = "does not say" if checkpoint.arch is None else f"says {checkpoint.arch!r}, which is not known here,"
    raise CheckpointError(
        f"{checkpoint.source} {says} which network its weights are for: pass architecture, such as 'resnet20', "
        f"'timm:resnet50' (torchvision's networks are in timm too), or any of {', '.join(classifier_names())}"
    )


def _seen(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of our architectures that the shapes and names of weights give away."""
    width = next((len(value) for value in weights.values() if value.ndim == 4), None)
    projects = any(f".{name}.0." in key for key in weights for name in ("downsample", "shortcut"))
    return {"shortcut": "projection" if projects else "pad", **({} if width is None else {"width": width})}


def _normalisation(
    wishes: _Wishes,
    checkpoint: Checkpoint,
    weights: Mapping[str, Tensor],
    layer: Mapping[str, Tensor],
    architecture: str,
) -> Normalisation:
    channels = next((value.shape[1] for value in weights.values() if value.ndim == 4), 3)
    if wishes.normalisation != "auto":
        return find_normalisation(wishes.normalisation, channels)
    mean = next((layer[name] for name in ("mean", "means", "mu") if name in layer), None)
    if mean is not None:
        std = next((layer[name] for name in ("std", "sds", "sigma") if name in layer), torch.ones_like(mean))
        return find_normalisation((mean.flatten().tolist(), std.flatten().tolist()), channels)
    if checkpoint.arch in _PUBLISHED:
        data = _PUBLISHED[checkpoint.arch][1]
        first = (weights.get("conv1.weight"), weights.get("bn1.running_var"))
        scale = None if first[0] is None or first[1] is None else scale_of_training(first[0], first[1])
        return NORMALISATIONS[f"{data}-centre" if scale == "centred" else data]
    raise CheckpointError(
        f"{checkpoint.source} does not say how the inputs of {architecture} were normalised in training, and a wrong "
        f"normalisation goes unnoticed: pass normalisation, one of {', '.join(NORMALISATIONS)} or (mean, std) for "
        "images in [0, 1]"
    )


def _build(
    architecture: str, classes: int, normalisation: Normalisation, wishes: _Wishes, *, pretrained: bool = False
) -> nn.Module:
    arguments: dict[str, Any] = {
        "num_classes": classes,
        "mean": list(normalisation.mean),
        "std": list(normalisation.std),
    }
    if wishes.image_size is not None:
        arguments["image_size"] = wishes.image_size
    if architecture.startswith(TIMM):
        arguments |= {"arguments": dict(wishes.arguments)} if wishes.arguments else {}
    else:
        arguments |= wishes.arguments
    try:
        with torch.random.fork_rng(devices=[]):  # building draws initial weights; nobody else's random numbers
            return build_network(Recipe(architecture, arguments), pretrained=pretrained)
    except TypeError as error:
        raise ValueError(f"{architecture} cannot be built of {arguments}: {error}") from error


def _from_python(name: str) -> Base:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be had: {error}; it must name a callable in an importable module") from error
    if isinstance(found, type) or not callable(found):
        what = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise TypeError(
            f"{name} is {what}; name something that maps images (B, C, H, W) to logits (B, K), such as a function or a "
            "torch.nn.Module in eval mode"
        )
    classifier: Base = found
    return classifier
