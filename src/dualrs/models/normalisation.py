"""The usual normalisations of inputs, by name, and which of two a checkpoint was trained behind.

Published weights seldom say how their inputs were normalised, and a wrong normalisation raises no error: the network
only answers badly. So the name is asked for wherever it cannot be found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Normalisation(NamedTuple):
    """``(x - mean) / std`` per channel, for images x in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


_CIFAR10_MEAN, _IMAGENET_MEAN = (0.4914, 0.4822, 0.4465), (0.485, 0.456, 0.406)

NORMALISATIONS: dict[str, Normalisation] = {
    "cifar10": Normalisation(_CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)),
    "cifar10-centre": Normalisation(_CIFAR10_MEAN, (1.0, 1.0, 1.0)),
    "imagenet": Normalisation(_IMAGENET_MEAN, (0.229, 0.224, 0.225)),
    "imagenet-centre": Normalisation(_IMAGENET_MEAN, (1.0, 1.0, 1.0)),
    "half": Normalisation((0.5,), (0.5,)),
    "none": Normalisation((0.0,), (1.0,)),
}
"""By name: "cifar10" (its usual standard deviations are too small, but weights are trained with them) and "imagenet",
with the mean alone subtracted as "…-centre" (Salman et al. 2019); "half" maps [0, 1] to [-1, 1], "none" leaves it."""


def find_normalisation(which: str | tuple[Sequence[float], Sequence[float]], channels: int = 3) -> Normalisation:
    """A normalisation by name, or one given as ``(mean, std)``, for images of so many channels.

    Raises:
        ValueError: there is none of this name, or it is for another number of channels.
    """
    if isinstance(which, str):
        if which not in NORMALISATIONS:
            raise ValueError(
                f"unknown normalisation {which!r}; known: {', '.join(NORMALISATIONS)}, or a pair (mean, std) with one "
                "value per channel for images in [0, 1]"
            )
        mean, std = NORMALISATIONS[which]
    else:
        mean, std = (tuple(float(value) for value in values) for values in which)
    if len(mean) == len(std) == 1:
        mean, std = mean * channels, std * channels
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"the normalisation {which!r} is for {len(mean)} channels and the network takes {channels}: pass (mean, "
            "std) with one value per channel for images in [0, 1]"
        )
    return Normalisation(mean, std)


def scale_of_training(weight: Tensor, running_var: Tensor) -> Literal["divided", "centred"] | None:
    """Whether a network was trained on natural images divided by their standard deviation, or only centred.

    The variances that the first BatchNorm recorded follow from the filters w before it: w'Σw for inputs of
    covariance Σ. Of natural images Σ is known well enough (neighbouring pixels correlate at about 0.95, colours at
    about 0.9), and training noise adds a multiple of the identity. Both amplitudes are fitted: that of the images is
    near 1 if they were divided by their standard deviation, and near 1/4 if not.

    Args:
        weight: of the first convolution, shape (F, C, k, k).
        running_var: of the BatchNorm behind it, shape (F,).

    Returns:
        None where neither fits, as with weights that were never trained.
    """
    from scipy.optimize import nnls  # takes a while to import, and few need it

    filters, channels, size, _ = weight.shape
    w, variances = weight.detach().double().cpu().reshape(filters, -1), running_var.detach().double().cpu().numpy()
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).double()
    near = 0.95 ** torch.cdist(places, places)
    colours = torch.full((channels, channels), 0.9, dtype=torch.float64).fill_diagonal_(1.0)
    of_images, of_noise = ((w @ torch.kron(colours, near)) * w).sum(dim=1).numpy(), (w * w).sum(dim=1).numpy()
    if not (np.isfinite(variances).all() and (variances > 0).all()) or (variances == 1.0).all():  # or never updated
        return None
    parts = np.stack([of_images, of_noise], axis=1) / variances[:, None]  # relative: filters differ in scale
    (images, _noise), misfit = nnls(parts, np.ones(filters))
    if misfit / sqrt(filters) > _MISFIT:
        return None
    if _DIVIDED[0] < sqrt(images) < _DIVIDED[1]:
        return "divided"
    return "centred" if _CENTRED[0] < sqrt(images) < _CENTRED[1] else None


# Root mean square of the relative misfit: 0.03 to 0.5 on networks trained with noise and without.
_MISFIT = 0.7
# Amplitudes of the images; natural images in [0, 1] have a standard deviation of 0.2 to 0.28.
_DIVIDED, _CENTRED = (0.6, 2.0), (0.1, 0.4)
