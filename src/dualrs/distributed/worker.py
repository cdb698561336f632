"""A worker: one process with one device, which does a work on the items that it is given, several at a time."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dualrs.sampling import Done, Failed, Item, ModelStats, Work, guarded

_REST = 0.1  # seconds between two answers, at least, unless the worker is out of items
_HEARTBEAT = 1.0  # and at most
_MOST_AHEAD = 1024


@dataclass(frozen=True)
class Answer:
    """What a worker says when it is asked.

    Attributes:
        found: the results since the last answer.
        wanted: how many more items it should be given now.
        stats: of its models, since it began.
        stuck: for how many seconds nothing has moved although there is work.
    """

    found: Sequence[Done | Failed]
    wanted: int
    stats: Mapping[str, ModelStats]
    stuck: float


class Worker:
    """Does a work in a thread of its own; `exchange` brings it items and takes results away.

    Args:
        work: what is done.
        threads: of torch, for each operation.
    """

    def __init__(self, work: Work, threads: int) -> None:
        torch.set_num_threads(threads)
        self._work = work
        self._changed = threading.Condition()
        self._ahead: deque[Item] = deque()  # items that were brought and not taken
        self._found: list[Done | Failed] = []
        self._error: BaseException | None = None
        self._hungry = False  # whether an item was asked for when there was none
        self._taken = 0  # since the last answer
        self._under_way = 0
        self._slots, self._moved = 0, time.monotonic()

    def begin(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Makes ready and begins; gives the functions that will run, and where."""
        functions = self._work.describe()
        threading.Thread(target=self._do, name="work", daemon=True).start()
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        processor = platform.processor() or platform.machine()
        return functions, {"host": platform.node(), "process": os.getpid(), "processor": processor, "gpu": gpu}

    def exchange(self, items: Sequence[Item]) -> Answer:
        """Brings items, and answers as soon as these do not suffice or there are results; after a second at the latest.

        Raises:
            Exception: whatever ended the work.
        """
        arrived = time.monotonic()
        with self._changed:
            self._ahead.extend(items)
            self._hungry = False
            self._changed.notify_all()
            # Whoever brings nothing has nothing, and need not be told that it does not suffice.
            self._changed.wait_for(lambda: self._error or self._found or (items and self._hungry), _HEARTBEAT)
            rest = arrived + _REST - time.monotonic()
            self._changed.wait_for(lambda: self._error or (items and self._hungry), max(rest, 0.0))
            if self._error is not None:
                raise self._error
            found, self._found = self._found, []
            # As much again as was wanted meanwhile, and the same once more, so that there is always some ahead.
            ahead, self._taken = min(_MOST_AHEAD, max(1, 2 * self._taken)), 0
            return Answer(found, max(0, ahead - len(self._ahead)), dict(self._work.stats), self._stuck())

    def take(self, *, wait: bool) -> Item | None:
        """Gives the work its next item, see `dualrs.sampling.Intake`."""
        with self._changed:
            if not self._ahead:
                self._hungry = True
                self._changed.notify_all()
                if wait:
                    self._changed.wait_for(lambda: self._ahead)
            if not self._ahead:
                return None
            self._taken += 1
            self._under_way += 1
            return self._ahead.popleft()

    def _do(self) -> None:
        try:
            for found in guarded(self._work, self):
                with self._changed:
                    self._found.append(found)
                    self._under_way -= 1
                    self._changed.notify_all()
        except BaseException as error:  # which the driver is to learn of, whatever it is
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _stuck(self) -> float:
        slots = sum(stats.slots for stats in self._work.stats.values())
        if slots != self._slots or not self._under_way:
            self._slots, self._moved = slots, time.monotonic()
        return time.monotonic() - self._moved
