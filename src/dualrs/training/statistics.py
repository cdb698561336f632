"""Statistics of a batch that several processes share, as one process with the whole batch would take them.

Everything here can be differentiated: what a process gives moves the statistics that all use, and so the losses of all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in each of them."""
    added: Tensor = _Total.apply(values)
    return added


class _Total(torch.autograd.Function):
    """As each process's values are part of what all get, their gradient is the sum of all gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        added = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(added)
        return added

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # a tensor
        return _Total.apply(gradient)


class SharedBatchNorm(TorchFunctionMode):
    """While it is entered, batch normalisation in training takes its statistics from the batches of all processes.

    So running statistics stay alike in all of them. It acts where a layer calls `torch.nn.functional.batch_norm`: no
    layer is replaced, names of weights stay as they are, and layers with a `forward` of their own (timm's) count too.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Puts the shared form in the place of the function."""
        options = kwargs or {}
        # Without running statistics it is none that a certified network could have, but a standardisation of weights.
        if func is not F.batch_norm or not options["training"] or args[1] is None:
            return func(*args, **options)
        options = {name: value for name, value in options.items() if name != "training"}
        return (_on_gpu if args[0].is_cuda else _anywhere)(*args, **options)


def _on_gpu(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """By the kernels of `torch.nn.SyncBatchNorm`."""
    from torch.nn.modules._functions import SyncBatchNorm

    group = torch.distributed.group.WORLD
    size = torch.distributed.get_world_size()
    result: Tensor = SyncBatchNorm.apply(x, weight, bias, running_mean, running_var, eps, momentum, group, size)
    return result


def _anywhere(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """By its definition, in float32; `torch.nn.SyncBatchNorm` has no kernels for CPUs."""
    channels = x.shape[1]
    over, shape = [0, *range(2, x.ndim)], (1, channels, *[1] * (x.ndim - 2))
    wide = x.float()
    sums = total(torch.cat([wide.sum(over), wide.new_full((1,), x.numel() // channels)]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = wide - mean.view(shape)
    variance = total(centred.square().sum(over)) / count
    with torch.no_grad():
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    result = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result.to(x.dtype)
