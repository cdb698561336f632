"""Checkpoints of a training: all its state after an epoch, and what it was made with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from dualrs.files import atomic_write
from dualrs.settings import changes
from dualrs.training.processes import led


class StaleCheckpointError(ValueError):
    """A checkpoint that was made with other settings than those at hand."""


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...


class Checkpoint:
    """The state of a training in ``checkpoint.pt``: tensors and numbers only, read without unpickling code.

    Where several processes train together their states are alike. The first one writes, and reads for all of them.

    Args:
        folder: where the file is.
        model: saved and restored, as are ``optimizer`` and ``schedule``.
        optimizer: with its momenta.
        schedule: of the learning rate.
        settings: everything that the result depends on, as JSON values.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        settings: Mapping[str, Any],
    ) -> None:
        self._path = folder / "checkpoint.pt"
        self._parts: dict[str, _Stateful] = {"model": model, "optimizer": optimizer, "schedule": schedule}
        self._made_with = json.dumps(settings, sort_keys=True)

    @led
    def save(self, epochs_done: int) -> None:
        """Replaces the checkpoint by the present state."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        with atomic_write(self._path) as file:
            torch.save({**state, "epochs_done": epochs_done, "made_with": self._made_with}, file)

    def restore(self) -> int:
        """Loads the checkpoint, if there is one, and returns the number of epochs already done.

        If there is none, all processes begin with the weights of the first one.

        Raises:
            StaleCheckpointError: it was made with other settings; the message names what differs.
        """
        state = self._read()
        if state is None:
            self._parts["model"].load_state_dict(self._first_weights())
            return 0
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return int(state["epochs_done"])

    @led
    def _read(self) -> dict[str, Any] | None:
        if not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        if state["made_with"] != self._made_with:
            then, now = json.loads(state["made_with"]), json.loads(self._made_with)
            raise StaleCheckpointError(
                f"{self._path} was made with other settings ({changes(then, now)}): "
                f"restore them, or remove {self._path.parent} to train anew"
            )
        return state

    @led
    def _first_weights(self) -> dict[str, Any]:
        # On the CPU: a tensor on the GPU of one process would arrive on the same GPU in another.
        return {name: value.cpu() for name, value in self._parts["model"].state_dict().items()}
