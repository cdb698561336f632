import numpy as np
import pytest

from dualrs.data._files import read_npy, write_npy
from dualrs.files import atomic_write


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def write_half(path):
    with atomic_write(path) as file:
        file.write(b"half of the n")
        raise Interrupted


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(Interrupted):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_there_until_the_end(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def test_arrays_survive(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_npy(tmp_path / "a.npy", array)
    assert np.array_equal(read_npy(tmp_path / "a.npy"), array)


def test_objects_are_neither_written_nor_unpickled(tmp_path):
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npy(tmp_path / "a.npy", objects)
    assert not list(tmp_path.iterdir())
    np.save(tmp_path / "b.npy", objects, allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        read_npy(tmp_path / "b.npy")


@pytest.mark.parametrize("keep", [0, 5, 60, 140])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, keep):
    path = tmp_path / "a.npy"
    write_npy(path, np.zeros(100, np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r".+"):
        read_npy(path)
