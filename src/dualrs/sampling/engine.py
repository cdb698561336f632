"""The engine: serves the vote requests of many procedures at once, in full batches per model.

Procedures say which votes they need; the engine packs noisy copies of different inputs into batches of
one fixed shape, runs them, and hands the counts back. Procedures on the same input share votes: each meets
every vote of a stream (one model at one noise level on one input) once and in the same order, so within
a procedure no vote is ever used twice, while a vote that two procedures ask for is computed once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.certificates import Certificate, Procedure, VoteRequest
from dualrs.sampling.backends import Backend, precision_of
from dualrs.sampling.intake import Intake, as_intake
from dualrs.sampling.noise import NoiseKey, input_digest
from dualrs.sampling.sources import FloatNoise, NoiseSource
from dualrs.sampling.streams import ModelQueue, ModelStats, Stream
from dualrs.sampling.votes import KeptVotes, RunningVotes

_FLOAT_NOISE = FloatNoise()
_PATIENCE = 64  # batches of others that a model waits for where somebody waits for every job; fewer cost speed
_MOST_THREADS = 8  # that draw noise: enough for any network, and a batch of small images has few more blocks


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


class Engine:
    """Runs procedures against models.

    Args:
        backend_for: gives the backend of a model by the name procedures use, for inputs of a shape. Called
            once per model and run.
        batch_size: rows per batch; changes speed, not results.
        outputs: how many logits a model must give, by name; models not named may give any number.
        noise: makes the noisy copies. What it draws decides every count.
        at_once: how many jobs are taken up as soon as they are there, though the first would fill the batches. Where
            it is more than one, somebody waits for each: then no model waits for long, however little is asked of it.

    Attributes:
        stats: by model name.
        noise: the source of the noise.
        batch_size: rows per batch, of models that do not insist on a number of their own.
    """

    def __init__(
        self,
        backend_for: Callable[[str, torch.Size], Backend],
        *,
        batch_size: int = 256,
        outputs: Mapping[str, int] | None = None,
        noise: NoiseSource = _FLOAT_NOISE,
        at_once: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if at_once < 1:
            raise ValueError(f"at_once must be at least 1; got {at_once}")
        self._backend_for = backend_for
        self.batch_size, self._at_once = batch_size, at_once
        self._outputs = outputs or {}
        self.noise = noise
        self.stats: dict[str, ModelStats] = {}

    def run(self, jobs: Iterable[Job] | Intake[Job]) -> Iterator[JobResult]:
        """Yields each job's result as soon as it is complete, in the order of completion.

        Jobs are taken up one at a time and only while batches would not be full (or up to ``at_once`` of them), so any
        number may be given lazily, or come in meanwhile. Leaving the iteration early keeps all results yielded so far
        valid.

        Raises:
            ValueError: inputs of different shapes, or whatever a procedure, a backend or the noise refuses.
        """
        pool = ThreadPoolExecutor(_threads(), thread_name_prefix="noise")
        try:
            yield from self._run(as_intake(jobs), pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _run(self, jobs: Intake[Job], pool: Executor) -> Iterator[JobResult]:
        run = _Run(
            self._backend_for,
            self.batch_size,
            outputs=self._outputs,
            stats=self.stats,
            noise=self.noise,
            pool=pool,
            at_once=self._at_once,
        )
        while True:
            # Only an engine that has nothing to do waits for a job.
            while run.has_room() and (job := jobs.take(wait=not run.has_work())) is not None:
                run.admit(job)
                yield from run.finished()
            if not run.evaluate():
                return
            yield from run.finished()


class _Run:
    """The state of one `Engine.run`."""

    def __init__(
        self,
        backend_for: Callable[[str, torch.Size], Backend],
        batch_size: int,
        *,
        outputs: Mapping[str, int],
        stats: dict[str, ModelStats],
        noise: NoiseSource,
        pool: Executor,
        at_once: int,
    ) -> None:
        self._backend_for, self._batch_size, self._stats = backend_for, batch_size, stats
        self._at_once = at_once
        self._outputs, self._noise, self._pool = outputs, noise, pool
        self._models: dict[str, ModelQueue] = {}
        self._waiting: dict[Stream, list[_Task]] = {}
        self._finished: list[JobResult] = []
        self._shape: torch.Size | None = None
        self._under_way = 0

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
        active = _ActiveJob(job, self._noise, self._pool)
        self._under_way += 1
        for name, procedure in job.procedures.items():
            self._advance(_Task(name, procedure, active), None)

    def finished(self) -> Iterator[JobResult]:
        results, self._finished = self._finished, []
        yield from results

    def has_room(self) -> bool:
        """Whether another job is to be taken up: to fill a batch, or because so many are served at once."""
        if self._under_way < self._at_once:
            return True
        return not any(model.pending >= model.batch_size for model in self._models.values())

    def has_work(self) -> bool:
        return any(model.pending for model in self._models.values())

    def evaluate(self) -> bool:
        """Runs one batch; False if there is no work."""
        model = self._next_model()
        if model is None:
            return False
        for stream in model.evaluate():
            waiting = self._waiting.pop(stream)
            ready = [task for task in waiting if stream.filled >= task.goal]
            if len(ready) < len(waiting):
                self._waiting[stream] = [task for task in waiting if stream.filled < task.goal]
            for task in ready:
                self._advance(task, task.take(stream))
        return True

    def _next_model(self) -> ModelQueue | None:
        """The model with most batches of work, unless another has been passed over for too long."""
        asked = [model for model in self._models.values() if model.pending]
        if not asked:
            return None
        chosen = max(asked, key=lambda model: model.pending / model.batch_size)
        if self._at_once > 1:
            longest = max(asked, key=lambda model: model.passed_over)
            chosen = longest if longest.passed_over >= _PATIENCE else chosen
        for model in asked:
            model.passed_over = 0 if model is chosen else model.passed_over + 1
        return chosen

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
            model.want(stream, task.goal)
            if stream.filled < task.goal:
                self._waiting.setdefault(stream, []).append(task)
                return
            # The votes were drawn already, for another procedure on the same input.
            counts = task.take(stream)

    def _complete(self, task: _Task, certificate: Certificate) -> None:
        seconds = sum(self._stats[model].seconds_per_vote * votes for model, votes in task.votes.items())
        job = task.job
        job.outcomes[task.name] = Outcome(certificate, seconds)
        if len(job.outcomes) == len(job.job.procedures):
            ordered = {name: job.outcomes[name] for name in job.job.procedures}
            self._finished.append(JobResult(job.job.key, ordered))
            self._under_way -= 1

    def _model(self, name: str) -> ModelQueue:
        if name not in self._models:
            assert self._shape is not None  # a job has been admitted
            backend = self._backend_for(name, self._shape)
            rows = backend.batch_size or self._batch_size
            stats = ModelStats(
                backend=backend.name, device=backend.device, batch_size=rows, precision=precision_of(backend)
            )
            self._models[name] = ModelQueue(
                name,
                backend,
                # Pinned, so that a GPU fetches it by itself.
                torch.zeros((rows, *self._shape), pin_memory=backend.device.startswith("cuda")),
                self._outputs.get(name),
                self._stats.setdefault(name, stats),
            )
        return self._models[name]


@dataclass(eq=False)
class _ActiveJob:
    """A job under way: its streams, shared by its procedures, and the outcomes so far."""

    job: Job
    noise: NoiseSource
    pool: Executor
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A copy: whoever made the input may write the next one into the same memory while votes are drawn.
        x = self.job.x.detach().to("cpu", torch.float32, copy=True)
        self._x, self._digest = self.noise.check(x), input_digest(x)
        self._streams: dict[tuple[str, float], Stream] = {}

    def stream(self, request: VoteRequest, model: ModelQueue) -> Stream:
        which = (request.model, request.sigma)
        if which not in self._streams:
            key = NoiseKey(self.job.seed, self._digest, request.model, request.sigma)
            # A single procedure reads every vote once; of several, one may come to a vote long after another.
            votes = RunningVotes() if len(self.job.procedures) == 1 else KeptVotes()
            self._streams[which] = Stream(self._x, key, model, self.noise, self.pool, votes)
        return self._streams[which]


@dataclass(eq=False)
class _Task:
    """A procedure under way, the request it waits for, and how far it has read each stream."""

    name: str
    procedure: Procedure
    job: _ActiveJob
    goal: int = 0
    cursors: dict[Stream, int] = field(default_factory=dict)
    votes: dict[str, int] = field(default_factory=dict)

    def begin(self, request: VoteRequest, stream: Stream) -> None:
        self.goal = self.cursors.setdefault(stream, 0) + request.count
        self.votes[request.model] = self.votes.get(request.model, 0) + request.count

    def take(self, stream: Stream) -> NDArray[np.int64]:
        """The counts of the votes asked for; the next request begins behind them."""
        start, self.cursors[stream] = self.cursors[stream], self.goal
        return stream.counts(start, self.goal)


def _threads() -> int:
    """How many threads draw noise: one per processor that this process may use, within reason."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, available)
