"""Gradient ascent on the images of a training step, which leaves the network as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_IMAGE = (-3, -2, -1)
_TINY = 1e-12


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode, in which it will be certified, and every module back into its own mode afterwards.

    So an attack neither moves BatchNorm's running statistics nor makes an image's perturbation depend on the rest of
    its batch. Gradients are taken with respect to images only: no parameter receives one.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def l2_ascent(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    centre: Tensor,
    steps: int,
    step_size: Tensor | float,
    radius: float | None,
    box: bool,
) -> Tensor:
    """Moves images to where their loss is larger, by steps along the normalised gradient.

    The result is within ``radius`` of ``centre``, up to rounding, and with ``box`` in [0, 1]; it has no gradient. An
    image whose gradient vanishes stays.

    Args:
        loss: takes images, returns losses of any shape, each of one image only.
        start: images (..., C, H, W) to begin with.
        centre: images that ``radius`` is measured from, in [0, 1] if ``box`` is set; broadcasts with ``start``.
        steps: number of steps.
        step_size: ℓ2 length of a step, a number or one for each image (..., 1, 1, 1).
        radius: the largest ℓ2 distance from ``centre``; None: any.
        box: whether to stay in [0, 1].

    Source: projected gradient ascent as Salman et al. 2019 (arXiv 1906.04584) attack a smoothed classifier.
    """
    images = start.detach()
    for _ in range(steps):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(images).sum(), images)
        images = images.detach() + step_size * gradient / _norm(gradient).clamp_min(_TINY)
        if box:
            images = images.clamp(0, 1)
        if radius is not None:
            # Shrinking towards the centre cannot leave the box, which is convex and holds both ends.
            offset = images - centre
            images = centre + offset * (radius / _norm(offset).clamp_min(max(radius, _TINY)))
    return images


def _norm(images: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(images, dim=_IMAGE, keepdim=True)
    return norm
