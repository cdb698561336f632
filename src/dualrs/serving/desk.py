"""The desk: takes inputs in from many clients, and has one engine certify all of them at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

import torch

from dualrs.certificates import Certificate
from dualrs.evaluation.metadata import describe_functions
from dualrs.sampling import Done, Failed, Intake, Item, Job, Mapped, ModelStats, Queued, Work, guarded
from dualrs.serving.limits import Limits
from dualrs.serving.ticket import Ending, Ticket, sliced
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

_SHARE = 8
"""Into how many parts a batch is divided between inputs, where there are so many."""

_log = logging.getLogger("dualrs.serving")


class BusyError(RuntimeError):
    """There is no room for another input; `retry_after` says in how many seconds there is likely to be."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the service is at its limit; come back in {retry_after} s")
        self.retry_after = retry_after


class ClosedError(RuntimeError):
    """The service is ending, or its engine has failed, and takes nothing in."""


class InputError(RuntimeError):
    """A base classifier fails on this input."""


class Desk:
    """Certifies inputs for many clients with one engine, in a thread of its own.

    Up to ``limits.active`` inputs share every batch, however much they ask for; ``limits.waiting`` more wait, in the
    order in which they came.

    Args:
        model: what answers; it must say what inputs it takes.
        limits: how many inputs at a time.

    Raises:
        ValueError: the model does not say what inputs it takes.
    """

    def __init__(self, model: SmoothedClassifier | DualSmoothedClassifier, limits: Limits) -> None:
        if model.input is None:
            raise ValueError("the model does not say what inputs it takes: save it with `model.input` set")
        self.model, self.limits = model, limits
        self._work = _Answering(model, limits.active)
        self._queue: Queued[Item] = Queued()
        self._promised: dict[int, tuple[Ticket, Future[Mapping[str, Certificate]]]] = {}
        self._lock = threading.Lock()
        self._numbers = 0
        self._finished: deque[float] = deque(maxlen=64)  # when
        self._open = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self.functions: Mapping[str, Any] = {}

    @property
    def ready(self) -> bool:
        """Whether inputs are taken in."""
        return self._open

    @property
    def stats(self) -> Mapping[str, ModelStats]:
        """What the models have done."""
        return self._work.stats

    @property
    def under_way(self) -> int:
        """How many inputs are being certified or wait for it."""
        return len(self._promised)

    def open(self) -> None:
        """Makes the backends, and begins."""
        self.functions = self._work.describe()
        self._open = True
        self._thread.start()

    def refuse_more_than(self, wanted: int) -> None:
        """Returns if so many inputs would be taken in now: before they are read, that spares the work.

        Raises:
            BusyError: there is no room for all of them.
            ClosedError: nothing is taken in any more.
        """
        if not self._open:
            raise ClosedError("the service is ending")
        room = self.limits.active + self.limits.waiting - len(self._promised)
        # A batch that is larger than all the room there is would never get in.
        if room < wanted and self._promised:
            raise BusyError(self._retry_after(wanted))

    def admit(self, tickets: list[Ticket]) -> list[Future[Mapping[str, Certificate]]]:
        """Takes inputs in, all or none; the futures give certificates by rule.

        Raises:
            BusyError: there is no room for all of them.
            ClosedError: nothing is taken in any more.
        """
        with self._lock:
            self.refuse_more_than(len(tickets))
            futures = []
            for ticket in tickets:
                self._numbers += 1
                future: Future[Mapping[str, Certificate]] = Future()
                future.set_running_or_notify_cancel()  # whoever stops waiting cannot cancel it under the engine
                self._promised[self._numbers] = ticket, future
                self._queue.put(Item(self._numbers, ticket.x, ticket))
                futures.append(future)
            return futures

    def drain(self) -> None:
        """Takes nothing in any more; what is under way gets `Limits.grace` seconds to finish by itself."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            self._queue.close()
            hurry = threading.Timer(self.limits.grace, self._hurry)
            hurry.daemon = True
            hurry.start()

    def close(self) -> None:
        """Drains, and waits until everything is answered."""
        self.drain()
        if self._thread.is_alive():
            self._thread.join(self.limits.grace + 30.0)

    def _hurry(self) -> None:
        for ticket, _ in list(self._promised.values()):
            ticket.end(Ending.SHUTDOWN)

    def _retry_after(self, wanted: int) -> int:
        """Seconds until there is room for so many and half of the queue, at the pace at which inputs were finished.

        Others come back too. So the queue does not run empty, and few come in vain.
        """
        if len(self._finished) < 2:
            return 5
        pace = (time.monotonic() - self._finished[0]) / len(self._finished)
        return max(1, min(60, round(pace * (wanted + self.limits.waiting / 2))))

    def _serve(self) -> None:
        try:
            for found in guarded(self._work, self._queue):
                self._hand_over(found)
        except BaseException as error:  # whoever waits must learn of it, whatever it is
            _log.exception("the engine failed")
            with self._lock:
                self._open = False
                broken, self._promised = self._promised, {}
            for _, future in broken.values():
                future.set_exception(ClosedError(f"the engine failed: {type(error).__name__}"))

    def _hand_over(self, found: Done | Failed) -> None:
        with self._lock:
            ticket, future = self._promised.pop(found.key)
            self._finished.append(time.monotonic())
        if isinstance(found, Failed):
            _log.error("a base classifier fails on an input", extra={"error": found.error.partition(":")[0]})
            future.set_exception(InputError("a base classifier fails on this input"))
        else:
            ticket.end(Ending.COMPLETE)  # unless it was ended before
            future.set_result(found.result)


class _Answering(Work):
    """Certifies tickets; the result is their certificates by rule."""

    def __init__(self, model: SmoothedClassifier | DualSmoothedClassifier, at_once: int) -> None:
        self._model = model
        self._engine = model.engine(at_once=at_once)
        self.stats = self._engine.stats
        self._rows = max(1, self._engine.batch_size // _SHARE)

    def describe(self) -> Mapping[str, Any]:
        assert self._model.input is not None  # the desk insists
        return describe_functions(self._model, torch.Size(self._model.input.shape))

    def run(self, items: Intake[Item]) -> Iterator[Done]:
        for result in self._engine.run(Mapped(items, self._job)):
            certificates = {rule: outcome.certificate for rule, outcome in result.outcomes.items()}
            yield Done(cast(int, result.key), certificates)

    def _job(self, item: Item) -> Job:
        ticket: Ticket = item.about
        ticket.again()
        procedures = {
            rule: sliced(
                ticket.asked.procedure(self._model, rule, partial(ticket.proved, rule)), ticket, rule, self._rows
            )
            for rule in ticket.asked.rules
        }
        return Job(item.key, item.x, procedures, ticket.seed)
