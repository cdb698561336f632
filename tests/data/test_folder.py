import numpy as np
import pytest
import torch
from PIL import Image

from dualrs.data import DataUnavailableError, load_folder, open_dataset


def save(path, height, width, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "val"
    save(root / "dog" / "2.png", 5, 9)
    save(root / "dog" / "1.PNG", 6, 4, seed=1)
    save(root / "cat" / "deep" / "x.png", 4, 4, "L")
    (root / "cat" / "notes.txt").write_text("not an image")
    (root / ".cache").mkdir()
    return root


def test_classes_and_files_are_sorted(folder):
    data = load_folder(folder)
    assert data.classes == ("cat", "dog")
    assert [data.label(i) for i in range(len(data))] == [0, 1, 1]
    assert [path.name for path, _ in data.samples] == ["x.png", "1.PNG", "2.png"]
    assert data.name == "folder:val"


def test_images_keep_their_size_and_become_colour(folder):
    data = load_folder(folder)
    assert [tuple(data.image(i).shape) for i in range(3)] == [(3, 4, 4), (3, 6, 4), (3, 5, 9)]
    grey = data.image(0)
    assert grey.dtype == torch.float32
    assert torch.equal(grey[0], grey[2])
    expected = np.asarray(Image.open(folder / "dog" / "2.png")).transpose(2, 0, 1)
    assert torch.equal(data.image(2), torch.tensor(expected).float() / 255)


def test_size_gives_squares_cut_from_the_centre(folder):
    data = load_folder(folder, size=5)
    assert {tuple(data.image(i).shape) for i in range(3)} == {(3, 5, 5)}
    # The 5 × 9 image needs no resampling: its middle five columns come out as they are.
    assert torch.equal(data.image(2), load_folder(folder).image(2)[:, :, 2:7])


def test_digest_sees_content_names_and_size(folder):
    digests = {load_folder(folder).digest, load_folder(folder, size=5).digest}
    assert load_folder(folder).digest in digests
    (folder / "dog" / "2.png").rename(folder / "dog" / "3.png")
    digests.add(load_folder(folder).digest)
    save(folder / "dog" / "3.png", 5, 9, seed=3)
    digests.add(load_folder(folder).digest)
    assert len(digests) == 4


def test_open_dataset_takes_folders(folder):
    assert open_dataset(f"folder:{folder}", size=5).image(1).shape == (3, 5, 5)


def test_a_damaged_image_is_named(folder):
    (folder / "dog" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ValueError, match=r"2\.png"):
        load_folder(folder).image(2)


def test_bad_folders_are_named(folder, tmp_path):
    with pytest.raises(DataUnavailableError, match="nowhere is not a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(DataUnavailableError, match="no sub-folders"):
        load_folder(folder / "dog")
    (folder / "emu").mkdir()
    with pytest.raises(DataUnavailableError, match="emu holds no images"):
        load_folder(folder)
    with pytest.raises(ValueError, match="size must be at least 1"):
        load_folder(folder, size=0)
