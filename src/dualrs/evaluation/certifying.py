"""Certification as work: every method on an input, in one pass that shares votes between methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch

from dualrs.certificates import Procedure
from dualrs.evaluation.metadata import describe_functions
from dualrs.sampling import Done, Engine, Intake, Item, Job, Mapped, Work
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier


class Certifying(Work):
    """Certifies inputs; the result is a mapping of methods to `dualrs.sampling.Outcome`.

    Args:
        model: whose base classifiers vote.
        methods: by name, what makes a fresh procedure.
        shape: of an input.
        seed: of the noise.
        noise: what draws it, by name; None takes what does here.
    """

    def __init__(
        self,
        model: SmoothedClassifier | DualSmoothedClassifier,
        methods: Mapping[str, Callable[[], Procedure]],
        shape: torch.Size,
        seed: int,
        noise: str | None = None,
    ) -> None:
        self._model, self._methods, self._shape, self._seed = model, methods, shape, seed
        self._engine: Engine = model.engine()
        self._noise = noise or self._engine.noise.name
        self.stats = self._engine.stats

    def __reduce__(self) -> tuple[Any, ...]:
        return Certifying, (self._model, self._methods, self._shape, self._seed, self._noise)

    def describe(self) -> Mapping[str, Any]:
        """See `Work.describe`; makes the backends.

        Raises:
            RuntimeError: other software would draw other noise here.
        """
        refuse_other_noise(self._noise, self._engine)
        return describe_functions(self._model, self._shape)

    def run(self, items: Intake[Item]) -> Iterator[Done]:
        """See `Work.run`."""
        for result in self._engine.run(Mapped(items, self._job)):
            yield Done(cast(int, result.key), result.outcomes)

    def _job(self, item: Item) -> Job:
        return Job(item.key, item.x, {name: make() for name, make in self._methods.items()}, self._seed)


def refuse_other_noise(noise: str, engine: Engine) -> None:
    """Raises RuntimeError unless an engine draws the noise of that name, in which are the versions that decide it."""
    if engine.noise.name != noise:
        raise RuntimeError(f"the noise here is {engine.noise.name}, and is to be {noise}: install the same versions")
