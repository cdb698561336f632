"""What a backend is: something that turns a batch of noisy inputs into logits, always by the same function.

A certificate speaks of one fixed function of one input. So a module that still trains (batch statistics,
dropout) is refused, and `check_fixed_function` refuses what cannot be seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


class NotAFixedFunctionError(ValueError):
    """A base classifier whose answer to an input depends on more than that input."""


@runtime_checkable
class Backend(Protocol):
    """Evaluates a base classifier on batches.

    Attributes:
        name: what runs, for the record ("torch", "torch folded", "torch folded compiled", "torch compiled",
            "onnxruntime", "callable"). Folding and compiling change the last bits, so they are other functions.
        device: where it runs ("cpu", "cuda:0").
        batch_size: the only batch size it accepts; None for any.
    """

    name: str
    device: str
    batch_size: int | None

    def logits(self, batch: Tensor) -> Tensor:
        """Maps float32 inputs (B, …) on the CPU to logits (B, K) on the CPU."""
        ...


# No attribute of the protocol: backends written by others, without one, would no longer be recognised.
def precision_of(backend: Backend) -> str:
    """The arithmetic that a backend says it runs in, for the record; "its own" if it says nothing."""
    return str(getattr(backend, "precision", "its own"))


class CallableBackend:
    """Calls any Python function: float32 inputs (B, …) to logits (B, K), as a tensor or an array."""

    name = "callable"
    device = "cpu"
    precision = "its own"
    batch_size: int | None = None

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self._function = function

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        with torch.inference_mode():
            return as_logits(self._function(batch), len(batch))


def refuse_training_mode(module: nn.Module) -> None:
    """Raises NotAFixedFunctionError if a BatchNorm or dropout layer of the module is in training mode.

    So is a BatchNorm that keeps no running statistics: it never has others than those of the batch.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None):
            reason = "normalises by the statistics of the batch, so an answer would depend on the other inputs"
        elif isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            reason = "drops units at random, so one input would have many answers"
        else:
            continue
        state, remedy = (
            ("is in training mode", "Call .eval() on the base classifier first.")
            if layer.training
            else ("keeps no running statistics", "Give it track_running_stats=True.")
        )
        raise NotAFixedFunctionError(
            f"layer {name!r} ({type(layer).__name__}) {state}: it {reason}, and no certificate would hold for it. "
            f"{remedy}"
        )


def check_fixed_function(backend: Backend, batch: Tensor) -> Tensor:
    """Raises NotAFixedFunctionError unless inputs get the same logits again in another place among other inputs.

    Catches randomness and dependence on the rest of the batch that no flag betrays. Differences of rounding
    are let pass. The batch itself is left as it is.

    Returns:
        The batch's logits.
    """
    kept = (len(batch) + 1) // 2
    strangers = len(batch) - kept
    # NumPy, not torch: torch would split these over its own threads, which then fight with the backend's.
    rows = batch.numpy()
    moved = np.empty(rows.shape, dtype=rows.dtype)
    # Other neighbours, not the same ones in another order: a mean over the batch has no order.
    np.multiply(rows[kept:], 4, out=moved[:strangers])
    moved[:strangers] += 1
    moved[strangers:] = rows[:kept]
    # Copies, because a base classifier may work in place on its input, and a backend give its logits in memory that
    # it uses again. The batch itself comes last, so that its logits are still what they were.
    elsewhere = backend.logits(torch.from_numpy(moved))[strangers:].clone()
    logits = backend.logits(torch.from_numpy(rows.copy()))
    if not agree(logits[:kept], elsewhere):
        raise NotAFixedFunctionError(
            "the base classifier gave different logits for the same inputs among others: it is random or depends on "
            "the rest of the batch, and no certificate would hold for it"
        )
    return logits


def agree(first: Tensor, second: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether logits are equal up to rounding: to a thousandth of the largest, unless told otherwise."""
    if first.shape != second.shape:
        return False
    finite = first[first.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(first, second, rtol=0.0, atol=tolerance * max(scale, 1e-6), equal_nan=True)


def as_logits(output: Any, rows: int) -> Tensor:
    """Whatever a base classifier gave, as logits (B, K) on the CPU, in float32 at least.

    Raises:
        ValueError: no logits for so many rows.
    """
    logits = output if isinstance(output, Tensor) else torch.from_numpy(np.array(output))
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] < 2:
        raise ValueError(
            f"a base classifier maps a batch of B inputs to logits of shape (B, K), K ≥ 2; for a batch of {rows} "
            f"it gave {tuple(logits.shape)}"
        )
    logits = logits.detach().cpu()
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
