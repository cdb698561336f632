"""Who works on what: items are pulled by workers, and those of a lost worker go to others."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from itertools import islice

from dualrs.sampling import Failed, Item


class Dispatcher:
    """Hands items out as they are asked for, so that slow and fast workers finish together.

    Once there are no new items, a worker that has nothing to do gets a copy of what another has been at for longest:
    results do not depend on who found them, so the first one counts, and no worker is waited for alone. What was lost
    with several workers may be what they are lost by. It gets a last chance, alone with a worker that has nothing else.

    Args:
        items: read as they are wanted; every key must be there once.
        most_losses: with how many workers an item may be lost before it is given up.
    """

    def __init__(self, items: Iterable[Item], *, most_losses: int = 4) -> None:
        self._items = iter(items)
        self._most_losses = most_losses
        self._next: deque[Item] = deque()
        self._suspects: deque[Item] = deque()
        self._under_way: dict[int, Item] = {}  # by key, the oldest first
        self._held: dict[Hashable, set[int]] = {}  # by worker
        self._holders: dict[int, int] = {}  # by key: how many workers have it
        self._losses: dict[int, int] = {}
        self._exhausted = False

    @property
    def finished(self) -> bool:
        """Whether there is a result for every item."""
        return not self._under_way and not self._suspects and not self._is_more()

    def share(self, worker: Hashable, wanted: int) -> list[Item]:
        """Gives a worker up to so many items more."""
        held = self._held.setdefault(worker, set())
        given: list[Item] = []
        if not wanted or any(map(self._is_suspect, held)):
            return given
        if self._suspects and not held:
            given = [self._suspects.popleft()]
        else:
            while len(given) < wanted and self._is_more():
                given.append(self._next.popleft())
            if not given and not held:
                # One copy of each is enough: what a lost worker was at is handed out anew.
                # One copy, and of what has none: others will soon have nothing to do either.
                alone = (item for key, item in self._under_way.items() if self._holders[key] == 1)
                given = list(islice((item for item in alone if not self._is_suspect(item.key)), 1))
        for item in given:
            self._under_way.setdefault(item.key, item)
            self._holders[item.key] = self._holders.get(item.key, 0) + 1
            held.add(item.key)
        return given

    def done(self, worker: Hashable, key: int) -> bool:
        """Takes note of a result; False if it is to be ignored: there was one already, or it was never asked for."""
        held = self._held.get(worker, set())
        if key not in held:
            return False
        held.discard(key)
        self._let_go(key)
        self._losses.pop(key, None)
        return self._under_way.pop(key, None) is not None

    def lose(self, worker: Hashable, reason: str) -> list[Failed]:
        """Takes back what a lost worker was at, and gives up what was lost too often."""
        given_up = []
        for key in self._held.pop(worker, set()):
            self._let_go(key)
            if key in self._holders or key not in self._under_way:
                continue  # someone else is at it, or has finished it
            item = self._under_way.pop(key)
            self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses[key] == self._most_losses:
                del self._losses[key]
                error = f"{self._most_losses} workers were lost that were at it, the last one alone: {reason}"
                given_up.append(Failed(key, error, reason))
            else:
                (self._suspects if self._is_suspect(key) else self._next).append(item)
        return given_up

    def _is_suspect(self, key: int) -> bool:
        return self._losses.get(key, 0) == self._most_losses - 1

    def _let_go(self, key: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]

    def _is_more(self) -> bool:
        """Whether there is another item that was not handed out, or is to be handed out again."""
        if not self._next and not self._exhausted:
            item = next(self._items, None)
            if item is None:
                self._exhausted = True
            else:
                self._next.append(item)
        return bool(self._next)
