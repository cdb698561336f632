"""Work on a Ray cluster: actors with one device each pull items; whatever happens to them, nothing is lost."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dualrs.distributed.dispatcher import Dispatcher
from dualrs.distributed.worker import Worker
from dualrs.extras import missing
from dualrs.progress import remark
from dualrs.sampling import Crew, Done, Failed, Item, ModelStats, Work, add_stats
from dualrs.settings import changes

_TICK = 1.0  # seconds after which the driver looks around although nobody has answered
_LONGEST_REST = 30.0  # seconds before a worker is replaced that was lost again and again
_SLACK = 30.0  # seconds that an answer may come late before its worker is taken to hang


class RayRunner:
    """Does work on the workers of a Ray cluster, each an actor with one device; needs the extra ``ray``.

    A worker that dies, hangs or raises is replaced, and what it was at is done by others. Results are those of
    `dualrs.sampling.LocalRunner`, on devices of one kind: the functions of all workers are compared.

    Args:
        address: of the cluster ("auto", "ray://HOST:10001", "HOST:6379"); None takes the cluster that this process is
            connected to, or else starts one on this machine, which ends with the process.
        workers: how many; None takes as many as the cluster has devices for when the work begins.
        device: "cpu", or "cuda" for a GPU for each worker.
        threads: processors for each worker, and threads of torch in it.
        patience: seconds in which a worker may get nothing done before it is taken to hang.
        most_failures: how often in a row a worker may be lost without having finished anything before it is given up.

    Raises:
        ValueError: a number is below 1, or ``patience`` is not positive.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        device: str = "cpu",
        threads: int = 1,
        patience: float = 600.0,
        most_failures: int = 6,
    ) -> None:
        for name, value in {"workers": workers, "threads": threads, "most_failures": most_failures}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not patience > 0:
            raise ValueError(f"patience must be positive; got {patience}")
        self._address, self._workers, self._threads = address, workers, threads
        self._resources: dict[str, float] = {"num_cpus": threads, "num_gpus": int(device.startswith("cuda"))}
        self._patience, self._most_failures = patience, most_failures

    @contextmanager
    def hire(self, work: Work) -> Iterator[Crew]:
        """See `dualrs.sampling.Runner.hire`; waits until there is a first worker."""
        ray = _ray()
        if not ray.is_initialized():
            _connect(ray, self._address, max(os.cpu_count() or 1, (self._workers or 1) * self._threads))
        crew = _Crew(
            ray,
            work,
            self._workers or _devices(ray, self._resources),
            resources=self._resources,
            patience=self._patience,
            most_failures=self._most_failures,
        )
        try:
            crew.gather()
            yield crew
        finally:
            crew.dismiss()


@dataclass(eq=False)
class _Place:
    """A worker, or whoever is in its place since it was lost."""

    number: int
    actor: Any = None
    pending: Any = None  # what it was asked for, as a reference
    since: float = 0.0  # when it was asked
    begin_at: float = 0.0  # when whoever replaces a lost one is to begin
    ready: bool = False
    failures: int = 0  # in a row
    stats: Mapping[str, ModelStats] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


class _Crew:
    """The workers of one work, seen from the driver."""

    def __init__(
        self, ray: Any, work: Work, places: int, *, resources: Mapping[str, float], patience: float, most_failures: int
    ) -> None:
        self._ray, self._patience, self._most_failures = ray, patience, most_failures
        self._threads = int(resources["num_cpus"])
        self._work = ray.put(work)
        self._class = ray.remote(**resources, max_restarts=0)(Worker)
        self._places = [_Place(number) for number in range(places)]
        self._stats_of_gone: dict[str, ModelStats] = {}
        self._lost: Counter[str] = Counter()
        self._numbers = itertools.count()
        self.functions: Mapping[str, Any] = {}

    @property
    def stats(self) -> Mapping[str, ModelStats]:
        """See `dualrs.sampling.Crew`."""
        sums: dict[str, ModelStats] = {}
        for stats in (self._stats_of_gone, *(place.stats for place in self._places)):
            add_stats(sums, stats)
        return sums

    def record(self) -> Mapping[str, Any]:
        """See `dualrs.sampling.Crew`."""
        workers = [dict(place.about) for place in self._places if place.about]
        return {"ray": self._ray.__version__, "workers": workers, "lost_workers": dict(self._lost)}

    def gather(self) -> None:
        """Starts all workers and waits for a first one, whose functions are those of the crew."""
        nothing = Dispatcher(())
        while not any(place.ready for place in self._places):
            for place in self._answered():
                list(self._hear(place, nothing))

    def dismiss(self) -> None:
        """Ends all workers."""
        for place in self._places:
            self._end(place)

    def run(self, items: Iterable[Item]) -> Iterator[Done | Failed]:
        """See `dualrs.sampling.Crew.run`."""
        keys: dict[int, int] = {}
        dispatcher = Dispatcher(self._numbered(items, keys))
        for place in self._places:
            if place.ready:
                self._ask(place, dispatcher.share(place.number, 1))
        for found in self._results(dispatcher):
            yield replace(found, key=keys.pop(found.key))

    def _numbered(self, items: Iterable[Item], keys: dict[int, int]) -> Iterator[Item]:
        """Items under numbers that no other of this crew has had: a worker may still be at one of an earlier run."""
        for item in items:
            number = next(self._numbers)
            keys[number] = item.key
            yield replace(item, key=number)

    def _results(self, dispatcher: Dispatcher) -> Iterator[Done | Failed]:
        while not dispatcher.finished:
            for place in self._answered():
                yield from self._hear(place, dispatcher)
            overdue = time.monotonic() - self._patience - _SLACK
            for place in [each for each in self._places if each.ready and each.since < overdue]:
                yield from self._replace(place, dispatcher, "it hung: it did not answer")

    def _answered(self) -> list[_Place]:
        """Those whose answers are there; waits a while for the first. Begins with replacements that are due."""
        for place in self._places:
            if place.actor is None and place.begin_at <= time.monotonic():
                place.actor = self._class.remote(self._work, self._threads)
                place.pending = place.actor.begin.remote()
        asked = {place.pending: place for place in self._places if place.actor is not None}
        if not asked:
            time.sleep(_TICK)
            return []
        found, rest = self._ray.wait(list(asked), timeout=_TICK, fetch_local=False)
        if found and rest:
            found += self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        return [asked[reference] for reference in found]

    def _hear(self, place: _Place, dispatcher: Dispatcher) -> Iterator[Done | Failed]:
        """Takes an answer, and asks for the next."""
        try:
            answer = self._ray.get(place.pending)
        except (ValueError, TypeError):
            raise  # the work's own, which would be raised by any worker
        except Exception as error:
            yield from self._replace(place, dispatcher, _reason(error))
            return
        if not place.ready:
            yield from self._welcome(place, dispatcher, *answer)
            return
        place.stats = answer.stats
        for found in answer.found:
            place.failures = 0
            if dispatcher.done(place.number, found.key):
                yield found
        if answer.stuck > self._patience:
            yield from self._replace(place, dispatcher, f"it hung: nothing moved for {answer.stuck:,.0f} s")
        else:
            self._ask(place, dispatcher.share(place.number, answer.wanted))

    def _welcome(
        self, place: _Place, dispatcher: Dispatcher, functions: Mapping[str, Any], about: Mapping[str, Any]
    ) -> Iterator[Failed]:
        """Takes a worker on, if its functions are those of the others."""
        self.functions = self.functions or functions
        if functions == self.functions:
            place.ready, place.about = True, about
            self._ask(place, dispatcher.share(place.number, 1))
        else:
            differ = changes(self.functions, functions)
            yield from self._replace(place, dispatcher, f"it would run other functions than the others ({differ})")

    def _ask(self, place: _Place, items: Sequence[Item]) -> None:
        place.pending = place.actor.exchange.remote(items)
        place.since = time.monotonic()

    def _replace(self, place: _Place, dispatcher: Dispatcher, reason: str) -> Iterator[Failed]:
        """Puts another worker in the place of one that is lost, a while later if it was not the first.

        Raises:
            RuntimeError: there is no place left in which workers get anything done.
        """
        where = f" on {place.about['host']}" if place.about else ""
        remark(f"lost worker {place.number}{where}: {reason.partition(chr(10))[0]}")
        self._lost[reason.partition("\n")[0]] += 1
        self._end(place)
        given_up = dispatcher.lose(place.number, reason)
        place.failures = 0 if given_up else place.failures + 1
        if place.failures == self._most_failures:
            self._places.remove(place)
            remark(f"worker {place.number} is not replaced any more: it was lost {place.failures} times in a row")
        elif place.failures:
            place.begin_at = time.monotonic() + min(2.0 ** (place.failures - 2), _LONGEST_REST) * (place.failures > 1)
        yield from given_up
        if not self._places:
            raise RuntimeError(f"no worker is left; the last one was lost because: {reason}")

    def _end(self, place: _Place) -> None:
        if place.actor is not None:
            with suppress(Exception):  # it may be dead already, as may be whoever is told to end it
                self._ray.kill(place.actor)
        add_stats(self._stats_of_gone, place.stats)
        place.actor, place.pending, place.ready, place.stats = None, None, False, {}


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise missing("Ray is not installed here", "ray") from error
    return ray


def _connect(ray: Any, address: str | None, processors: int) -> None:
    """Connects to a cluster, or starts one on this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # of a cluster of its own: the work is what the machine is here for
    on_stop = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        ray.init("local", num_cpus=processors, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    else:
        ray.init(address, **quiet)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_stop)  # Ray would end the process without another word


def _devices(ray: Any, resources: Mapping[str, float]) -> int:
    """For how many workers the cluster has room now.

    Raises:
        RuntimeError: for none.
    """
    here = ray.cluster_resources()
    kinds = {"num_cpus": "CPU", "num_gpus": "GPU"}
    room = min(int(here.get(kinds[name], 0) // amount) for name, amount in resources.items() if amount)
    if not room:
        raise RuntimeError(
            f"the cluster has no room for a worker, which needs {resources['num_cpus']:g} processors and "
            f"{resources['num_gpus']:g} GPUs; it has {here.get('CPU', 0):g} and {here.get('GPU', 0):g}"
        )
    return room


def _reason(error: Exception) -> str:
    """Why a worker was lost: what it raised, or what Ray knows of its end."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return f"it raised {type(cause).__name__}: {cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "\n".join([f"{type(error).__name__}: {lines[0] if lines else 'no reason known'}", *lines[1:]])
