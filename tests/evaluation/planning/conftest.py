"""A world of parallel slabs, where class probabilities under noise take all values between 0 and 1."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dualrs.data import ArrayDataset
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier


def slabs(axis, *cuts):
    """The number of the slab that a coordinate lies in, as logits."""

    def logits(batch):
        number = torch.bucketize(batch.flatten(1)[:, axis].contiguous(), torch.tensor(cuts))
        return torch.eye(len(cuts) + 1)[number]

    return logits


@pytest.fixture(scope="module")
def world():
    """Sixty inputs of two values: the first decides the class, the second the noise level."""
    images = np.random.default_rng(1).integers(0, 256, (60, 1, 2, 1), dtype=np.uint8)
    truth = np.digitize(images[:, 0, 0, 0] / 255, (0.35, 0.7)).astype(np.int64)
    experts = {sigma: slabs(0, 0.35, 0.7) for sigma in (0.12, 0.25, 0.5)}
    return SimpleNamespace(
        dual=DualSmoothedClassifier(slabs(1, 0.3, 0.7), 0.5, experts, 3),
        single=SmoothedClassifier(slabs(0, 0.35, 0.7), 0.25, 3),
        pair=DualSmoothedClassifier(slabs(1, 0.5), 0.5, {s: slabs(0, 0.35, 0.7) for s in (0.25, 0.5)}, 3),
        options={"n0": 50, "n": 2000, "alpha": 0.001},
        dataset=ArrayDataset("slabs", "test", images, truth, ("low", "middle", "high")),
    )
