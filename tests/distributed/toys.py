"""Work that is quick, and that goes wrong as it is told to."""

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dualrs.sampling import Done, Item, ModelStats, Work


@dataclass
class Squaring(Work):
    """Squares what items are about, `width` of them at a time.

    Args:
        folder: where what has happened is noted, to be known to all processes.
        seconds: that each takes.
        poison: at which of these a process is killed.
        failing: at which it raises.
        hanging: at which it hangs, the first time.
        out_of_memory: how often it is out of memory, in all processes together.
        kinds: the functions of the first, the second, … process; the last for all others.
    """

    folder: Path
    seconds: float = 0.0
    width: int = 3
    poison: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    hanging: tuple[int, ...] = ()
    out_of_memory: int = 0
    kinds: tuple[str, ...] = ("cpu",)
    stats: dict = field(default_factory=dict)

    def describe(self):
        return {"squarer": {"device": self.kinds[min(self._count("begun"), len(self.kinds)) - 1]}}

    def run(self, items):
        under_way = []
        while True:
            while len(under_way) < self.width and (item := items.take(wait=not under_way)) is not None:
                under_way.append(item)
            if not under_way:
                return
            yield Done(under_way[0].key, self._square(under_way))
            under_way.pop(0)

    def _square(self, under_way):
        time.sleep(self.seconds)
        those = {item.about for item in under_way}
        if those & set(self.poison):
            os.kill(os.getpid(), signal.SIGKILL)
        if those & set(self.failing):
            raise ValueError(f"cannot square {those & set(self.failing)}")
        if those & set(self.hanging) and self._count("hung") == 1:
            time.sleep(1000)
        if self.out_of_memory and self._count("memory") <= self.out_of_memory:
            raise torch.OutOfMemoryError("of the GPU, 80 GiB are in use")
        stats = self.stats.setdefault("squarer", ModelStats(device="cpu"))
        stats.votes, stats.slots = stats.votes + 1, stats.slots + 1
        return under_way[0].about ** 2

    def _count(self, what):
        """How often this has happened, by now."""
        path = self.folder / what
        with path.open("a") as file:
            file.write(".")
        return path.stat().st_size


def items(count):
    return (Item(key, torch.tensor([float(key)]), about=key) for key in range(count))
