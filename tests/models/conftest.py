"""Published checkpoints beside the repository, and the real test images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dualrs.data import DataUnavailableError, fetch, load

CHECKPOINTS = Path(__file__).parents[2].parent / "shared" / "models"


@pytest.fixture(scope="session")
def published():
    """The path of a published checkpoint by its file name."""

    def find(name):
        path = CHECKPOINTS / name
        if not path.is_file():
            pytest.skip(f"the published weights {name} are not beside this repository")
        return path

    return find


@pytest.fixture(scope="session")
def cifar10():
    try:
        fetch("cifar10")
        return load("cifar10")
    except DataUnavailableError as error:
        pytest.skip(f"CIFAR-10 cannot be had: {error}")


@pytest.fixture(scope="session")
def accuracy():
    """The accuracy of a network on a data set of images, in percent."""

    @torch.inference_mode()
    def measure(network, data):
        network.to(memory_format=torch.channels_last)
        right = 0
        for rows in np.array_split(np.arange(len(data)), -(-len(data) // 250)):
            images, labels = data.tensors(rows)
            logits = network(images.contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(1) == labels).sum())
        return 100 * right / len(data)

    return measure
