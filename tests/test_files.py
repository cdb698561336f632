"""Files are whole or absent."""

import pytest

from dualrs.files import atomic_write


def test_a_file_appears_with_its_whole_content_and_its_folders(tmp_path):
    path = tmp_path / "deep" / "folder" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"some ")
        assert not path.exists()
        file.write(b"words")
    assert path.read_bytes() == b"some words"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_readers_see_the_old_content_until_the_new_is_whole(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_everything_as_it_was(tmp_path, error):
    path = tmp_path / "file.bin"

    def fail():
        with atomic_write(path) as file:
            file.write(b"half")
            raise error

    for before in ([], [path]):
        with pytest.raises(error):
            fail()
        assert list(tmp_path.iterdir()) == before
        path.write_bytes(b"old")
    assert path.read_bytes() == b"old"


def test_a_target_that_cannot_be_replaced_leaves_no_rubbish(tmp_path):
    path = tmp_path / "folder"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"), atomic_write(path) as file:
        file.write(b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file.bin"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # left last
    assert list(tmp_path.iterdir()) == [path]
