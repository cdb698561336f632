"""The processes that train together: who they are, what one of them does for all, and what they add up.

`torchrun`, or SLURM's `srun`, starts one command several times, on one machine or on many. Lightning Fabric finds out
which of them a process is, gives it a device and connects it with the others; torch.distributed carries what they tell
each other. A process that was started by itself is alone: it asks neither, and no group of processes is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from dualrs.progress import console, remark
from dualrs.training.devices import check_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

P = ParamSpec("P")
T = TypeVar("T")

_SAID_BY = {"torchrun": "TORCHELASTIC_RUN_ID", "srun": "SLURM_PROCID"}

# Labels of a large data set take one process hours, and waiting is no failure. Adding up in a step of training has
# torch's usual limit of half an hour instead, so that a machine that is lost is noticed.
_WITHOUT_END = timedelta(days=10_000)


class LeaderError(RuntimeError):
    """The first process has failed at what the others were waiting for."""


@dataclass(frozen=True)
class Team:
    """Processes that train together, as one of them sees them.

    Attributes:
        rank: which of them this one is, from 0.
        size: how many they are.
        local_rank: which of those on its machine it is, from 0.
        fabric: what connects them; None for a process that is alone.
        patient: the same processes, as a group in which waiting has no end.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    fabric: Fabric | None = None
    patient: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the one that writes files and says how far things are."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of so many things are this process's; the parts of two processes differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def add(self, numbers: Sequence[float]) -> list[float]:
        """The sum over all processes of each number, in double precision."""
        if self.fabric is None:
            return list(numbers)
        own = torch.tensor(numbers, dtype=torch.float64, device=self.fabric.device)
        added: list[float] = self._sum(own).tolist()
        return added

    def add_gradients(self, model: nn.Module) -> None:
        """Replaces every gradient by its sum over all processes; a weight that none has used is left without one.

        This comes after the backward pass, and not within it as in torch's DistributedDataParallel, which relies on one
        call of `forward` for every step: attacks and regularisers call a network several times, in either mode, and a
        denoiser's loss calls a part of another one. A single message of all gradients works for any objective.
        """
        if self.fabric is None:
            return
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        used = torch.tensor([float(weight.grad is not None) for weight in weights], device=self.fabric.device)
        own = (torch.zeros_like(w) if w.grad is None else w.grad for w in weights)
        sizes = [len(weights), *(weight.numel() for weight in weights)]
        used, *added = self._sum(torch.cat([used, *(gradient.flatten() for gradient in own)])).split(sizes)
        for weight, users, gradient in zip(weights, used.tolist(), added, strict=True):
            if users:
                weight.grad = torch.empty_like(weight).copy_(gradient.view_as(weight))

    def wait(self) -> None:
        """Returns when all processes have called it, however long that takes."""
        if self.fabric is not None:
            torch.distributed.barrier(group=self.patient)

    def tell(self, message: Any) -> Any:
        """The message of the first process, in all of them; the others wait for it, however long it takes."""
        messages = [message]
        torch.distributed.broadcast_object_list(messages, src=0, group=self.patient)
        return messages[0]

    def _sum(self, values: Tensor) -> Tensor:
        assert self.fabric is not None
        added = self.fabric.all_reduce(values, reduce_op="sum")
        assert isinstance(added, Tensor)
        return added


ALONE = Team()

_present: ContextVar[Team] = ContextVar("team", default=ALONE)


def team() -> Team:
    """The processes that train together with this one, as far as it has joined them."""
    return _present.get()


def join(device: str) -> Team:
    """Joins the processes that were started together with this one; one that was started by itself stays alone.

    Afterwards the device "cuda" is the GPU that is this process's own.

    Args:
        device: where networks run, "cpu" or "cuda" where there are several processes.

    Raises:
        ValueError: several processes cannot have this device, or there are too few of it.
        RuntimeError: the processes cannot be connected, or SLURM does not say how they are spread over machines.
    """
    if team() is not ALONE or not any(name in os.environ for name in _SAID_BY.values()):
        return team()
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    # An environment of torchrun's goes first: it may have been started within a job of SLURM's.
    kinds: tuple[type[ClusterEnvironment], ...] = (TorchElasticEnvironment, SLURMEnvironment)
    found = next((kind() for kind in kinds if kind.detect()), None)
    if found is None or found.world_size() == 1:
        return ALONE
    here = int(os.environ["SLURM_NTASKS_PER_NODE" if isinstance(found, SLURMEnvironment) else "LOCAL_WORLD_SIZE"])
    members = _connect(found, _devices(device, here))
    _present.set(members)
    if members.leads:
        machines = members.size // here
        remark(f"{members.size} processes train together{f' on {machines} machines' if machines > 1 else ''}")
    return members


def _devices(name: str, count: int) -> list[torch.device]:
    """The devices of the processes on a machine."""
    if name == "cpu":
        return [torch.device(name)] * count
    if name != "cuda":
        raise ValueError(f"several processes train on cpu or cuda, each on a GPU of its own; got {name!r}")
    gpus = torch.cuda.device_count()
    if not gpus:
        check_device(name)  # says what there is instead
    if 1 < gpus < count:
        raise ValueError(f"{count} processes on a machine with {gpus} GPUs: start as many as there are GPUs")
    return [torch.device(name, i % gpus) for i in range(count)]  # SLURM may show each process its own GPU alone


def _connect(environment: ClusterEnvironment, devices: Sequence[torch.device]) -> Team:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    machines = environment.world_size() // len(devices)
    strategy = DDPStrategy(parallel_devices=list(devices), cluster_environment=environment)
    # Precision is the plan's own, set where an objective is computed: Fabric is left with full precision.
    fabric = Fabric(strategy=strategy, devices=len(devices), num_nodes=machines, precision="32-true")
    fabric.launch()
    # Masks of dropout are drawn from torch's own generator, which begins alike in every process.
    torch.manual_seed(torch.initial_seed() + fabric.global_rank)
    patient = torch.distributed.new_group(backend="gloo", timeout=_WITHOUT_END)
    return Team(fabric.global_rank, fabric.world_size, fabric.local_rank, fabric, patient)


def led(work: Callable[P, T]) -> Callable[P, T]:
    """Makes a function one that the first process calls for all; the others wait for it and are given its result.

    Within the call that process is alone: it may train and vote as if there were no others. What has been made reaches
    them as a message, not by the files that hold it, which another machine may see late or never. The result must be
    one that can be pickled.

    Raises:
        LeaderError: in the other processes, where the call raised anything in the first one.
    """

    @wraps(work)
    def shared(*args: P.args, **kwargs: P.kwargs) -> T:
        members = team()
        if members.size == 1:
            return work(*args, **kwargs)
        if not members.leads:
            result, failure = members.tell(None)
            if failure:
                raise LeaderError(f"the first process has stopped: {failure}")
            given: T = result
            return given
        before = _present.set(ALONE)
        try:
            made = work(*args, **kwargs)
        except BaseException as error:
            with suppress(RuntimeError):  # of those who are not there any more
                members.tell((None, f"{type(error).__name__}: {error}"))
            raise
        finally:
            _present.reset(before)
        members.tell((made, ""))
        return made

    return shared


@contextmanager
def one_of_each_machine_first() -> Iterator[None]:
    """Lets a process of each machine go ahead, so that the others find what it has fetched or decoded there.

    Of all of them only the first one says how far it is.
    """
    members = team()
    if members.local_rank > 0:
        members.wait()
    with quietly(not members.leads):
        yield
    if members.local_rank == 0:
        members.wait()


@contextmanager
def quietly(silent: bool = True) -> Iterator[None]:
    """Keeps progress and remarks to itself; errors that come out of the block are reported as ever."""
    before, console.quiet = console.quiet, console.quiet or silent
    try:
        yield
    finally:
        console.quiet = before
