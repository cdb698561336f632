"""The engine: serves the vote requests of many procedures at once, in full batches per model.

Procedures say which votes they need; the engine packs noisy copies of different inputs into batches of
one fixed shape, runs them, and hands the counts back. Procedures on the same input share votes: each meets
every vote of a stream (one model at one noise level on one input) once and in the same order, so within
a procedure no vote is ever used twice, while a vote that two procedures ask for is computed once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.certificates import Certificate, Procedure, VoteRequest
from dualrs.sampling.backends import Backend, check_fixed_function
from dualrs.sampling.noise import NoiseKey, block_rows, input_digest, standard_normal_block

_INVALID = -1  # the vote of a row with NaN among its logits: for no class


@dataclass(frozen=True)
class Job:
    """Procedures to run on one input.

    Args:
        key: names the job in its result.
        x: the input, any shape; all inputs of a run have the same.
        procedures: by name; they share the votes they have in common.
        seed: of the noise.
    """

    key: Hashable
    x: Tensor
    procedures: Mapping[str, Procedure]
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a procedure returned, and what its votes cost (votes times the models' mean time for one)."""

    certificate: Certificate
    seconds: float


@dataclass(frozen=True)
class JobResult:
    """The outcomes of a job's procedures, by name."""

    key: Hashable
    outcomes: Mapping[str, Outcome]


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


class Engine:
    """Runs procedures against models.

    Args:
        backend_for: gives the backend of a model by the name procedures use, for inputs of a shape. Called
            once per model and run.
        batch_size: rows per batch; changes speed, not results.
        outputs: how many logits a model must give, by name; models not named may give any number.

    Attributes:
        stats: by model name.
    """

    def __init__(
        self,
        backend_for: Callable[[str, torch.Size], Backend],
        *,
        batch_size: int = 256,
        outputs: Mapping[str, int] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        self._backend_for = backend_for
        self._batch_size = batch_size
        self._outputs = outputs or {}
        self.stats: dict[str, ModelStats] = {}

    def run(self, jobs: Iterable[Job]) -> Iterator[JobResult]:
        """Yields each job's result as soon as it is complete, in the order of completion.

        Jobs are taken up one at a time and only while batches would not be full, so any number may be
        given lazily. Leaving the iteration early keeps all results yielded so far valid.

        Raises:
            ValueError: inputs of different shapes, or whatever a procedure or a backend refuses.
        """
        run = _Run(self._backend_for, self._batch_size, self._outputs, self.stats)
        waiting = iter(jobs)
        exhausted = False
        while True:
            while not exhausted and not run.has_full_batch():
                job = next(waiting, None)
                if job is None:
                    exhausted = True
                else:
                    run.admit(job)
                    yield from run.finished()
            if not run.evaluate_fullest():
                return
            yield from run.finished()


class _Run:
    """The state of one `Engine.run`."""

    def __init__(
        self,
        backend_for: Callable[[str, torch.Size], Backend],
        batch_size: int,
        outputs: Mapping[str, int],
        stats: dict[str, ModelStats],
    ) -> None:
        self._backend_for, self._batch_size, self._stats = backend_for, batch_size, stats
        self._outputs = outputs
        self._models: dict[str, _Model] = {}
        self._finished: list[JobResult] = []
        self._shape: torch.Size | None = None

    def admit(self, job: Job) -> None:
        if not job.procedures:
            raise ValueError(f"job {job.key!r} has no procedures")
        if self._shape is None:
            self._shape = job.x.shape
        elif job.x.shape != self._shape:
            raise ValueError(
                f"all inputs of a run need one shape: the first has {tuple(self._shape)}, "
                f"input {job.key!r} has {tuple(job.x.shape)}"
            )
        active = _ActiveJob(job)
        for name, procedure in job.procedures.items():
            self._advance(_Task(name, procedure, active), None)

    def finished(self) -> Iterator[JobResult]:
        results, self._finished = self._finished, []
        yield from results

    def has_full_batch(self) -> bool:
        return any(model.pending >= model.batch_size for model in self._models.values())

    def evaluate_fullest(self) -> bool:
        """Runs one batch of the model with most batches of work; False if there is no work."""
        model = max(self._models.values(), key=lambda candidate: candidate.pending / candidate.batch_size, default=None)
        if model is None or not model.pending:
            return False
        for stream in model.evaluate():
            ready = [task for task in stream.waiting if stream.filled >= task.goal]
            stream.waiting = [task for task in stream.waiting if stream.filled < task.goal]
            for task in ready:
                self._advance(task, stream.take(task))
        return True

    def _advance(self, task: _Task, counts: NDArray[np.int64] | None) -> None:
        """Hands counts to a procedure (None to start it) until it asks for votes that are not there yet."""
        while True:
            try:
                request = next(task.procedure) if counts is None else task.procedure.send(counts)
            except StopIteration as stop:
                self._complete(task, stop.value)
                return
            model = self._model(request.model)
            stream = task.job.stream(request, model)
            task.begin(request, stream)
            if stream.filled < task.goal:
                model.want(stream, task.goal)
                stream.waiting.append(task)
                return
            # The votes were drawn already, for another procedure on the same input.
            counts = stream.take(task)

    def _complete(self, task: _Task, certificate: Certificate) -> None:
        seconds = sum(self._stats[model].seconds_per_vote * votes for model, votes in task.votes.items())
        job = task.job
        job.outcomes[task.name] = Outcome(certificate, seconds)
        if len(job.outcomes) == len(job.job.procedures):
            ordered = {name: job.outcomes[name] for name in job.job.procedures}
            self._finished.append(JobResult(job.job.key, ordered))

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            assert self._shape is not None  # a job has been admitted
            backend = self._backend_for(name, self._shape)
            rows = backend.batch_size or self._batch_size
            stats = ModelStats(backend=backend.name, device=backend.device, batch_size=rows)
            self._models[name] = _Model(
                name,
                backend,
                torch.zeros((rows, *self._shape)),
                self._outputs.get(name),
                self._stats.setdefault(name, stats),
            )
        return self._models[name]


class _Model:
    """One model's backend, its batch buffer and the streams that want votes from it, oldest first."""

    def __init__(self, name: str, backend: Backend, buffer: Tensor, num_classes: int | None, stats: ModelStats) -> None:
        self.batch_size = len(buffer)
        self.num_classes = num_classes
        self.pending = 0
        self._name, self._backend, self._buffer, self._stats = name, backend, buffer, stats
        self._queue: deque[_Stream] = deque()
        self._checked = False

    def want(self, stream: _Stream, goal: int) -> None:
        """Asks for the stream's votes up to number ``goal``."""
        if goal > stream.wanted:
            if stream.wanted == stream.filled:
                self._queue.append(stream)
            self.pending += goal - stream.wanted
            stream.wanted = goal

    def evaluate(self) -> list[_Stream]:
        """Runs one batch and returns the streams that received votes."""
        started = time.perf_counter()
        parts: list[tuple[_Stream, int]] = []
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
class _Stream:
    """The votes of one model at one noise level on one input, in their fixed order."""

    x: Tensor
    key: NoiseKey
    model: _Model
    wanted: int = 0
    filled: int = 0
    waiting: list[_Task] = field(default_factory=list)
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
        self._votes.append(votes)
        self.filled += len(votes)
        if self.filled % block_rows(self.x.shape) == 0:
            self._noise, self._block = torch.empty(0), -1

    def take(self, task: _Task) -> NDArray[np.int64]:
        """The counts of the votes a task asked for; later requests of that task begin behind them."""
        if len(self._votes) > 1:
            self._votes = [np.concatenate(self._votes)]
        start, goal = task.cursors[self], task.goal
        task.cursors[self] = goal
        votes = self._votes[0][start:goal]
        assert self.model.num_classes is not None  # it has voted
        return np.bincount(votes[votes != _INVALID], minlength=self.model.num_classes).astype(np.int64)


@dataclass(eq=False)
class _ActiveJob:
    """A job under way: its streams, shared by its procedures, and the outcomes so far."""

    job: Job
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy: whoever made the input may write the next one into the same memory while votes are drawn.
        self._x = self.job.x.detach().to("cpu", torch.float32, copy=True)
        self._digest = input_digest(self._x)
        self._streams: dict[tuple[str, float], _Stream] = {}

    def stream(self, request: VoteRequest, model: _Model) -> _Stream:
        which = (request.model, request.sigma)
        if which not in self._streams:
            key = NoiseKey(self.job.seed, self._digest, request.model, request.sigma)
            self._streams[which] = _Stream(self._x, key, model)
        return self._streams[which]


@dataclass(eq=False)
class _Task:
    """A procedure under way, the request it waits for, and how far it has read each stream."""

    name: str
    procedure: Procedure
    job: _ActiveJob
    goal: int = 0
    cursors: dict[_Stream, int] = field(default_factory=dict)
    votes: dict[str, int] = field(default_factory=dict)

    def begin(self, request: VoteRequest, stream: _Stream) -> None:
        self.goal = self.cursors.setdefault(stream, 0) + request.count
        self.votes[request.model] = self.votes.get(request.model, 0) + request.count
