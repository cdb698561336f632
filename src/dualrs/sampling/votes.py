"""What is kept of votes: counts alone where nobody reads a vote twice, else one small integer for each."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

INVALID = -1
"""The vote of a row that votes for no class: NaN among its logits, or an ambiguous draw."""
_CHUNK = 2**14


class Votes(Protocol):
    """The votes of a stream, in order."""

    def append(self, votes: NDArray[np.int32], classes: int) -> None:
        """Takes up further votes among this many classes."""
        ...

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """How many of the votes from number ``start`` up to ``stop`` each class got."""
        ...


class RunningVotes:
    """Counts only, but for the last batch: for a single reader, in constant memory."""

    def __init__(self) -> None:
        self._start = self._stop = 0  # of the votes that are not read yet
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # of those before the last batch
        self._last: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._classes = 0

    def append(self, votes: NDArray[np.int32], classes: int) -> None:
        """See `Votes.append`."""
        before = count(self._last, classes)
        self._counts = before + self._counts if len(self._counts) else before
        self._last, self._classes = votes, classes
        self._stop += len(votes)

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Votes.counts`; each vote once, in order, and at least all those before the last batch."""
        unread = self._stop - stop
        assert start == self._start, "a single reader reads all votes, in order"
        assert 0 <= unread <= len(self._last), "votes before the last batch are kept as counts"
        read, self._last = self._last[: len(self._last) - unread], self._last[len(self._last) - unread :]
        found = count(read, self._classes) + self._counts
        self._start, self._counts = stop, np.zeros(self._classes, dtype=np.int64)
        return found


class KeptVotes:
    """Every vote, for several readers: one byte each where the classes allow it, in chunks that never move."""

    def __init__(self) -> None:
        self._chunks: list[NDArray[np.signedinteger]] = []
        self._filled = self._classes = 0

    def append(self, votes: NDArray[np.int32], classes: int) -> None:
        """See `Votes.append`."""
        self._classes = classes
        done = 0
        while done < len(votes):
            offset = self._filled % _CHUNK
            if offset == 0:
                self._chunks.append(np.empty(_CHUNK, dtype=np.min_scalar_type(-classes)))
            take = min(len(votes) - done, _CHUNK - offset)
            self._chunks[-1][offset : offset + take] = votes[done : done + take]
            self._filled += take
            done += take

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Votes.counts`; any stretch, any number of times."""
        total = np.zeros(self._classes, dtype=np.int64)
        while start < stop:
            chunk, offset = divmod(start, _CHUNK)
            take = min(stop - start, _CHUNK - offset)
            total += count(self._chunks[chunk][offset : offset + take], self._classes)
            start += take
        return total


def count(votes: NDArray[np.signedinteger], classes: int) -> NDArray[np.int64]:
    """How many of these votes each class got."""
    return np.bincount(votes[votes != INVALID], minlength=classes).astype(np.int64, copy=False)
