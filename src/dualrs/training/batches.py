"""Batches: what an objective gets for one step, and how it draws and averages, whether the batch is shared or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dualrs.data import random_crop_flip
from dualrs.training.config import Optimization
from dualrs.training.processes import Team
from dualrs.training.statistics import SharedBatchNorm, total


@dataclass(frozen=True)
class Batch:
    """What an objective gets for one step. All that its methods return is on the device of the images.

    Where several processes train together the images are a part of the batch. Every process then draws for the whole
    batch and keeps what belongs to its part: a draw costs next to nothing beside a network, and so what is drawn for an
    image does not depend on how many processes there are.

    Attributes:
        images: augmented images (B, C, H, W) in [0, 1].
        rows: their row numbers (B,), on the CPU, as are the tables that an objective finds its targets in.
        generator: the source of all randomness; its own device may differ from that of the images.
        done: share of the training that is done, in [0, 1).
        whole: row numbers of the whole batch, if other processes have the rest of it.
        first: which of these the first of these images is.
        weight: of its loss among those of all processes, which together weigh 1.
    """

    images: Tensor
    rows: Tensor
    generator: torch.Generator
    done: float = 0.0
    whole: Tensor | None = None
    first: int = 0
    weight: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where the images and the network are."""
        return self.images.device

    @property
    def size(self) -> int:
        """How many images the whole batch has."""
        return len(self.rows if self.whole is None else self.whole)

    def pick(self, table: Tensor) -> Tensor:
        """The rows of these images in a table of all training images, which is on the CPU."""
        return table[self.rows].to(self.device)

    def normal(self, *copies: int) -> Tensor:
        """Draws standard normal noise for each image (B, C, H, W), or for each of its copies (m, B, C, H, W)."""
        shape = (*copies, self.size, *self.images.shape[1:])
        return self._own(torch.randn(shape, generator=self.generator, device=self.generator.device), len(copies))

    def uniform(self, *copies: int) -> Tensor:
        """Draws a number from [0, 1) for each image (B,), or for each of its copies (m, B)."""
        shape = (*copies, self.size)
        return self._own(torch.rand(shape, generator=self.generator, device=self.generator.device), len(copies))

    def integers(self, below: int) -> Tensor:
        """Draws a whole number for each image (B,), uniformly from 0 to ``below``, which is left out."""
        shape = (self.size,)
        return self._own(torch.randint(below, shape, generator=self.generator, device=self.generator.device))

    def choices(self, shares: Tensor) -> Tensor:
        """Draws a column for each image (B,), by the shares in its row of a table (N, K)."""
        rows = shares[self.rows if self.whole is None else self.whole].to(self.generator.device)
        return self._own(torch.multinomial(rows, 1, generator=self.generator).squeeze(1))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the whole batch of what is computed for each image, (B, …) to (…), with its gradient.

        A loss that is a mean over images needs none of this: such means are brought together by their weights.
        """
        return values.mean(dim=0) if self.whole is None else total(values.sum(dim=0)) / self.size

    def variance(self, values: Tensor) -> Tensor:
        """The variance of all numbers that are computed for the images of the whole batch, (B, …) to a scalar."""
        if self.whole is None:
            return values.var()
        count = self.size * values[0].numel()
        squares = (values - self.mean(values).mean()).square()
        return self.mean(squares).mean() * count / (count - 1)

    def shared(self) -> AbstractContextManager[object]:
        """In which a network takes the statistics of the whole batch, where other processes have the rest of it."""
        return nullcontext() if self.whole is None else SharedBatchNorm()

    def _own(self, drawn: Tensor, dim: int = 0) -> Tensor:
        return drawn.narrow(dim, self.first, len(self.rows)).to(self.device)


def batches(
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    plan: Optimization,
    *,
    epoch: int,
    generator: torch.Generator,
    place: torch.device,
    team: Team,
) -> Iterator[Batch]:
    """A process's part of the batches of an epoch, in an order and with an augmentation that the generator draws.

    A batch of fewer images than there are processes is not shared: each of them gets all of it.
    """
    order = torch.randperm(len(rows), generator=generator, device=generator.device).cpu().split(plan.batch_size)
    for step, numbers in enumerate(order):
        split = 1 < team.size <= len(numbers)
        part = team.part(len(numbers)) if split else slice(0, len(numbers))
        own = numbers[part]
        batch = _to(place, torch.from_numpy(images[rows[own.numpy()]]))
        batch = batch.permute(0, 3, 1, 2).float().div_(255)
        batch = random_crop_flip(
            batch,
            padding=plan.crop_padding,
            flip=plan.flip,
            generator=generator,
            first=part.start,
            total=len(numbers),
        )
        yield Batch(
            batch,
            own,
            generator,
            (epoch + step / len(order)) / plan.epochs,
            whole=numbers if split else None,
            first=part.start,
            weight=len(own) / len(numbers) if split else 1 / team.size,
        )


def _to(place: torch.device, pixels: Tensor) -> Tensor:
    """Copies to the device; to a GPU without waiting for what it is still busy with."""
    if place.type != "cuda":
        return pixels.to(place)
    return pixels.pin_memory().to(place, non_blocking=True)
