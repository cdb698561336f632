"""Inputs from bytes that nobody vouches for: image files, NumPy files, and numbers in JSON."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.data import decode_image, fit_image, to_tensor
from dualrs.models import InputSpec

_NPY = b"\x93NUMPY"


def read_input(data: bytes, spec: InputSpec, *, fit: Literal["exact", "resize"], most_pixels: int) -> Tensor:
    """Reads an image file, or a `.npy` file of numbers, as an input of the shape that a model takes.

    Args:
        data: the file's content.
        spec: what the model takes.
        fit: "exact" refuses images of another size; "resize" brings them to it, grey or colour.
        most_pixels: of an image, before it is brought to size.

    Raises:
        ValueError: the file is neither, is damaged or too large, or has another shape.
    """
    if data.startswith(_NPY):
        return _read_npy(data, spec.shape)
    image = decode_image(data, most_pixels=most_pixels)
    if fit == "resize" and len(spec.shape) == 3:
        channels, height, width = spec.shape
        image = fit_image(image, (channels, height, width))
    return _of_shape(to_tensor(image), spec.shape)


def input_of(values: Any, spec: InputSpec) -> Tensor:
    """Reads nested lists of numbers as an input of the shape that a model takes.

    Raises:
        ValueError: they are no numbers, or have another shape.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"the lists have different lengths; wanted are numbers of shape {spec.shape}") from None
    return _numbers(array, spec.shape)


def _read_npy(data: bytes, shape: tuple[int, ...]) -> Tensor:
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        promised, _, kind = header(file)
        # The header alone says what would be allocated.
        if tuple(promised) != shape or kind.hasobject or math.prod(promised) * kind.itemsize > len(data):
            raise ValueError(f"it promises {kind} of shape {tuple(promised)}")
        file.seek(0)
        return _numbers(np.load(file, allow_pickle=False), shape)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError, MemoryError) as error:
        raise ValueError(f"this is no .npy file of numbers of shape {shape}: {error}") from error


def _numbers(array: NDArray[Any], shape: tuple[int, ...]) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"wanted are numbers of shape {shape}")
    return _of_shape(torch.from_numpy(array.astype(np.float32)), shape)


def _of_shape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(x.shape) != shape:
        raise ValueError(f"the input has shape {tuple(x.shape)}; this model takes {shape}")
    return x
