import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dualrs.data import (
    CorruptDataError,
    DataUnavailableError,
    _store,
    available,
    data_root,
    fetch,
    load,
    open_dataset,
)
from dualrs.data._catalog import CATALOG


class Given:
    """A source that has an archive, or raises."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.folders = []

    def __str__(self):
        return f"source {id(self)}"

    def obtain(self, into, progress):
        self.folders.append(into)
        (into / "left over.part").touch()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_fetched_can_be_loaded(toy, toy_archive, root, splits):
    folder = fetch(toy, root=root, archive=toy_archive)
    assert folder == root / "toy"
    assert files(folder) == ["test-images.npy", "test-labels.npy", "train-images.npy", "train-labels.npy"]
    for split, expected in splits.items():
        data = load(toy, split, root=root)
        assert (data.name, data.split, data.classes) == (toy, split, ("a", "b", "c", "d"))
        assert np.array_equal(data.images, expected.images)
        assert np.array_equal(data.labels, expected.labels)
        assert data.labels.dtype == np.int64
        assert data.indices is None
    assert len(open_dataset(toy, root=root)) == 4


def test_the_first_source_that_works_is_used(toy, toy_archive, root):
    bad = Given(DataUnavailableError("no route"))
    good, unused = Given(toy_archive), Given(toy_archive)
    steps = []
    fetch(toy, root=root, sources=[bad, good, unused], progress=lambda what, share: steps.append(what))
    assert len(load(toy, root=root)) == 4
    assert steps == ["reading toy.tar.gz"]
    assert not unused.folders
    assert not any(folder.exists() for folder in bad.folders + good.folders)


def test_a_source_with_other_data_is_passed_over(toy, toy_archive, root, make_tar, binary_files):
    flipped = bytes([binary_files["t.bin"][0], binary_files["t.bin"][1] ^ 1]) + binary_files["t.bin"][2:]
    other = make_tar(binary_files | {"t.bin": flipped})
    with pytest.raises(CorruptDataError, match=r"test images must have sha256 .*, not ") as caught:
        fetch(toy, root=root, archive=other)
    assert str(other) in str(caught.value)
    assert CATALOG[toy].splits["test"].images in str(caught.value)
    assert other.exists()
    assert not root.exists()
    fetch(toy, root=root, sources=[Given(other), Given(toy_archive)])
    assert len(load(toy, root=root)) == 4


def test_when_all_sources_fail_each_is_named_with_its_reason(toy, root):
    sources = [Given(DataUnavailableError("no route")), Given(CorruptDataError("wrong digest"))]
    with pytest.raises(DataUnavailableError) as caught:
        fetch(toy, root=root, sources=sources)
    message = str(caught.value)
    assert f"{sources[0]}: no route" in message
    assert f"{sources[1]}: wrong digest" in message
    assert "dualrs data fetch toy --from FILE" in message
    assert not root.exists()


def test_a_whole_copy_is_not_fetched_again(toy, toy_archive, root):
    fetch(toy, root=root, archive=toy_archive)
    fetch(toy, root=root, sources=[Given(AssertionError("must not be asked"))])


def test_a_damaged_copy_is_told_and_then_replaced(toy, toy_archive, root):
    path = fetch(toy, root=root, archive=toy_archive) / "test-images.npy"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match=r"test-images\.npy.*dualrs data fetch toy"):
            load(toy, root=root)
        assert len(load(toy, "train", root=root)) == 6
        fetch(toy, root=root, sources=[Given(toy_archive)])
        assert path.read_bytes() == whole


def test_arrays_of_another_shape_or_type_are_refused(toy, toy_archive, root):
    path = fetch(toy, root=root, archive=toy_archive) / "test-labels.npy"
    np.save(path, np.zeros(4, np.int64))
    with pytest.raises(CorruptDataError, match=r"uint8 \(4,\), not int64 \(4,\)"):
        load(toy, root=root)


def test_a_write_that_fails_leaves_nothing_that_loads(toy, toy_archive, root, monkeypatch):
    def full(path, array):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_store, "write_npy", full)
        with pytest.raises(OSError, match="no space"):
            fetch(toy, root=root, archive=toy_archive)
    with pytest.raises(DataUnavailableError):
        load(toy, root=root)
    fetch(toy, root=root, archive=toy_archive)
    assert len(load(toy, root=root)) == 4


def test_what_was_not_fetched_says_how(toy, root):
    (root / "toy").mkdir(parents=True)
    (root / "toy" / ".test-images.npy.1.part").write_bytes(b"partial")
    with pytest.raises(DataUnavailableError, match='does not exist; run "dualrs data fetch toy"'):
        load(toy, root=root)


def test_unknown_names_and_splits(toy, root):
    with pytest.raises(ValueError, match=r"no data set named 'mnist'; there are cifar10, fashion-mnist, "):
        load("mnist")
    with pytest.raises(ValueError, match="'mnist'"):
        fetch("mnist", root=root)
    with pytest.raises(ValueError, match="use open_dataset"):
        load("folder:/somewhere")
    with pytest.raises(ValueError, match="no split 'val'; it has train, test"):
        load(toy, "val", root=root)
    with pytest.raises(ValueError, match="size is for folders"):
        open_dataset(toy, size=3, root=root)


def test_the_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("DUALRS_DATA", "~/elsewhere")
    assert data_root() == Path.home() / "elsewhere"
    monkeypatch.setenv("DUALRS_DATA", "")
    assert data_root() == Path.home() / ".cache" / "dualrs" / "data"


def test_available_lists_all_and_knows_what_is_there(toy, toy_archive, root, monkeypatch):
    monkeypatch.setenv("DUALRS_DATA", str(root))
    before = {info.name: info for info in available()}
    assert list(before) == list(CATALOG)
    assert {name for name, info in before.items() if info.present} == {"fashion-mnist-sample"}
    assert before["cifar10"].path == root / "cifar10"
    assert before["cifar10"].splits == {"train": 50_000, "test": 10_000}
    assert before["cifar10"].input_shape == (3, 32, 32)
    fetch(toy, archive=toy_archive)
    after = {info.name: info for info in available()}
    assert after["toy"] == dataclasses.replace(before["toy"], present=True)


def test_the_sample_comes_with_the_package(root):
    data = load("fashion-mnist-sample", root=root)
    assert data.input_shape == (1, 28, 28)
    assert np.bincount(data.labels).tolist() == [100] * 10
    assert (np.diff(data.indices) > 0).all()
    assert data.indices[-1] < 10_000
    folder = fetch("fashion-mnist-sample", root=root)
    assert "Zalando SE" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
    assert not root.exists()


def test_a_damaged_sample_is_refused(monkeypatch):
    spec = CATALOG["fashion-mnist-sample"]
    wrong = dataclasses.replace(spec.splits["test"], labels="0" * 64)
    monkeypatch.setitem(CATALOG, "fashion-mnist-sample", dataclasses.replace(spec, splits={"test": wrong}))
    with pytest.raises(CorruptDataError, match="test labels must have sha256 000"):
        load("fashion-mnist-sample")


@pytest.fixture(scope="module", params=["cifar10", "fashion-mnist"])
def fetched(request):
    try:
        fetch(request.param)
    except DataUnavailableError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.data
def test_real_data(fetched):
    for split, expected in CATALOG[fetched].splits.items():
        data = load(fetched, split)
        assert len(data) == expected.size
        assert len(set(np.bincount(data.labels))) == 1
        assert len(data.classes) == data.labels.max() + 1


@pytest.mark.data
def test_the_sample_is_the_first_hundred_of_each_class():
    try:
        fetch("fashion-mnist")
    except DataUnavailableError as error:
        pytest.skip(str(error))
    whole, sample = load("fashion-mnist"), load("fashion-mnist-sample")
    firsts = [np.flatnonzero(whole.labels == label)[:100] for label in range(10)]
    assert np.array_equal(sample.indices, np.sort(np.concatenate(firsts)))
    assert whole.subset(sample.indices).digest == sample.digest
