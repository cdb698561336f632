"""Streams of votes, and the queues that draw them batch by batch."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.sampling.backends import Backend, check_fixed_function
from dualrs.sampling.noise import NoiseKey, block_rows, standard_normal_block

_INVALID = -1  # the vote of a row with NaN among its logits: for no class


@dataclass
class ModelStats:
    """How much a model did, and on what: votes are rows that were asked for, slots all rows of its batches."""

    votes: int = 0
    slots: int = 0
    seconds: float = 0.0
    backend: str = ""
    device: str = ""
    batch_size: int = 0

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
    """

    def __init__(self, name: str, backend: Backend, buffer: Tensor, num_classes: int | None, stats: ModelStats) -> None:
        self.batch_size = len(buffer)
        self.num_classes = num_classes
        self.pending = 0
        self._name, self._backend, self._buffer, self._stats = name, backend, buffer, stats
        self._queue: deque[Stream] = deque()
        self._checked = False

    def want(self, stream: Stream, goal: int) -> None:
        """Asks for the stream's votes up to number ``goal``."""
        if goal > stream.wanted:
            if stream.wanted == stream.filled:
                self._queue.append(stream)
            self.pending += goal - stream.wanted
            stream.wanted = goal

    def evaluate(self) -> list[Stream]:
        """Runs one batch and returns the streams that received votes."""
        started = time.perf_counter()
        parts: list[tuple[Stream, int]] = []
        used = 0
        while used < self.batch_size and self._queue:
            stream = self._queue[0]
            take = min(self.batch_size - used, stream.wanted - stream.filled)
            stream.write_next(self._buffer[used : used + take])
            parts.append((stream, take))
            used += take
            # A stream that still wants votes has filled this batch up and stays first in the queue.
            if stream.filled + take == stream.wanted:
                self._queue.popleft()
        votes = self._votes()
        self.pending -= used
        self._stats.votes += used
        self._stats.slots += self.batch_size
        self._stats.seconds += time.perf_counter() - started
        start = 0
        for stream, take in parts:
            stream.append(votes[start : start + take])
            start += take
        return [stream for stream, _ in parts]

    def _votes(self) -> NDArray[np.int32]:
        if not self._checked:
            check_fixed_function(self._backend, self._buffer)
            self._checked = True
        logits = self._backend.logits(self._buffer)
        self.num_classes = self.num_classes or logits.shape[1]
        if logits.shape != (self.batch_size, self.num_classes):
            raise ValueError(
                f"model {self._name!r} gave logits of shape {tuple(logits.shape)} for a batch of {self.batch_size}; "
                f"expected {(self.batch_size, self.num_classes)}"
            )
        votes = logits.argmax(dim=1)
        votes[logits.isnan().any(dim=1)] = _INVALID
        return votes.to("cpu", torch.int32).numpy()


@dataclass(eq=False)
class Stream:
    """The votes of one model at one noise level on one input, in their fixed order."""

    x: Tensor
    key: NoiseKey
    queue: ModelQueue
    wanted: int = 0
    filled: int = 0
    _votes: list[NDArray[np.int32]] = field(default_factory=list)
    _block: int = -1
    _noise: Tensor = field(default_factory=lambda: torch.empty(0))

    def write_next(self, out: Tensor) -> None:
        """Writes the noisy copies that follow those already voted on."""
        rows = block_rows(self.x.shape)
        done = 0
        while done < len(out):
            block, offset = divmod(self.filled + done, rows)
            if block != self._block:
                self._noise = standard_normal_block(self.key, block, self.x.shape)
                self._block = block
            take = min(len(out) - done, rows - offset)
            # Not torch.add(..., alpha=sigma): it may fuse the two roundings, depending on a row's place in memory.
            torch.mul(self._noise[offset : offset + take], self.key.sigma, out=out[done : done + take]).add_(self.x)
            done += take

    def append(self, votes: NDArray[np.int32]) -> None:
        """Takes up the votes on the noisy copies written last."""
        self._votes.append(votes)
        self.filled += len(votes)
        if self.filled % block_rows(self.x.shape) == 0:
            self._noise, self._block = torch.empty(0), -1

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """How many of the votes from number ``start`` up to ``stop`` each class got."""
        if len(self._votes) > 1:
            self._votes = [np.concatenate(self._votes)]
        votes = self._votes[0][start:stop]
        assert self.queue.num_classes is not None  # it has voted
        return np.bincount(votes[votes != _INVALID], minlength=self.queue.num_classes).astype(np.int64)
