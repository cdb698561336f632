"""The one training loop: epochs over images in memory, resumable after any of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dualrs.data import random_crop_flip
from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.training.checkpoint import Checkpoint
from dualrs.training.config import Optimization


@dataclass(frozen=True)
class Batch:
    """What an objective gets for one step.

    Attributes:
        images: augmented images (B, C, H, W) in [0, 1].
        rows: their row numbers (B,), by which an objective finds its targets.
        generator: the source of all randomness.
        done: share of the training that is done, in [0, 1).
    """

    images: Tensor
    rows: Tensor
    generator: torch.Generator
    done: float = 0.0


Objective = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]]]
"""``objective(model, batch)`` returns the loss to minimise and metrics to average."""


class TrainingDivergedError(RuntimeError):
    """The loss stopped being a finite number; the last good checkpoint is kept."""


def fit(
    model: nn.Module,
    objective: Objective,
    images: Tensor,
    plan: Optimization,
    *,
    folder: Path,
    seed: int,
    settings: Mapping[str, Any],
    description: str,
    watch: Callable[[int, Mapping[str, float]], None] | None = None,
) -> None:
    """Minimises an objective over images, in place; continues from the folder's checkpoint if there is one.

    An interrupted and resumed training equals an uninterrupted one exactly, on the same machine: every
    epoch's randomness is derived from (seed, epoch) alone, and the checkpoint holds all other state.

    Args:
        model: trained in place and left in eval mode. Weights that require no gradient stay as they are, and
            layers of which that is true are in eval mode throughout.
        objective: see `Objective`.
        images: uint8, shape (N, H, W, C).
        plan: optimiser, schedule, precision and augmentation.
        folder: receives ``checkpoint.pt`` after every epoch and ``metrics.jsonl``, one line per epoch.
        seed: all randomness of the training derives from it.
        settings: everything else that the result depends on, as JSON values; a checkpoint made with others is
            refused, naming what differs.
        description: what the progress bar says.
        watch: called after every epoch with its number, from 1, and the averaged metrics.

    Raises:
        StaleCheckpointError: the folder's checkpoint was made with another seed or other settings.
        TrainingDivergedError: the loss became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(memory_format=torch.channels_last)
    batches = math.ceil(len(images) / plan.batch_size)
    optimizer = _optimizer(model, plan)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / (plan.epochs * batches), plan))
    checkpoint = Checkpoint(folder, model, optimizer, schedule, {"seed": seed, **settings})
    first_epoch = checkpoint.restore()

    with Progress(description, total=plan.epochs * len(images), unit="images") as progress:
        progress.advance(first_epoch * len(images), measured=False)
        for epoch in range(first_epoch, plan.epochs):
            started = time.perf_counter()
            generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
            sums: dict[str, float] = {}
            _training_mode(model)
            order = torch.randperm(len(images), generator=generator).split(plan.batch_size)
            for step, rows in enumerate(order):
                batch = images[rows].permute(0, 3, 1, 2).float().div_(255)
                batch = random_crop_flip(batch, padding=plan.crop_padding, flip=plan.flip, generator=generator)
                with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bf16"):
                    loss, metrics = objective(
                        model, Batch(batch, rows, generator, (epoch + step / batches) / plan.epochs)
                    )
                if not torch.isfinite(loss):
                    raise TrainingDivergedError(
                        f"{description}: the loss became {loss.item()} in epoch {epoch + 1}; the checkpoint in "
                        f"{folder} holds the {epoch} good epochs. Lower the learning rate or the loss weights."
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                for name, value in {"loss": loss, **metrics}.items():
                    sums[name] = sums.get(name, 0.0) + value.item() * len(rows)
                progress.advance(len(rows), note=f"epoch {epoch + 1}/{plan.epochs} loss {loss.item():.3f}")
            averages = {name: total / len(images) for name, total in sums.items()}
            seconds = time.perf_counter() - started
            # The log goes first: a line without its checkpoint is replaced on resumption, the reverse would be lost.
            _log(folder, {"epoch": epoch + 1, **averages, "seconds": round(seconds, 2)})
            checkpoint.save(epoch + 1)
            if watch is not None:
                watch(epoch + 1, averages)
    model.eval()


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


def _log(folder: Path, entry: Mapping[str, float]) -> None:
    """Writes an epoch's metrics, replacing those of the same or later epochs from an interrupted attempt."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["epoch"] < entry["epoch"]]
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in [*kept, json.dumps(entry)]).encode())
