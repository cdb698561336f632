"""Sets of inputs that stay small for millions of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, MutableSet
from itertools import chain

import numpy as np


class Indices(MutableSet[int]):
    """A set of positions in a data set, which takes a byte for each position up to the largest.

    A set of Python's takes about a hundred for each member. It equals and combines with other sets as those do, and
    gives its members in ascending order.

    Args:
        members: each at least 0.

    Raises:
        ValueError: a member is negative.
    """

    def __init__(self, members: Iterable[int] = ()) -> None:
        self._held = bytearray()  # 1 at the positions of members
        for index in members:
            self.add(index)

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int | np.integer):
            return False
        return 0 <= int(index) < len(self._held) and self._held[index] == 1

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.runs())

    def __len__(self) -> int:
        return self._held.count(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"

    def add(self, index: int) -> None:
        """Takes a member up."""
        if index < 0:
            raise ValueError(f"indices must be at least 0; got {index}")
        if index >= len(self._held):
            self._held.extend(bytes(index + 1 - len(self._held)))
        self._held[index] = 1

    def discard(self, index: int) -> None:
        """Drops a member, if it is there."""
        if index in self:
            self._held[index] = 0

    def runs(self) -> Iterator[range]:
        """Gives the members as ranges, in ascending order: as few as there can be."""
        return (range(*run.span()) for run in re.finditer(b"\x01+", self._held))
