import gzip
import json
import pickle
import shutil
import struct
import subprocess

import numpy as np
import pytest

from dualrs.data import CorruptDataError, DataUnavailableError, _layouts
from dualrs.data._catalog import CATALOG
from dualrs.data._layouts import Layout, idx_pair, read_archive

IDX = Layout({"test": ("images.gz", "labels.gz")}, idx_pair)


def idx(array, kind=8):
    header = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for split, arrays in expected.items():
        assert found[split].images.dtype == found[split].labels.dtype == np.uint8
        assert np.array_equal(found[split].images, arrays.images)
        assert np.array_equal(found[split].labels, arrays.labels)


@pytest.mark.parametrize("kind", ["binary_files", "png_files"])
def test_both_layouts_give_the_same_arrays(kind, toy, splits, make_tar, request):
    spec = CATALOG[toy]
    archive = make_tar(request.getfixturevalue(kind))
    assert_same(read_archive(archive, spec.layouts, spec.shape), splits)


def test_a_folder_is_an_archive(toy, splits, png_files, tmp_path):
    for name, content in png_files.items():
        (tmp_path / name).write_bytes(content)
    spec = CATALOG[toy]
    assert_same(read_archive(tmp_path, spec.layouts, spec.shape), splits)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_is_an_archive(toy, splits, binary_files, tmp_path):
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: No One <no@one.invalid>\nDescription: toy\n"
    )
    (tree / "usr" / "share").mkdir(parents=True)
    for name, content in binary_files.items():
        (tree / "usr" / "share" / name).write_bytes(content)
    package = tmp_path / "toy.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, package], check=True, capture_output=True)
    spec = CATALOG[toy]
    assert_same(read_archive(package, spec.layouts, spec.shape), splits)
    package.write_bytes(package.read_bytes()[:200])
    with pytest.raises(CorruptDataError, match=r"toy\.deb"):
        read_archive(package, spec.layouts, spec.shape)


def test_a_debian_package_needs_dpkg_deb(toy, tmp_path, monkeypatch):
    package = tmp_path / "toy.deb"
    package.write_bytes(b"!<arch>\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataUnavailableError, match="needs the command dpkg-deb"):
        read_archive(package, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_idx_files(tmp_path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "images.gz").write_bytes(idx(images))
    (tmp_path / "labels.gz").write_bytes(idx(np.array([7, 1], np.uint8)))
    split = read_archive(tmp_path, [IDX], (3, 4, 1))["test"]
    assert np.array_equal(split.images, images[..., None])
    assert split.labels.tolist() == [7, 1]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"not gzip", "Not a gzipped file"),
        (idx(np.zeros((2, 3, 4)), kind=14), "00 00 0e"),
        (idx(np.zeros((2, 3, 4), np.uint8))[:-12], "end-of-stream"),
        (gzip.compress(b"\0\0\x08\x03\0\0"), "buffer"),
        (gzip.compress(gzip.decompress(idx(np.zeros((2, 3, 4), np.uint8)))[:-1]), "reshape"),
    ],
)
def test_broken_idx_files_are_named(tmp_path, content, match):
    (tmp_path / "images.gz").write_bytes(content)
    (tmp_path / "labels.gz").write_bytes(idx(np.zeros(2, np.uint8)))
    with pytest.raises(CorruptDataError, match=rf"(?s)images\.gz.*{match}"):
        read_archive(tmp_path, [IDX], (3, 4, 1))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n and no more"),
        ("train.json", b"[1, 2, 300]"),
        ("train.json", b"[1, 2"),
        ("train.json", b"{}"),
        ("test.json", pickle.dumps([0, 0, 0, 0])),
    ],
)
def test_broken_sheets_are_named(toy, png_files, make_tar, name, content):
    archive = make_tar(png_files | {name: content})
    with pytest.raises(CorruptDataError, match=f"cannot decode .*{name}"):
        read_archive(archive, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_a_record_too_few(toy, binary_files, make_tar):
    archive = make_tar(binary_files | {"t.bin": binary_files["t.bin"][:-1]})
    with pytest.raises(CorruptDataError, match=r"t\.bin"):
        read_archive(archive, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_indices_come_with_a_sample(png_files, tmp_path):
    (tmp_path / "t.png").write_bytes(png_files["t.png"])
    (tmp_path / "i.json").write_text(json.dumps({"labels": [0, 1, 2, 3], "indices": [5, 6, 9, 70_000]}))
    layout = Layout({"test": ("t.png", "i.json")}, _layouts.png_sheets)
    split = read_archive(tmp_path, [layout], (2, 3, 3))["test"]
    assert split.labels.tolist() == [0, 1, 2, 3]
    assert split.indices.tolist() == [5, 6, 9, 70_000]


@pytest.mark.parametrize("keep", [0, 9, 200])
def test_truncated_archives_are_refused(toy, toy_archive, keep):
    toy_archive.write_bytes(toy_archive.read_bytes()[:keep])
    with pytest.raises(CorruptDataError, match=r"toy\.tar\.gz is not a whole"):
        read_archive(toy_archive, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_an_archive_of_something_else_says_what_was_wanted(toy, binary_files, make_tar):
    archive = make_tar({"a.bin": binary_files["a.bin"], "readme": b""})
    with pytest.raises(CorruptDataError, match=r"must hold the files a\.bin, .*; or a\.png.*found a\.bin$"):
        read_archive(archive, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_huge_members_are_not_read(toy, toy_archive, monkeypatch):
    monkeypatch.setattr(_layouts, "MAX_FILE_BYTES", 10)
    with pytest.raises(CorruptDataError, match=r"a\.bin claims 57 bytes"):
        read_archive(toy_archive, CATALOG[toy].layouts, CATALOG[toy].shape)


def test_a_missing_archive(toy, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "none.tgz", CATALOG[toy].layouts, CATALOG[toy].shape)
