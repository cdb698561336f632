"""Inference backends: everything that turns a batch of noisy inputs into logits, behind one interface.

A certificate speaks of one fixed function of one input. So a module that still trains (batch statistics,
dropout) is refused, and `check_fixed_function` refuses what cannot be seen from outside.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

BackendName = Literal["auto", "torch", "onnx"]
Base = nn.Module | str | os.PathLike[str] | Callable[[Tensor], Any]
"""A base classifier: a module, the path of an ``.onnx`` file, or any callable from (B, …) to (B, K)."""


class NotAFixedFunctionError(ValueError):
    """A base classifier whose answer to an input depends on more than that input."""


@runtime_checkable
class Backend(Protocol):
    """Evaluates a base classifier on batches.

    Attributes:
        name: what runs, for the record ("torch", "onnxruntime", "callable").
        device: where it runs ("cpu", "cuda:0").
        batch_size: the only batch size it accepts; None for any.
    """

    name: str
    device: str
    batch_size: int | None

    def logits(self, batch: Tensor) -> Tensor:
        """Maps float32 inputs (B, …) on the CPU to logits (B, K) on the CPU."""
        ...


class TorchBackend:
    """Runs a module as it is, in eager mode.

    Args:
        module: in eval mode; images run in channels-last layout, which leaves its values unchanged.
        device: any torch device.

    Raises:
        NotAFixedFunctionError: a BatchNorm or dropout layer is in training mode, here or when logits are asked for.
    """

    name = "torch"
    batch_size: int | None = None

    def __init__(self, module: nn.Module, device: str = "cpu") -> None:
        refuse_training_mode(module)
        self.device = device
        self._module = module.to(device)

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        refuse_training_mode(self._module)  # the module is shared with its owner, who may train on
        rows = len(batch)
        batch = batch.to(self.device)
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return _as_logits(self._module(batch), rows)


class OnnxBackend:
    """Runs an ONNX model with ONNX Runtime on the CPU.

    Args:
        model: the path of an ``.onnx`` file, or its content. It must have one input, float32, whose first
            dimension is the batch, and its first output must be the logits.

    Raises:
        ValueError: the file is no such model.
        FileNotFoundError: there is no such file.
    """

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, model: str | os.PathLike[str] | bytes) -> None:
        self._what = what = "the given bytes" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise FileNotFoundError(f"there is no file {what}")
        # A path, not the file's content: large models keep their weights in a second file beside the first.
        source = model if isinstance(model, bytes) else what
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no base class but this
            raise ValueError(f"{what} is not a model that ONNX Runtime can load: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise ValueError(
                f"{what}: a base classifier has one float32 input; this model has "
                f"{[(node.name, node.type) for node in inputs]}"
            )
        self._input, self._output = inputs[0].name, self._session.get_outputs()[0].name
        # What is no integer is a dimension of any size.
        self._shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self.batch_size: int | None = self._shape[0] if self._shape else None

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        if len(self._shape) != batch.ndim or any(
            size not in (None, given) for size, given in zip(self._shape, batch.shape, strict=True)
        ):
            expected = ", ".join("any" if size is None else str(size) for size in self._shape)
            raise ValueError(f"{self._what} takes batches of shape ({expected}); got {tuple(batch.shape)}")
        return _as_logits(self._session.run([self._output], {self._input: batch.numpy()})[0], len(batch))


class CallableBackend:
    """Calls any Python function: float32 inputs (B, …) to logits (B, K), as a tensor or an array."""

    name = "callable"
    device = "cpu"
    batch_size: int | None = None

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        self._function = function

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        with torch.inference_mode():
            return _as_logits(self._function(batch), len(batch))


def make_backend(
    base: Base | Backend,
    *,
    input_shape: Sequence[int],
    batch_size: int,
    backend: BackendName = "auto",
    device: str = "cpu",
) -> Backend:
    """Chooses how to run a base classifier.

    Args:
        base: a module, the path of an ``.onnx`` file, a callable, or a backend (returned as it is).
        input_shape: of one input, without the batch dimension.
        batch_size: of the batches that will be evaluated.
        backend: how modules run. "torch" runs them eagerly; "onnx" exports them to ONNX Runtime (CPU only) as
            they are now and fails where that fails; "auto" does so on the CPU where the export succeeds and
            agrees with the module.
        device: where modules run.

    Raises:
        NotAFixedFunctionError: a module in training mode.
        TypeError, ValueError: something that is no base classifier, or cannot run as asked.
    """
    if backend not in get_args(BackendName):
        raise ValueError(f"unknown backend {backend!r}; known: {', '.join(get_args(BackendName))}")
    if isinstance(base, Backend):
        return base
    if isinstance(base, nn.Module):
        return _module_backend(base, input_shape, batch_size, backend, device)
    if isinstance(base, str | os.PathLike):
        if Path(base).suffix != ".onnx":
            raise ValueError(f"a base classifier given as a file must be an .onnx file; got {os.fspath(base)!r}")
        return OnnxBackend(base)
    if callable(base):
        return CallableBackend(base)
    raise TypeError(
        f"a base classifier is a torch.nn.Module, the path of an .onnx file or a callable that maps a batch "
        f"of inputs to logits (B, K); got {type(base).__name__}"
    )


def _module_backend(
    module: nn.Module, input_shape: Sequence[int], batch_size: int, backend: BackendName, device: str
) -> Backend:
    eager = TorchBackend(module, device)
    if backend == "torch" or device != "cpu":
        if backend == "onnx":
            raise ValueError(f"the onnx backend runs on the CPU; device {device!r} needs backend='torch'")
        return eager
    # Values about [0, 1] with noise on them: what the model will be asked.
    example = 0.5 + torch.randn((batch_size, *input_shape), generator=torch.Generator().manual_seed(0))
    try:
        exported = OnnxBackend(export_onnx(module, example))
        expected, found = eager.logits(example), exported.logits(example)
        if not _close(expected, found):
            raise ValueError(
                f"the exported model's logits differ from the module's by up to {(expected - found).abs().max()}"
            )
    except Exception as error:
        if backend == "onnx":
            raise ValueError(f"this module cannot run in ONNX Runtime: {error}") from error
        return eager
    return exported


def export_onnx(module: nn.Module, example: Tensor) -> bytes:
    """The module as an ONNX model that takes batches of exactly the example's shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            module, (example,), input_names=["input"], output_names=["logits"], dynamo=True, verbose=False
        )
    if program is None:
        raise ValueError("torch.onnx.export returned no model")
    content: bytes = program.model_proto.SerializeToString()
    return content


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


def check_fixed_function(backend: Backend, batch: Tensor) -> None:
    """Raises NotAFixedFunctionError unless inputs get the same logits again in another place among other inputs.

    Catches randomness and dependence on the rest of the batch that no flag betrays. Differences of rounding
    are let pass. The batch itself is left as it is.
    """
    kept = (len(batch) + 1) // 2
    # Other neighbours, not the same ones in another order: a mean over the batch has no order.
    strangers = 4 * batch[kept:] + 1
    first = backend.logits(batch.clone())[:kept]
    second = backend.logits(torch.cat([strangers, batch[:kept]]))[len(strangers) :]
    if not _close(first, second):
        raise NotAFixedFunctionError(
            "the base classifier gave different logits for the same inputs among others: it is random or depends on "
            "the rest of the batch, and no certificate would hold for it"
        )


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    finite = first[first.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(first, second, rtol=0.0, atol=1e-3 * max(scale, 1e-6), equal_nan=True)


def _as_logits(output: Any, rows: int) -> Tensor:
    logits = output if isinstance(output, Tensor) else torch.from_numpy(np.array(output))
    if logits.ndim != 2 or len(logits) != rows or logits.shape[1] < 2:
        raise ValueError(
            f"a base classifier maps a batch of B inputs to logits of shape (B, K), K ≥ 2; for a batch of {rows} "
            f"it gave {tuple(logits.shape)}"
        )
    return logits.detach().cpu()
