import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from dualrs.models import InputSpec
from dualrs.serving.inputs import input_of, read_input

GREY, COLOUR = InputSpec((1, 6, 4)), InputSpec((3, 6, 4))


def read(data, spec=GREY, fit="exact", most_pixels=10_000):
    return read_input(data, spec, fit=fit, most_pixels=most_pixels)


def encoded(pixels, kind="PNG", **options):
    file = BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def npy(array, **options):
    file = BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def test_an_image_file_is_its_bytes_by_255():
    pixels = np.arange(24).reshape(6, 4) * 10
    for kind in ("PNG", "BMP"):
        assert torch.equal(read(encoded(pixels, kind)), torch.tensor(pixels / np.float32(255))[None].float())


def test_colours_and_lossless_webp():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3))
    for data in (encoded(pixels), encoded(pixels, "WEBP", lossless=True)):
        assert torch.equal(read(data, COLOUR), torch.tensor(pixels).permute(2, 0, 1).float() / 255)


def test_resizing_takes_the_middle_in_the_colours_of_the_model():
    wide = np.zeros((12, 40, 3))
    wide[:, 14:26] = 255  # the 8 x 12 in the middle have the model's proportions, and filters reach out a little
    for spec in (GREY, COLOUR):
        assert torch.equal(read(encoded(wide), spec, fit="resize"), torch.ones(spec.shape))


def test_numbers_in_npy_files_and_lists():
    array = np.random.default_rng(0).random((1, 6, 4))
    wanted = torch.tensor(array).float()
    assert torch.equal(read(npy(array)), wanted)
    assert torch.equal(read(npy(array.astype(">f4"))), wanted)
    assert torch.equal(input_of(array.tolist(), GREY), wanted)
    assert torch.equal(input_of(np.ones((1, 6, 4), int).tolist(), GREY), torch.ones(1, 6, 4))


@pytest.mark.parametrize(
    "values",
    [
        None,
        "text",
        1.0,
        {"a": 1},
        [],
        [[[1.0]]],
        [[1.0], [1.0, 2.0]],
        [[["a"] * 4] * 6],
        [[[None] * 4] * 6],
        [[[10**400] * 4] * 6],
        [[[True] * 4] * 6],
        [[[[1]] * 4] * 6],
    ],
)
def test_what_is_no_list_of_numbers_of_the_shape_is_refused(values):
    with pytest.raises(ValueError, match="shape"):
        input_of(values, GREY)


def test_an_image_of_another_shape_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(1, 6, 5\).*takes \(1, 6, 4\)"):
        read(encoded(np.zeros((6, 5))))
    with pytest.raises(ValueError, match=r"\(3, 6, 4\).*takes \(1, 6, 4\)"):
        read(encoded(np.zeros((6, 4, 3))))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height, *, rows=1):
    """A PNG that promises many pixels, in few bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(b"\0" * min(width + 1, 10**6) * rows, 9))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(200, 200), (20_000, 20_000), (2**31 - 1, 1), (1, 2**31 - 1)])
def test_more_pixels_than_allowed_are_never_decoded(size):
    with pytest.raises(ValueError, match=r"pixels|damaged"):
        read(bomb(*size), fit="resize")


def broken_files():
    good = encoded(np.random.default_rng(1).integers(0, 256, (6, 4)))
    jpeg = encoded(np.random.default_rng(1).integers(0, 256, (60, 40)), "JPEG")
    rng = np.random.default_rng(2)
    yield from (
        b"",
        b"\0" * 100,
        b"GIF89a",
        b"BM",
        b"\x89PNG\r\n\x1a\n",
        b"%PDF-1.4",
        b"<svg></svg>",
        b"RIFF\0\0\0\0WEBP",
    )
    yield from (good[:cut] for cut in range(0, len(good) - 1, 3))
    for source in (good, jpeg):
        for _ in range(150):
            damaged = bytearray(source)
            for _ in range(rng.integers(1, 6)):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
            yield bytes(damaged)
    array = npy(np.zeros((1, 6, 4)))
    yield from (array[:cut] for cut in range(6, len(array), 7))
    yield npy(np.array([[[object()] * 4] * 6]), allow_pickle=True)
    yield npy(np.zeros((1, 6, 4), complex))
    yield npy(np.zeros((1, 6, 4), "U2"))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    yield b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    yield b"\x93NUMPY\x01\x00" + struct.pack("<H", 5) + b"hello"
    yield b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"x"
    yield b"\x93NUMPY\x09\x09" + b"x" * 100


@pytest.mark.parametrize("fit", ["exact", "resize"])
def test_broken_files_are_errors_or_inputs_and_nothing_else(fit):
    """Some damage cannot be seen: then there are pixels, of the shape that is wanted."""
    refused = 0
    for data in broken_files():
        try:
            x = read(data, fit=fit)
        except ValueError:
            refused += 1
        else:
            assert x.shape == GREY.shape
            assert torch.isfinite(x).all()
    assert refused > 100


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "PDF", "EPS"])
def test_formats_that_nobody_needs_are_not_even_tried(kind):
    with pytest.raises(ValueError, match="PNG, JPEG"):
        read(encoded(np.zeros((64, 64)), kind), fit="resize")
