"""Folders of images, one sub-folder a class, as ImageNet and Imagenette are laid out."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, ImageOps

from dualrs.data._errors import DataUnavailableError
from dualrs.data._images import open_image, to_tensor

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
        image = open_image(self.samples[i][0]).convert("RGB")
        if self.size is not None:
            image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.BILINEAR)
        return to_tensor(image)

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
