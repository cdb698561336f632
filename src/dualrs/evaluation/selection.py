"""Which inputs of a data set: evenly spaced ones, lists with ranges, shards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

from dualrs.evaluation.indices import Indices

_LIST = re.compile(r"[\d\s,-]*")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def evenly_spaced(count: int, size: int) -> list[int]:
    """Positions of ``count`` inputs spread evenly over a data set of ``size``; all if it has no more."""
    count = min(count, size)
    return [i * size // count for i in range(count)]


def parse_indices(text: str) -> list[int]:
    """Reads a list of numbers and ranges, ends included.

    Raises:
        ValueError: the text is no such list, or names a number twice.

    Examples:
        >>> parse_indices("0-3, 20")
        [0, 1, 2, 3, 20]
    """
    return list(chain.from_iterable(parse_ranges(text)))


def parse_ranges(text: str) -> list[range]:
    """Reads such a list without its numbers being spelt out; raises as `parse_indices` does.

    Examples:
        >>> parse_ranges("0-3, 20")
        [range(0, 4), range(20, 21)]
    """
    found: list[range] = []
    for part in text.split(","):
        ends = _RANGE.fullmatch(part.strip())
        if not ends:
            raise ValueError(f"indices are numbers and ranges such as 0-99,200; got {part.strip()!r}")
        first = int(ends[1])
        last = first if ends[2] is None else int(ends[2])
        if last < first:
            raise ValueError(f"a range of indices goes from low to high; got {part.strip()!r}")
        found.append(range(first, last + 1))
    for before, after in pairwise(sorted(found, key=lambda each: each.start)):
        if after.start < before.stop:
            raise ValueError(f"indices must be named once each; got {after.start} twice")
    return found


def read_indices(given: str) -> list[int]:
    """Reads a list of indices, or a file with one index, or one such list, in each line.

    Raises:
        ValueError: it is neither.
    """
    if _LIST.fullmatch(given):
        return parse_indices(given)
    try:
        lines = Path(given).read_text(encoding="utf-8").splitlines()
        return parse_indices(",".join(line for line in lines if line.strip()))
    except OSError as error:
        raise ValueError(
            f"indices are a list such as 0-99,200 or a file with one index per line; got {given!r} ({error.strerror})"
        ) from error
    except ValueError as error:
        raise ValueError(f"{given}: {error}") from error


def format_indices(indices: Iterable[int]) -> str:
    """Writes indices as `parse_indices` reads them, in ascending order.

    Examples:
        >>> format_indices([20, 0, 1, 2, 3])
        '0-3,20'
    """
    known = indices if isinstance(indices, Indices) else Indices(indices)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in known.runs())


def parse_shard(text: str) -> tuple[int, int]:
    """Reads which shard, and of how many.

    Raises:
        ValueError: the text names no shard.

    Examples:
        >>> parse_shard("1/8")
        (1, 8)
    """
    ends = re.fullmatch(r"(\d+)/(\d+)", text)
    if not ends or not 1 <= int(ends[1]) <= int(ends[2]):
        raise ValueError(f"a shard is i/k with i from 1 to k, such as 1/8; got {text!r}")
    return int(ends[1]), int(ends[2])


def shard_of(indices: Sequence[int], number: int, of: int) -> Sequence[int]:
    """Gives every ``of``-th of the indices, from the ``number``-th on: all shards together are all of them.

    Raises:
        ValueError: there is no such shard, or nothing is in it.
    """
    chosen = indices[number - 1 :: of] if 1 <= number <= of else []
    if not chosen:
        raise ValueError(f"there is nothing to certify: of {len(indices)} inputs there is no shard {number}/{of}")
    return chosen
