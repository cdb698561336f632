import doctest
from itertools import chain

import pytest

from dualrs.evaluation import selection
from dualrs.evaluation.selection import (
    evenly_spaced,
    format_indices,
    parse_indices,
    parse_shard,
    read_indices,
    shard_of,
)


def test_examples():
    assert not doctest.testmod(selection).failed


def test_inputs_are_spread_evenly_over_the_data_set():
    assert evenly_spaced(4, 10) == [0, 2, 5, 7]
    assert evenly_spaced(20, 3) == [0, 1, 2]


@pytest.mark.parametrize("indices", [[5], [0, 1], list(range(100)), [3, 4, 5, 9, 11, 12], [7, 3, 4]])
def test_indices_are_read_as_they_are_written(indices):
    assert parse_indices(format_indices(indices)) == sorted(indices)


def test_indices_come_from_a_file_too(tmp_path):
    path = tmp_path / "subset.txt"
    path.write_text("7\n\n3\r\n10-12\n")
    assert read_indices(str(path)) == [7, 3, 10, 11, 12]
    assert read_indices(" 7, 3") == [7, 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "got ''"),
        ("1,,2", "got ''"),
        ("-1", "got '-1'"),
        ("1-2-3", "got '1-2-3'"),
        ("5-3", "from low to high; got '5-3'"),
        ("1,4,0-2", "got 1 twice"),
        ("0-9,20,3-5", "got 3 twice"),
        ("7,7", "got 7 twice"),
        ("nowhere.txt", r"a list such as 0-99,200 or a file .*; got 'nowhere.txt' \(No such file"),
        ("x" * 10_000, "too long"),
    ],
)
def test_what_is_no_list_of_indices_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read_indices(given)


def test_a_file_of_indices_that_cannot_be_used_is_named(tmp_path):
    for content in (b"1\ntwo\n", b"", b"\xff\xfe"):
        (tmp_path / "subset.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"subset\.txt: "):
            read_indices(str(tmp_path / "subset.txt"))


def test_shards_are_all_of_the_inputs_and_none_of_them_twice():
    indices = evenly_spaced(10, 100)
    shards = [shard_of(indices, number, 4) for number in (1, 2, 3, 4)]
    assert sorted(chain(*shards)) == indices
    assert shards[1] == [10, 50, 90]


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1 / 3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match="a shard is i/k with i from 1 to k, such as 1/8"):
        parse_shard(text)


@pytest.mark.parametrize(("number", "of"), [(4, 5), (0, 2), (3, 2), (1, 0)])
def test_an_empty_shard_is_refused(number, of):
    with pytest.raises(ValueError, match=f"of 3 inputs there is no shard {number}/{of}"):
        shard_of([5, 6, 7], number, of)
