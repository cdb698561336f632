"""A tiny world to train in: 8 x 8 images of two classes, told apart by their brightness."""

import numpy as np
import pytest

from dualrs.data import ArrayDataset


def make_data(count: int, split: str, seed: int) -> ArrayDataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(0, 40, (count, 8, 8, 1)) + 210 * labels[:, None, None, None]
    return ArrayDataset("bright", split, images.astype(np.uint8), labels, ("dark", "bright"))


@pytest.fixture
def train_data() -> ArrayDataset:
    return make_data(96, "train", 0)


@pytest.fixture
def test_data() -> ArrayDataset:
    return make_data(32, "test", 1)
