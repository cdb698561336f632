import numpy as np
import pytest
import torch
from PIL import Image

from dualrs.data import read_image


def save(path, mode, height=3, width=4):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.reshape(height, width, -1)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3)])
def test_values_are_bytes_over_255_and_alpha_is_dropped(tmp_path, mode, channels):
    pixels = save(tmp_path / "image.png", mode)
    image = read_image(tmp_path / "image.png")
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor(pixels[..., :channels].transpose(2, 0, 1)).float() / 255)


def test_palettes_become_colour(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 255, 0, 51])
    image.save(tmp_path / "image.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "image.png")[:, 0, 0].tolist() == pytest.approx([1, 0, 0.2])


def test_jpeg_and_bilevel_images(tmp_path):
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "white.jpg")
    assert read_image(str(tmp_path / "white.jpg")).min() > 0.98
    Image.new("1", (4, 3), 1).save(tmp_path / "white.png")
    assert torch.equal(read_image(tmp_path / "white.png"), torch.ones(1, 3, 4))


def test_sixteen_bits_are_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((3, 3), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png .*8 bits a channel"):
        read_image(tmp_path / "deep.png")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_damaged_images_are_named(tmp_path, keep):
    path = tmp_path / "image.png"
    save(path, "RGB", 20, 20)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"image\.png cannot be read"):
        read_image(path)


@pytest.mark.parametrize("limit", [10, 4])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    """Twelve pixels are above the first limit (Pillow warns) and above twice the second (it raises)."""
    save(tmp_path / "bomb.png", "L")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"bomb\.png has too many pixels"):
        read_image(tmp_path / "bomb.png")


def test_a_missing_file(tmp_path):
    for name in ("no.png", "no.npy"):
        with pytest.raises(FileNotFoundError):
            read_image(tmp_path / name)


def test_float_arrays(tmp_path):
    array = np.random.default_rng(0).random((3, 4, 5))
    np.save(tmp_path / "image.npy", array)
    image = read_image(tmp_path / "image.npy")
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor(array).float())


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((3, 4, 5), np.uint8), "uint8"),
        (np.zeros((4, 5)), r"\(4, 5\)"),
        (np.zeros((3, 0, 5)), r"\(3, 0, 5\)"),
        (np.full((1, 2, 2), 1.5), r"\[1\.5, 1\.5\]"),
        (np.full((1, 2, 2), np.nan), "nan"),
        (np.array([None]), "Python objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, match):
    np.save(tmp_path / "image.npy", array)
    with pytest.raises(ValueError, match=rf"image\.npy .*{match}"):
        read_image(tmp_path / "image.npy")
