"""Where work comes from: a list that is there from the beginning, or a queue that others fill meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")


class Intake(Protocol[T_co]):
    """Gives one piece of work after the other, to whoever asks when there is room for it."""

    def take(self, *, wait: bool) -> T_co | None:
        """The next piece; None if there is none at the moment, or, after waiting, if there will be none any more."""
        ...


class Listed(Generic[T]):
    """An intake from any iterable, which is read only as far as work is taken."""

    def __init__(self, pieces: Iterable[T]) -> None:
        self._pieces = iter(pieces)

    def take(self, *, wait: bool) -> T | None:
        """See `Intake.take`."""
        return next(self._pieces, None)


class Mapped(Generic[S, T]):
    """An intake whose pieces are made from those of another."""

    def __init__(self, intake: Intake[S], make: Callable[[S], T]) -> None:
        self._intake, self._make = intake, make

    def take(self, *, wait: bool) -> T | None:
        """See `Intake.take`."""
        piece = self._intake.take(wait=wait)
        return None if piece is None else self._make(piece)


class Queued(Generic[T]):
    """An intake that other threads fill while it is emptied."""

    def __init__(self) -> None:
        self._pieces: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, *pieces: T) -> None:
        """Adds pieces of work.

        Raises:
            RuntimeError: the intake is closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("this intake is closed and takes no more work")
            self._pieces.extend(pieces)
            self._changed.notify_all()

    def close(self) -> None:
        """Says that nothing more will come; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, *, wait: bool) -> T | None:
        """See `Intake.take`."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._pieces or self._closed)
            return self._pieces.popleft() if self._pieces else None

    def __len__(self) -> int:
        return len(self._pieces)


def as_intake(pieces: Intake[T] | Iterable[T]) -> Intake[T]:
    """Takes an intake as it is, and lists anything else."""
    return Listed(pieces) if isinstance(pieces, Iterable) else pieces
