"""The choice of a backend, how a base classifier of any kind runs best where it is to run, and of the noise."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dualrs.sampling.backends import Backend, CallableBackend, agree
from dualrs.sampling.folding import fold_batch_norms
from dualrs.sampling.lattice import LatticeNoise
from dualrs.sampling.noise import GeneratorName
from dualrs.sampling.onnx_backend import OnnxBackend, export_onnx
from dualrs.sampling.sources import FloatNoise, NoiseSource
from dualrs.sampling.torch_backend import CompiledBackend, Precision, TorchBackend, to_channels_last

Arithmetic = Literal["float", "exact"]
BackendName = Literal["auto", "torch", "compile", "onnx"]
Base = nn.Module | str | os.PathLike[str] | Callable[[Tensor], Any]
"""A base classifier: a module, the path of an ``.onnx`` file, or any callable from (B, …) to (B, K)."""

# How far logits may lie apart that differ in rounding only: 16-bit arithmetic rounds after every layer, and a compiler
# leaves some of these roundings out.
_TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}


def make_backend(
    base: Base | Backend,
    *,
    input_shape: Sequence[int],
    batch_size: int,
    backend: BackendName = "auto",
    device: str = "cpu",
    precision: Precision = "float32",
) -> Backend:
    """Chooses how to run a base classifier.

    Whatever runs another form of a module than the module itself was compared with it on one batch.

    Args:
        base: a module, the path of an ``.onnx`` file, a callable, or a backend (returned as it is).
        input_shape: of one input, without the batch dimension.
        batch_size: of the batches that will be evaluated.
        backend: how modules run. "torch" runs them eagerly, as they are whenever they are asked; all others run
            a copy of what they are now. "onnx" exports them to ONNX Runtime (CPU and float32 only), "compile" folds
            their batch normalisation and compiles them with torch.compile, and both fail where that fails. "auto"
            takes the first of these that works: on the CPU in float32 "onnx", on CUDA "compile", anywhere the
            module with folded batch normalisation, and "torch".
        device: where modules run.
        precision: the arithmetic of modules. The certificate is about the function computed in it.

    Raises:
        NotAFixedFunctionError: a module in training mode.
        TypeError, ValueError: something that is no base classifier, or cannot run as asked.
    """
    for what, given, known in (("backend", backend, BackendName), ("precision", precision, Precision)):
        if given not in get_args(known):
            raise ValueError(f"unknown {what} {given!r}; known: {', '.join(get_args(known))}")
    if isinstance(base, Backend):
        return base
    if isinstance(base, nn.Module):
        return _module_backend(
            base,
            input_shape=input_shape,
            batch_size=batch_size,
            backend=backend,
            device=device,
            precision=precision,
        )
    if not (isinstance(base, str | os.PathLike) or callable(base)):
        raise TypeError(
            f"a base classifier is a torch.nn.Module, the path of an .onnx file or a callable that maps a batch "
            f"of inputs to logits (B, K); got {type(base).__name__}"
        )
    if precision != "float32":
        raise ValueError(
            f"precision {precision!r} can be asked of a torch.nn.Module only; files and callables have their own"
        )
    if not isinstance(base, str | os.PathLike):
        return CallableBackend(base)
    if Path(base).suffix != ".onnx":
        raise ValueError(f"a base classifier given as a file must be an .onnx file; got {os.fspath(base)!r}")
    return OnnxBackend(base)


def make_noise(arithmetic: Arithmetic = "float", generator: GeneratorName = "sfc64") -> NoiseSource:
    """Chooses how noisy copies are made.

    Args:
        arithmetic: "float" adds float32 noise; "exact" draws on the grid of multiples of 1/255 with exactly the
            Gaussian's probabilities (see `dualrs.sampling.lattice`).
        generator: "sfc64", or the cryptographic "shake256".

    Raises:
        ValueError: there is no such arithmetic or generator.
    """
    if arithmetic not in get_args(Arithmetic):
        raise ValueError(f"unknown arithmetic {arithmetic!r}; known: {', '.join(get_args(Arithmetic))}")
    return FloatNoise(generator) if arithmetic == "float" else LatticeNoise(generator)


def _module_backend(
    module: nn.Module,
    *,
    input_shape: Sequence[int],
    batch_size: int,
    backend: BackendName,
    device: str,
    precision: Precision,
) -> Backend:
    if backend == "onnx" and device != "cpu":
        raise ValueError(f"the onnx backend runs on the CPU; device {device!r} needs backend='torch' or 'compile'")
    if backend == "onnx" and precision != "float32":
        raise ValueError(
            f"the onnx backend computes in float32; precision {precision!r} needs backend='torch' or 'compile'"
        )
    live = TorchBackend(module, device, precision)
    if backend == "torch":
        return live
    # Values about [0, 1] with noise on them: what the model will be asked.
    example = 0.5 + torch.randn((batch_size, *input_shape), generator=torch.Generator().manual_seed(0))
    if backend == "auto":
        ways: list[_Way] = [_folded]
        if device == "cpu" and precision == "float32":
            ways = [_exported, _folded]
        elif torch.device(device).type == "cuda":
            ways = [_compiled, _folded]
        for way in ways:
            with suppress(Exception):
                return way(module, live, example)
        return live
    way, where = (_exported, "in ONNX Runtime") if backend == "onnx" else (_compiled, "compiled")
    try:
        return way(module, live, example)
    except Exception as error:
        raise ValueError(f"this module cannot run {where}: {error}") from error


_Way = Callable[[nn.Module, TorchBackend, Tensor], Backend]
"""Makes a backend of a module, given also the backend that runs it as it is and an example; raises if it cannot."""


def _exported(module: nn.Module, live: TorchBackend, example: Tensor) -> Backend:
    exported = OnnxBackend(export_onnx(module, example), precision="float32")
    _compare(live, exported, example, "exported", _TOLERANCES["float32"])
    return exported


def _folded(module: nn.Module, live: TorchBackend, example: Tensor) -> Backend:
    folded = _folded_copy(module, live, example)
    return TorchBackend(folded, live.device, live.precision, name="torch folded")


def _folded_copy(module: nn.Module, live: TorchBackend, example: Tensor) -> nn.Module:
    folded = fold_batch_norms(module, example.to(live.device))
    to_channels_last(folded)
    # In float32 a wrong folding has nowhere to hide. In the precision asked for, the trace may have lost an autocast
    # that the module switches off for a part of itself.
    precisions: set[Precision] = {"float32", live.precision}
    for precision in precisions:
        first, second = (TorchBackend(each, live.device, precision) for each in (module, folded))
        _compare(first, second, example, "folded", _TOLERANCES[precision])
    return folded


def _compiled(module: nn.Module, live: TorchBackend, example: Tensor) -> Backend:
    try:
        private, name = _folded_copy(module, live, example), "torch folded compiled"
    except Exception:  # nothing to fold, or no way to; the compiler follows more of Python than the tracer does
        private, name = copy.deepcopy(module), "torch compiled"
        to_channels_last(private)
    compiled = CompiledBackend(private, example, live.device, live.precision, name=name)
    _compare(live, compiled, example, "compiled", _TOLERANCES[live.precision])
    return compiled


def _compare(live: Backend, other: Backend, example: Tensor, what: str, tolerance: float) -> None:
    # Copies, because a module may work in place on its input.
    expected, found = live.logits(example.clone()), other.logits(example.clone())
    if not agree(expected, found, tolerance):
        raise ValueError(
            f"the {what} model's logits differ from the module's by up to {(expected - found).abs().max()}"
        )
