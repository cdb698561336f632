"""Torch backends: modules in eager mode or compiled, in an arithmetic that is what it says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dualrs.sampling.backends import as_logits, refuse_training_mode

Precision = Literal["float32", "bfloat16", "float16"]
"""The arithmetic of a torch backend: IEEE float32 throughout, or autocast to 16 bits."""


class TorchBackend:
    """Runs a module as it is, in eager mode.

    Args:
        module: in eval mode; images run in channels-last layout, which leaves its values unchanged.
        device: any torch device.
        precision: "float32" turns TF32 off, and any autocast of the caller; the others run the module under
            torch.autocast, which leaves the weights, the input and whatever needs its range in float32.
        name: for the record; "torch" says that the module is its owner's, any other that it is a copy.

    Raises:
        NotAFixedFunctionError: a BatchNorm or dropout layer is in training mode, here or when logits are asked for.
    """

    def __init__(
        self, module: nn.Module, device: str = "cpu", precision: Precision = "float32", *, name: str = "torch"
    ) -> None:
        refuse_training_mode(module)
        self.name, self.device, self.precision = name, device, precision
        self.batch_size: int | None = None
        self._module = module.to(device)
        self._run: Any = self._module

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        refuse_training_mode(self._module)  # the module is shared with its owner, who may train on
        rows = len(batch)
        batch = batch.to(self.device, non_blocking=True)  # what reads the logits waits for all
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), _arithmetic(batch.device.type, self.precision):
            return as_logits(self._run(batch), rows)


class CompiledBackend(TorchBackend):
    """Runs a module compiled by torch.compile, once and as a whole, for batches of one shape.

    Args:
        module: in eval mode, and private: it must not change any more.
        example: a batch of that shape.
        device: any torch device that torch.compile knows.
        precision: as for `TorchBackend`.
        name: for the record.

    Raises:
        ValueError: the module cannot be compiled, or not here (no C++ compiler).
    """

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        device: str = "cpu",
        precision: Precision = "float32",
        *,
        name: str = "torch compiled",
    ) -> None:
        super().__init__(module, device, precision, name=name)
        self.batch_size = len(example)
        self._shape = example.shape
        # In one graph, or not at all: beyond a limit of its own torch silently runs the rest uncompiled.
        self._run = torch.compile(_with_own_code(self._module), dynamic=False, fullgraph=True)
        try:
            with _no_warnings():  # the compiler warns about its own internals
                self.logits(example.clone())
        except Exception as error:  # the compiler's own errors share no base class but this
            reason = str(error).strip().partition("\n\n")[0]
            raise ValueError(f"torch.compile failed: {reason or type(error).__name__}") from error

    def logits(self, batch: Tensor) -> Tensor:
        """See `Backend.logits`."""
        if batch.shape != self._shape:  # another shape would be compiled anew, and rounded differently
            raise ValueError(f"this backend was compiled for batches of {tuple(self._shape)}; got {tuple(batch.shape)}")
        return super().logits(batch)


def _with_own_code(module: nn.Module) -> Callable[[Tensor], Any]:
    """A function that calls the module, and whose code no other function has."""

    def call(batch: Tensor) -> Any:
        return module(batch)

    # Torch counts compilations by code object, and refuses after a few: all modules of a class have one forward.
    call.__code__ = call.__code__.replace()
    return call


def to_channels_last(module: nn.Module) -> None:
    """Lays the weights of 2-d convolutions out as their inputs will be; values stay as they are."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def _arithmetic(device_type: str, precision: Precision) -> Iterator[None]:
    if precision == "float32":
        with _ieee_float32(), torch.autocast(device_type, enabled=False):
            yield
    else:
        with torch.autocast(device_type, getattr(torch, precision)):
            yield


@contextmanager
def _ieee_float32() -> Iterator[None]:
    """No TF32 and no bfloat16 in the place of float32 meanwhile, wherever the caller allowed them."""
    saved = []
    with _no_warnings():  # from releases of torch that want only the newer settings used
        for read, write, exact in _SETTINGS:
            # The caller may have set newer settings that contradict an older one; then torch refuses to read that.
            with suppress(RuntimeError):
                saved.append((write, exact, read()))
        for write, exact, _ in saved:
            write(exact)
    try:
        yield
    finally:
        with _no_warnings():
            for write, _, before in saved:
                write(before)


def _settings() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None], Any]]:
    """What decides on the arithmetic: how it is read, how it is written, and its exact value."""
    backends: Any = torch.backends
    # The older settings first: writing them changes the newer ones. Both, because newer settings alone would contradict
    # the older ones, and reading these would be an error in whatever does it: the compiler, or the module itself.
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
    yield partial(getattr, backends.cudnn, "allow_tf32"), partial(setattr, backends.cudnn, "allow_tf32"), False
    for library, operations in ((backends.cuda, ["matmul"]), (backends.cudnn, _NEWER), (backends.mkldnn, _NEWER)):
        for operation in operations:
            setting = getattr(library, operation, None)
            if hasattr(setting, "fp32_precision"):
                yield partial(getattr, setting, "fp32_precision"), partial(setattr, setting, "fp32_precision"), "ieee"


_NEWER = ("conv", "rnn", "matmul")  # since torch 2.9
_SETTINGS = tuple(_settings())


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
