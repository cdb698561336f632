"""A toy data set: two splits of 2 × 3 colour images, and the archives it may come in."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from dualrs.data._catalog import CATALOG, DatasetSpec, SplitSpec
from dualrs.data._layouts import Layout, Split, cifar_records, png_sheets

SHAPE = (2, 3, 3)
LAYOUTS = (
    Layout({"train": ("a.bin", "b.bin"), "test": ("t.bin",)}, cifar_records),
    Layout({"train": ("a.png", "b.png", "train.json"), "test": ("t.png", "test.json")}, png_sheets),
)


def records_of(images, labels):
    return b"".join(
        bytes([label]) + image.transpose(2, 0, 1).tobytes() for image, label in zip(images, labels, strict=True)
    )


def sheet_of(images):
    """A PNG with one image a row."""
    stream = io.BytesIO()
    rows = images.reshape(len(images), -1, images.shape[-1])
    Image.fromarray(rows).save(stream, "PNG")
    return stream.getvalue()


def tar_of(path, contents):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"some/folder/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(scope="session")
def splits():
    rng = np.random.default_rng(0)
    return {
        split: Split(rng.integers(0, 256, (size, *SHAPE), dtype=np.uint8), rng.integers(0, 4, size).astype(np.uint8))
        for split, size in (("train", 6), ("test", 4))
    }


@pytest.fixture(scope="session")
def binary_files(splits):
    (images, labels, _), (test_images, test_labels, _) = splits["train"], splits["test"]
    return {
        "a.bin": records_of(images[:3], labels[:3]),
        "b.bin": records_of(images[3:], labels[3:]),
        "t.bin": records_of(test_images, test_labels),
    }


@pytest.fixture(scope="session")
def png_files(splits):
    (images, labels, _), (test_images, test_labels, _) = splits["train"], splits["test"]
    return {
        "a.png": sheet_of(images[:3]),
        "b.png": sheet_of(images[3:]),
        "t.png": sheet_of(test_images),
        "train.json": json.dumps(labels.tolist()).encode(),
        "test.json": json.dumps(test_labels.tolist()).encode(),
    }


@pytest.fixture
def toy(splits, monkeypatch):
    """The name under which the toy data set stands in the catalogue during a test."""
    spec = DatasetSpec(
        description="a toy",
        licence="none",
        classes=("a", "b", "c", "d"),
        shape=SHAPE,
        splits={
            split: SplitSpec(
                len(arrays.labels),
                hashlib.sha256(arrays.images.tobytes()).hexdigest(),
                hashlib.sha256(arrays.labels.tobytes()).hexdigest(),
            )
            for split, arrays in splits.items()
        },
        layouts=LAYOUTS,
    )
    monkeypatch.setitem(CATALOG, "toy", spec)
    return "toy"


@pytest.fixture
def toy_archive(tmp_path, binary_files):
    return tar_of(tmp_path / "toy.tar.gz", binary_files)


@pytest.fixture
def make_tar(tmp_path):
    return lambda contents: tar_of(tmp_path / "made.tgz", contents)
