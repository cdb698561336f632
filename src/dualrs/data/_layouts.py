"""How published archives spell images and labels, as functions from file contents to arrays."""

import gzip
import io
import json
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from dualrs.data._errors import CorruptDataError, DataUnavailableError

MAX_FILE_BYTES = 1 << 28
"""No file of a known data set is larger; more is an attack on memory."""

_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    SyntaxError,
    OSError,
    EOFError,
    struct.error,
    zlib.error,
    tarfile.TarError,
    Image.DecompressionBombError,
)
"""What the standard decoders (PNG, gzip, tar, JSON) raise on bytes that are not theirs or not whole."""

Shape = tuple[int, int, int]


class Split(NamedTuple):
    """One split: `images` (N, H, W, C), `labels` (N,), and `indices` (N,) where it is a sample."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    indices: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Layout:
    """One way in which a data set is published.

    Args:
        splits: For each split, the names of the files that make it up, in the order that `decode` takes them.
        decode: From the contents of these files, and the (H, W, C) of an image, to the arrays.
    """

    splits: Mapping[str, tuple[str, ...]]
    decode: Callable[[Sequence[bytes], Shape], Split]

    @property
    def files(self) -> frozenset[str]:
        """The names of all files needed."""
        return frozenset(name for names in self.splits.values() for name in names)

    def read(self, contents: Mapping[str, bytes], shape: Shape, origin: object) -> dict[str, Split]:
        """Decode every split from `contents`, which maps file names to bytes.

        Raises:
            CorruptDataError: If a file does not decode; the message names `origin`.
        """
        splits = {}
        for split, names in self.splits.items():
            try:
                splits[split] = self.decode([contents[name] for name in names], shape)
            except _UNREADABLE as error:
                raise CorruptDataError(
                    f"{origin}: cannot decode {', '.join(names)}: {error or type(error).__name__}"
                ) from error
        return splits


def read_archive(path: Path, layouts: Sequence[Layout], shape: Shape) -> dict[str, Split]:
    """Decode the data set in a folder, a tar archive (compressed or not) or a Debian package.

    Nothing is unpacked to disk and nothing is unpickled; where the files lie inside the archive does not
    matter, only their names do.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        CorruptDataError: If the archive is damaged, or holds none of `layouts` in full.
        DataUnavailableError: If it is a Debian package and `dpkg-deb` is not installed.
    """
    wanted = frozenset[str]().union(*(layout.files for layout in layouts))
    try:
        contents = dict(_members(path, wanted))
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise CorruptDataError(
            f"{path} is not a whole tar archive, Debian package or folder: {error or type(error).__name__}"
        ) from error
    for layout in layouts:
        if layout.files <= contents.keys():
            return layout.read(contents, shape, origin=path)
    expected = "; or ".join(", ".join(sorted(layout.files)) for layout in layouts)
    found = ", ".join(sorted(contents)) or "none of these"
    raise CorruptDataError(f"{path} must hold the files {expected}; found {found}")


def _members(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for name in wanted:
            if (path / name).is_file():
                yield name, (path / name).read_bytes()
        return
    with path.open("rb") as file:
        is_debian = file.read(8) == b"!<arch>\n"
        file.seek(0)
        stream = io.BytesIO(_debian_payload(path)) if is_debian else file
        with tarfile.open(fileobj=stream, mode="r:*") as tar:
            for member in tar:
                name = Path(member.name).name
                if name in wanted and member.isfile():
                    if member.size > MAX_FILE_BYTES:
                        raise ValueError(f"{name} claims {member.size} bytes")
                    content = tar.extractfile(member)
                    if content is not None:
                        yield name, content.read()


def _debian_payload(path: Path) -> bytes:
    """The tar archive of the files that a Debian package installs."""
    try:
        unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True)
    except FileNotFoundError as error:
        raise DataUnavailableError(f"reading {path} needs the command dpkg-deb, which is missing") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(error.stderr.decode(errors="replace").strip()) from error
    return unpacked.stdout


def cifar_records(files: Sequence[bytes], shape: Shape) -> Split:
    """Decode CIFAR's binary version: records of one label byte and the image as C × H × W bytes."""
    height, width, channels = shape
    records = np.frombuffer(b"".join(files), np.uint8).reshape(-1, 1 + height * width * channels)
    images = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), records[:, 0].copy())


def png_sheets(files: Sequence[bytes], shape: Shape) -> Split:
    """Decode PNG sheets whose pixels, in reading order, are those of image after image.

    The last file is JSON: a list of labels, or an object with `labels` and `indices`.
    """
    *sheets, index = files
    pixels = [np.asarray(Image.open(io.BytesIO(sheet), formats=["PNG"])) for sheet in sheets]
    images = np.concatenate([sheet.reshape(-1, *shape) for sheet in pixels])
    listing = json.loads(index)
    if isinstance(listing, list):
        return Split(images, np.asarray(listing, np.uint8))
    return Split(images, np.asarray(listing["labels"], np.uint8), np.asarray(listing["indices"], np.int64))


def idx_pair(files: Sequence[bytes], shape: Shape) -> Split:
    """Decode gzipped idx files, as MNIST and its kin are published: images, then labels."""
    images, labels = (_idx(file) for file in files)
    return Split(images.reshape(-1, *shape), labels)


def _idx(compressed: bytes) -> npt.NDArray[np.uint8]:
    with gzip.open(io.BytesIO(compressed)) as stream:
        content = stream.read(MAX_FILE_BYTES)
    zeros, kind, rank = struct.unpack_from(">HBB", content)
    if (zeros, kind) != (0, 8):
        raise ValueError(f"an idx file of bytes starts with 00 00 08, not {content[:3].hex(' ')}")
    shape = struct.unpack_from(f">{rank}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
