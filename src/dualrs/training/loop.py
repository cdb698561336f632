"""The one training loop: epochs over images, on any device, resumable after any of them."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.training.batches import Batch, batches
from dualrs.training.checkpoint import Checkpoint
from dualrs.training.config import Optimization
from dualrs.training.devices import new_generator, on_device
from dualrs.training.processes import Team, led, quietly, team

Objective = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]]]
"""``objective(model, batch)`` returns the loss to minimise and metrics to average."""


class TrainingDivergedError(RuntimeError):
    """The loss stopped being a finite number; the last good checkpoint is kept."""


def fit(
    model: nn.Module,
    objective: Objective,
    images: NDArray[np.uint8],
    plan: Optimization,
    *,
    folder: Path,
    seed: int,
    settings: Mapping[str, Any],
    description: str,
    rows: NDArray[np.int64] | None = None,
    watch: Callable[[int, Mapping[str, float]], None] | None = None,
    device: str = "cpu",
) -> None:
    """Minimises an objective over images, in place; continues from the folder's checkpoint if there is one.

    An interrupted and resumed training equals an uninterrupted one exactly, on the same machine and device: every
    epoch's randomness is derived from (seed, epoch) alone, and the checkpoint holds all other state.

    Processes that have joined (`dualrs.training.processes`) train together and must all make the same call. Each takes
    its part of every batch, and but for rounding the result is that of one process with the whole batch; the number of
    processes may change where a training is continued. The first of them reads and writes all files.

    Args:
        model: trained in place and left on the CPU, in eval mode. Weights that require no gradient stay as they are,
            and layers of which that is true are in eval mode throughout.
        objective: see `Objective`.
        images: shape (N, H, W, C); they may be mapped from a file, since only a batch of them is read at a time.
        plan: optimiser, schedule, precision and augmentation; its batches are those of all processes together.
        folder: receives ``checkpoint.pt`` after every epoch and ``metrics.jsonl``, one line per epoch.
        seed: all randomness of the training derives from it.
        settings: everything else that the result depends on, as JSON values; a checkpoint made with others is
            refused, naming what differs.
        description: what the progress bar says.
        rows: of the images that take part; None: all do. Among these an objective's row numbers count.
        watch: called after every epoch with its number, from 1, and the averaged metrics.
        device: where the training runs; a checkpoint can be continued on another one.

    Raises:
        StaleCheckpointError: the folder's checkpoint was made with another seed or other settings.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    members = team()
    if members.leads:
        folder.mkdir(parents=True, exist_ok=True)
    rows = np.arange(len(images)) if rows is None else rows
    model = model.to(memory_format=torch.channels_last)
    steps = plan.epochs * math.ceil(len(rows) / plan.batch_size)
    with quietly(not members.leads), on_device(model, device) as place:
        optimizer = _optimizer(model, plan)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps, plan))
        checkpoint = Checkpoint(folder, model, optimizer, schedule, {"seed": seed, **settings})
        first_epoch = checkpoint.restore()
        with Progress(description, total=plan.epochs * len(rows), unit="images") as progress:
            progress.advance(first_epoch * len(rows), measured=False)
            for epoch in range(first_epoch, plan.epochs):
                started, sums = time.perf_counter(), defaultdict[str, float](float)
                generator = new_generator(place).manual_seed(seed * 100_003 + epoch)
                _training_mode(model)
                for batch in batches(images, rows, plan, epoch=epoch, generator=generator, place=place, team=members):
                    with torch.autocast(place.type, torch.bfloat16, enabled=plan.precision == "bf16"), batch.shared():
                        loss, metrics = objective(model, batch)
                    values = _values({"loss": loss, **metrics}, batch, members)
                    if not math.isfinite(values["loss"]):
                        raise TrainingDivergedError(_diverged(description, values["loss"], folder, epoch))
                    optimizer.zero_grad(set_to_none=True)
                    (loss * batch.weight).backward()
                    members.add_gradients(model)
                    if plan.gradient_norm is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), plan.gradient_norm)
                    optimizer.step()
                    schedule.step()
                    for name, value in values.items():
                        sums[name] += value * batch.size
                    note = f"epoch {epoch + 1}/{plan.epochs} loss {values['loss']:.3f}"
                    progress.advance(batch.size, note=note)
                averages = {name: total / len(rows) for name, total in sums.items()}
                seconds = round(time.perf_counter() - started, 2)
                # The log first: a line without its checkpoint is replaced on resumption, the reverse would be lost.
                _log(folder, {"epoch": epoch + 1, **averages, "seconds": seconds})
                checkpoint.save(epoch + 1)
                if watch is not None:
                    watch(epoch + 1, averages)
    model.eval()


def _values(metrics: Mapping[str, Tensor], batch: Batch, members: Team) -> dict[str, float]:
    """The means over the whole batch, given those over the images of this process."""
    added = members.add([value.item() * batch.weight for value in metrics.values()])
    return dict(zip(metrics, added, strict=True))


def _diverged(description: str, loss: float, folder: Path, epoch: int) -> str:
    kept = f"the checkpoint in {folder} holds the {epoch} good epochs" if epoch else "there is no checkpoint yet"
    return (
        f"{description}: the loss became {loss} in epoch {epoch + 1}; {kept}. Lower the learning rate or the loss "
        "weights."
    )


def _training_mode(model: nn.Module) -> None:
    model.train()
    for part in model.modules():
        weights = list(part.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            part.eval()  # a frozen part is used as it will be: neither dropout nor new statistics


def _optimizer(model: nn.Module, plan: Optimization) -> torch.optim.Optimizer:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return torch.optim.SGD(
        weights,
        lr=plan.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=plan.weight_decay,
    )


def _rate(done: float, plan: Optimization) -> float:
    """The learning rate relative to its peak after a share ``done`` of all steps."""
    if plan.schedule == "cosine" or done < plan.warmup:
        return _relative_rate(done, plan.warmup)
    if plan.schedule == "linear":
        return (1 - done) / (1 - plan.warmup)
    epoch = done * plan.epochs + 1e-9  # a milestone itself is reached, whatever the division rounds to
    return float(plan.factor ** sum(epoch >= milestone for milestone in plan.milestones))


def _relative_rate(done: float, warmup: float) -> float:
    """A linear rise to 1, then a cosine down to 0."""
    if done < warmup:
        return (done + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


@led
def _log(folder: Path, entry: Mapping[str, float]) -> None:
    """Writes an epoch's metrics, replacing those of the same or later epochs from an interrupted attempt."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < entry["epoch"]]
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in [*kept, json.dumps(entry)]).encode())
