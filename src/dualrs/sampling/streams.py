"""Streams of votes, and the queues that draw them batch by batch.

While a model evaluates one batch, a pool of threads draws the noise of its next. What is drawn when and by whom
changes nothing: a block of noise depends on its key alone, and is written into the batch by its number.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.sampling.backends import Backend, as_logits, check_fixed_function
from dualrs.sampling.noise import NoiseKey, block_rows
from dualrs.sampling.onnx_backend import OnnxBackend
from dualrs.sampling.sources import NoiseBlock, NoiseSource
from dualrs.sampling.torch_backend import TorchBackend
from dualrs.sampling.votes import INVALID, Votes

# The shapes of batches for which backends were found to be fixed functions, by earlier runs too.
_CHECKED: WeakKeyDictionary[Backend, set[torch.Size]] = WeakKeyDictionary()


@dataclass
class ModelStats:
    """How much a model did, and on what: votes are rows that were asked for, slots all rows of its batches."""

    votes: int = 0
    slots: int = 0
    seconds: float = 0.0
    backend: str = ""
    device: str = ""
    batch_size: int = 0
    precision: str = ""

    @property
    def fill_rate(self) -> float:
        """The share of evaluated rows that were asked for."""
        return self.votes / self.slots if self.slots else 1.0

    @property
    def seconds_per_vote(self) -> float:
        """Mean time per vote, noise included."""
        return self.seconds / self.votes if self.votes else 0.0


class ModelQueue:
    """One model's backend, its batch buffer and the streams that want votes from it, oldest first.

    Args:
        name: of the model, for errors.
        backend: evaluates its batches.
        buffer: of the shape of one batch.
        num_classes: how many logits it must give; None takes whatever the first batch shows.
        stats: counts what is done.

    Attributes:
        pending: how many votes are asked for that are in no batch yet.
        passed_over: how many batches others have had while this one was asked for votes.
    """

    def __init__(self, name: str, backend: Backend, buffer: Tensor, num_classes: int | None, stats: ModelStats) -> None:
        self.batch_size = len(buffer)
        self.num_classes = num_classes
        self.pending = self.passed_over = 0
        self._name, self._backend, self._buffer, self._stats = name, backend, buffer, stats
        self._rows = buffer.numpy()
        self._queue: deque[Stream] = deque()
        self._checked = False

    def want(self, stream: Stream, goal: int) -> None:
        """Asks for the stream's votes up to number ``goal``; some may be there already."""
        self._stats.votes += max(0, goal - stream.wanted)
        before = stream.missing
        stream.wanted = max(goal, stream.wanted)
        self.pending += stream.missing - before
        if stream.missing and not before:
            self._queue.append(stream)

    def evaluate(self) -> list[Stream]:
        """Runs one batch and returns the streams that received votes."""
        started = time.perf_counter()
        parts: list[tuple[Stream, int]] = []
        used = 0
        self._draw_ahead()  # what the last batch did not know of yet
        while used < self.batch_size and self._queue:
            stream = self._queue[0]
            take = min(self.batch_size - used, stream.missing)
            parts.append((stream, take))
            used += take
            self.pending -= take
            stream.planned += take
            # A stream that still wants votes has filled this batch up and stays first in the queue.
            if not stream.missing:
                self._queue.popleft()
        parts += self._surplus(parts, self.batch_size - used)
        ambiguous = self._write(parts)
        self._draw_ahead()
        votes = self._votes()
        votes[ambiguous] = INVALID
        self._stats.slots += self.batch_size
        self._stats.seconds += time.perf_counter() - started
        start = 0
        for stream, take in parts:
            stream.append(votes[start : start + take])
            start += take
        return list(dict.fromkeys(stream for stream, _ in parts))

    def _surplus(self, parts: list[tuple[Stream, int]], room: int) -> list[tuple[Stream, int]]:
        """Shares the rest of a batch among its streams: a procedure that asked once is likely to ask again."""
        surplus = []
        for done, (stream, _) in enumerate(parts):
            take = room // (len(parts) - done)
            if take:
                stream.draw_ahead(take)
                stream.planned += take
                surplus.append((stream, take))
            room -= take
        return surplus

    def _write(self, parts: list[tuple[Stream, int]]) -> list[int]:
        """Writes the noisy copies of a batch; returns the rows that may not vote."""
        ambiguous: list[int] = []
        start = 0
        for stream, take in parts:
            ambiguous.extend(start + row for row in stream.write_next(self._rows[start : start + take]))
            start += take
        return ambiguous

    def _draw_ahead(self) -> None:
        """Has the noise of the next batch drawn, as far as it is known what that will hold."""
        room = self.batch_size
        for stream in self._queue:
            if room == 0:
                return
            take = min(room, stream.missing)
            stream.draw_ahead(take)
            room -= take

    def _votes(self) -> NDArray[np.int32]:
        logits = as_logits(self._logits(), self.batch_size).numpy()
        self.num_classes = self.num_classes or logits.shape[1]
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"model {self._name!r} gave logits of shape {logits.shape} for a batch of {self.batch_size}; "
                f"expected {(self.batch_size, self.num_classes)}"
            )
        # NumPy, as for the noise; it takes the first of equal logits.
        votes: NDArray[np.int32] = logits.argmax(axis=1).astype(np.int32)
        votes[np.isnan(logits).any(axis=1)] = INVALID
        return votes

    def _logits(self) -> Tensor:
        if not self._checked:
            found = _CHECKED.setdefault(self._backend, set()) if _stays_as_it_is(self._backend) else set()
            self._checked = self._buffer.shape in found
            if not self._checked:
                logits = check_fixed_function(self._backend, self._buffer)
                self._checked = True
                found.add(self._buffer.shape)
                return logits
        return self._backend.logits(self._buffer)


def _stays_as_it_is(backend: Backend) -> bool:
    """Whether nobody can change what the backend runs; a module of its owner, a callable and what others wrote may."""
    return isinstance(backend, OnnxBackend) or (isinstance(backend, TorchBackend) and backend.name != "torch")


@dataclass(eq=False)
class Stream:
    """The votes of one model at one noise level on one input, in their fixed order.

    Args:
        x: the input, as the noise source takes it.
        key: of the noise.
        queue: of the model that votes.
        noise: writes the noisy copies.
        pool: draws the noise.
        votes: keeps what the model voted.

    Attributes:
        wanted: how many votes are asked for.
        planned: how many noisy copies have their place in a batch.
        written: how many noisy copies have been written.
        filled: how many votes there are.
    """

    x: NDArray[Any]
    key: NoiseKey
    queue: ModelQueue
    noise: NoiseSource
    pool: Executor
    votes: Votes
    wanted: int = 0
    planned: int = 0
    written: int = 0
    filled: int = 0
    _blocks: dict[int, Future[NoiseBlock]] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """How many of the votes that are asked for have no place in a batch yet."""
        return max(0, self.wanted - self.planned)

    def draw_ahead(self, count: int) -> None:
        """Has the noise of so many noisy copies drawn that have no place in a batch yet."""
        rows = block_rows(self.x.shape)
        for block in range(self.planned // rows, -(-(self.planned + count) // rows)):
            if block not in self._blocks:
                self._blocks[block] = self.pool.submit(self.noise.draw, self.key, block, self.x.shape)

    def write_next(self, out: NDArray[np.float32]) -> list[int]:
        """Writes the noisy copies that follow those written last; returns which of them may not vote.

        Their noise must have been drawn ahead.
        """
        rows = block_rows(self.x.shape)
        ambiguous: list[int] = []
        done = 0
        while done < len(out):
            number, offset = divmod(self.written, rows)
            block = self._blocks[number].result()
            take = min(len(out) - done, rows - offset)
            self.noise.write(block.values[offset : offset + take], self.x, self.key.sigma, out[done : done + take])
            ambiguous.extend(row - offset + done for row in block.ambiguous if offset <= row < offset + take)
            done += take
            self.written += take
            if self.written % rows == 0:
                del self._blocks[number]
        return ambiguous

    def append(self, votes: NDArray[np.int32]) -> None:
        """Takes up the votes on the noisy copies written last."""
        assert self.queue.num_classes is not None  # it has voted
        self.votes.append(votes, self.queue.num_classes)
        self.filled += len(votes)

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """How many of the votes from number ``start`` up to ``stop`` each class got."""
        return self.votes.counts(start, stop)
