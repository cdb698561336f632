"""Image files as tensors."""

import struct
import warnings
from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from dualrs.data._files import read_npy

_CONVERSIONS = {
    "1": ("L",),
    "L": ("L",),
    "LA": ("L",),
    "P": ("RGBA", "RGB"),
    "RGB": ("RGB",),
    "RGBA": ("RGB",),
    "CMYK": ("RGB",),
    "YCbCr": ("RGB",),
}
"""From Pillow's mode to the modes to convert through; others (16-bit, float) would lose values unseen."""

_UNTRUSTED = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The formats that bytes from anywhere may have; Pillow knows many more, some of them read by old code."""

_FILTERS = Lock()
"""Python's warning filters are those of all threads."""


def read_image(path: Path | str) -> torch.Tensor:
    """Read an image file as float32 of shape (C, H, W) with values in [0, 1].

    Grey images give one channel, all others three (RGB); transparency is dropped. A `.npy` file is taken to
    hold a float array of shape (C, H, W) with values in [0, 1].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, is no image, has more than 8 bits a channel or more pixels than
            Pillow's limit against decompression bombs, or, for `.npy`, holds other than the array above.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _read_array(path)
    return to_tensor(open_image(path))


def open_image(path: Path) -> Image.Image:
    """Decode an image file to Pillow's mode `L` (grey) or `RGB`; raises as `read_image` does."""
    try:
        with _opened(path) as image:
            return _to_8_bits(image)
    except FileNotFoundError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} has too many pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def decode_image(data: bytes, *, most_pixels: int) -> Image.Image:
    """Decode the bytes of a PNG, JPEG, WebP, BMP or GIF file, which nobody vouches for, to mode `L` or `RGB`.

    No more than `most_pixels` are ever decoded, and of several pictures only the first.

    Raises:
        ValueError: If the bytes are no such file, are damaged, or have more than 8 bits a channel or too many pixels.
    """
    try:
        with _opened(BytesIO(data), _UNTRUSTED) as image:
            if image.width * image.height > most_pixels:
                raise ValueError(f"it has {image.width} x {image.height} pixels; at most {most_pixels} are read")
            return _to_8_bits(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(f"it has too many pixels; at most {most_pixels} are read") from None
    except UnidentifiedImageError:
        raise ValueError("it is none of the image files that are read: PNG, JPEG, WebP, BMP, GIF") from None
    except (OSError, SyntaxError, EOFError, struct.error, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"the image file is damaged: {type(error).__name__}") from error


def fit_image(image: Image.Image, shape: tuple[int, int, int]) -> Image.Image:
    """Bring an `L` or `RGB` image to shape (C, H, W): grey or colour, the largest part in the middle that fits."""
    channels, height, width = shape
    if channels not in (1, 3):
        raise ValueError(f"images have 1 or 3 channels; {channels} are wanted")
    return ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height), Image.Resampling.BILINEAR)


def _opened(file: Path | BytesIO, formats: tuple[str, ...] | None = None) -> Image.Image:
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=formats)


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode not in _CONVERSIONS:
        raise ValueError(f"mode {image.mode!r}; give 8 bits a channel, grey or colour")
    for mode in _CONVERSIONS[image.mode]:
        image = image.convert(mode)
    return image


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Give an `L` or `RGB` image as float32 of shape (C, H, W): byte / 255."""
    pixels = np.array(image, np.uint8).reshape(image.height, image.width, -1)
    scaled = torch.from_numpy(pixels).permute(2, 0, 1)
    return scaled.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _read_array(path: Path) -> torch.Tensor:
    try:
        array = read_npy(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .npy array: {error}") from error
    if array.dtype.kind != "f" or array.ndim != 3 or not array.size:
        raise ValueError(f"{path} must hold floats of shape (C, H, W) in [0, 1], not {array.dtype} {array.shape}")
    if not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"{path} must hold values in [0, 1], not in [{array.min()}, {array.max()}]")
    return torch.from_numpy(array.astype(np.float32))
