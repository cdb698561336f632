"""Work on many inputs, whoever does it: one process, or many on a cluster.

A *work* says what is done with an input, a *runner* where. What a work finds out about an input depends on that input
alone, so every runner gives the same results, whatever is done twice, elsewhere or in another order.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dualrs.sampling.backends import NotAFixedFunctionError
from dualrs.sampling.intake import Intake, Listed
from dualrs.sampling.streams import ModelStats

NO_FAULT_OF_AN_ITEM = (NotAFixedFunctionError, torch.OutOfMemoryError, MemoryError)


@dataclass(frozen=True)
class Item:
    """One input to work on.

    Attributes:
        key: names it in what is found out about it; every item of a run has its own.
        x: the input.
        about: whatever else the work needs to know of it, picklable.
    """

    key: int
    x: Tensor
    about: Any = None


@dataclass(frozen=True)
class Done:
    """What was found out about an input: ``result`` is picklable."""

    key: int
    result: Any


@dataclass(frozen=True)
class Failed:
    """An input on which the work raises, also when it is on that input alone."""

    key: int
    error: str
    traceback: str


class Work(ABC):
    """What is done with every input; picklable, so that it can be done elsewhere.

    Attributes:
        stats: what its models have done so far, by name.
    """

    stats: Mapping[str, ModelStats]

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Makes ready, and describes the functions that will run, as JSON values; all who share a run must agree."""

    @abstractmethod
    def run(self, items: Intake[Item]) -> Iterator[Done]:
        """Gives results as they are found, in any order; items are taken only as there is room for them."""


class Crew(Protocol):
    """Who does a work."""

    @property
    def functions(self) -> Mapping[str, Any]:
        """What the work's `describe` gives, on every worker."""
        ...

    @property
    def stats(self) -> Mapping[str, ModelStats]:
        """Of all models, summed over the workers; as of now."""
        ...

    def run(self, items: Iterable[Item]) -> Iterator[Done | Failed]:
        """Works on all items, and gives one result for each, in any order.

        What raises on an input by itself is a result like others; what raises otherwise passes through.
        """
        ...

    def record(self) -> Mapping[str, Any]:
        """What a run's record should say of the workers and their fate, as JSON values."""
        ...


class Runner(Protocol):
    """Where work is done."""

    def hire(self, work: Work) -> AbstractContextManager[Crew]:
        """Gets workers ready for a work, until the context ends.

        Raises:
            RuntimeError: there are none, or their functions differ.
        """
        ...


class LocalRunner:
    """Does all work in this process."""

    @contextmanager
    def hire(self, work: Work) -> Iterator[Crew]:
        """See `Runner.hire`."""
        yield _Here(work)


class _Here:
    def __init__(self, work: Work) -> None:
        self._work = work
        self.functions, self.stats = work.describe(), work.stats

    def run(self, items: Iterable[Item]) -> Iterator[Done | Failed]:
        return guarded(self._work, Listed(items))

    def record(self) -> Mapping[str, Any]:
        return {}


def guarded(work: Work, items: Intake[Item]) -> Iterator[Done | Failed]:
    """Does a work; where it raises, every item that was under way is done by itself, and fails by itself.

    Raises:
        NotAFixedFunctionError, torch.OutOfMemoryError, MemoryError: which are no fault of an item.
        Exception: whatever the intake raises.
    """
    taken = _Remembered(items)
    while True:
        try:
            for done in work.run(taken):
                taken.under_way.pop(done.key, None)
                yield done
        except NO_FAULT_OF_AN_ITEM:
            raise
        except Exception as error:
            if error is taken.error:
                raise
            for item in list(taken.under_way.values()):
                yield _alone(work, item)
                del taken.under_way[item.key]
        else:
            return


def add_stats(sums: dict[str, ModelStats], more: Mapping[str, ModelStats]) -> None:
    """Adds what other workers' models did, in place; what they ran on is taken from the first."""
    for name, stats in more.items():
        known = sums.setdefault(name, replace(stats, votes=0, slots=0, seconds=0.0))
        for amount in ("votes", "slots", "seconds"):
            setattr(known, amount, getattr(known, amount) + getattr(stats, amount))


def _alone(work: Work, item: Item) -> Done | Failed:
    try:
        (done,) = work.run(Listed([item]))
    except NO_FAULT_OF_AN_ITEM:
        raise
    except Exception as error:
        return Failed(item.key, f"{type(error).__name__}: {error}", traceback.format_exc())
    return done


class _Remembered:
    """An intake that knows which items were taken and are not done."""

    def __init__(self, items: Intake[Item]) -> None:
        self._items = items
        self.under_way: dict[int, Item] = {}
        self.error: Exception | None = None

    def take(self, *, wait: bool) -> Item | None:
        try:
            item = self._items.take(wait=wait)
        except Exception as error:
            self.error = error
            raise
        if item is not None:
            self.under_way[item.key] = item
        return item
