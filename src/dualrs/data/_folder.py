"""Folders of images, one sub-folder a class, as ImageNet and Imagenette are laid out."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from dualrs.data._arrays import ArrayDataset
from dualrs.data._errors import DataUnavailableError
from dualrs.data._images import open_image, to_tensor
from dualrs.progress import Progress

_SPLITS = {"train": ("train",), "test": ("test", "val")}
"""The sub-folders in which the splits may be."""

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """A data set whose images stay on disk until they are asked for; made by `load_folder`.

    Args:
        root: The folder that holds one sub-folder a class.
        classes: The names of the sub-folders, sorted.
        samples: Each image file and its class.
        size: The side in pixels of every image, or None to keep each as it is.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[tuple[Path, int], ...]
    size: int | None

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"ImageFolder({self.name!r}, {len(self)} images of {len(self.classes)} classes)"

    @property
    def name(self) -> str:
        """What the data set is called: `"folder:"` and the folder's own name."""
        return f"folder:{self.root.name}"

    @cached_property
    def digest(self) -> str:
        """The hex sha256 over `size` and the path and bytes of every file; reads them all, once."""
        digest = hashlib.sha256(f"size={self.size}\n".encode())
        for path, _ in self.samples:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{content}\n".encode())
        return digest.hexdigest()

    def image(self, i: int) -> torch.Tensor:
        """Give image `i` as float32 RGB of shape (3, H, W) with values in [0, 1].

        Raises:
            ValueError: If the file is damaged or is no image.
        """
        return to_tensor(self.picture(i))

    def picture(self, i: int) -> Image.Image:
        """Give image `i` as Pillow's, in RGB; raises as `image` does."""
        image = open_image(self.samples[i][0]).convert("RGB")
        return image if self.size is None else ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)

    def label(self, i: int) -> int:
        """Give the class of image `i`, an index into `classes`."""
        return self.samples[i][1]


def load_folder(path: Path | str, *, size: int | None = None) -> ImageFolder:
    """List the images of a folder that holds one sub-folder a class; each is read when asked for.

    Classes and files are sorted by name; files that are no images by their suffix are passed over, as are
    hidden folders.

    Args:
        path: The folder, such as ImageNet's `val`.
        size: Bring every image to size × size pixels: the largest centred square, resampled (bilinear with
            anti-aliasing). None keeps each as it is.

    Raises:
        DataUnavailableError: If `path` is no folder, or one of its classes is empty, or it has none.
        ValueError: If `size` is not positive.
    """
    root = Path(path).expanduser().resolve()
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, not {size}")
    if not root.is_dir():
        raise DataUnavailableError(f"{root} is not a folder; give one that holds a sub-folder a class")
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not folders:
        raise DataUnavailableError(f"{root} holds no sub-folders; give a folder that holds one a class")
    samples: list[tuple[Path, int]] = []
    for label, folder in enumerate(folders):
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
        if not files:
            raise DataUnavailableError(f"{folder} holds no images ({', '.join(sorted(_SUFFIXES))})")
        samples.extend((file, label) for file in files)
    return ImageFolder(root, tuple(folder.name for folder in folders), tuple(samples), size)


def split_folder(path: Path | str, split: str) -> Path:
    """Find the sub-folder of `path` that holds a split: `train`, or `test` or `val`.

    Raises:
        DataUnavailableError: If there is none.
        ValueError: If there is no such split.
    """
    root = Path(path).expanduser().resolve()
    if split not in _SPLITS:
        raise ValueError(f"a folder has no split {split!r}; it has {', '.join(_SPLITS)}")
    found = [root / name for name in _SPLITS[split] if (root / name).is_dir()]
    if not found:
        raise DataUnavailableError(
            f"{root} has no sub-folder {' or '.join(_SPLITS[split])}; a training needs {root / 'train'} and "
            f"{root / 'test'} (or val), each of which holds one sub-folder a class"
        )
    return found[0]


def read_split(path: Path | str, split: str, *, size: int | None = None) -> ArrayDataset:
    """Read a split of a folder of images into memory; see `split_folder` for where it is.

    Args:
        path: The folder that holds the splits.
        split: `"train"` or `"test"`.
        size: Bring every image to size × size pixels, as `load_folder` does; None where they have one size.

    Raises:
        DataUnavailableError: If the split is not there, or holds no images.
        ValueError: If images have different sizes, or would take more than half of the machine's memory.
    """
    folder = load_folder(split_folder(path, split), size=size)
    shape = np.asarray(folder.picture(0)).shape
    needed, most = len(folder) * int(np.prod(shape)), _most_bytes()
    if needed > most:
        raise ValueError(
            f"{folder.root} holds {len(folder):,} images of {_by(shape)}, which take {needed / 2**30:,.1f} GiB of "
            f"memory; half of this machine's is {most / 2**30:,.1f} GiB: give a smaller image_size, or fewer images"
        )
    images = np.empty((len(folder), *shape), dtype=np.uint8)
    with Progress(f"reading {folder.root}", total=len(folder), unit="images") as progress:
        for i, (file, _) in enumerate(folder.samples):
            picture = np.asarray(folder.picture(i))
            if picture.shape != shape:
                raise ValueError(
                    f"{file} has {_by(picture.shape)} and {folder.samples[0][0]} has {_by(shape)}: give an image_size "
                    "that all are brought to"
                )
            images[i] = picture
            progress.advance(1)
    labels = np.array([label for _, label in folder.samples], dtype=np.int64)
    return ArrayDataset(f"folder:{folder.root.parent.name}", split, images, labels, folder.classes)


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"


def _most_bytes() -> int:
    """Half of the machine's memory."""
    if not hasattr(os, "sysconf"):
        return 8 * 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
