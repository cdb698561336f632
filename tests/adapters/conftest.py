import pytest
import torch

from dualrs import DualSmoothedClassifier
from dualrs.models import InputSpec, Recipe, build_network


def network(classes, seed=0, scale=1.0):
    torch.manual_seed(seed)
    recipe = Recipe("resnet9", {"num_classes": classes, "width": 4, "mean": [0.5], "std": [0.2]})
    made = build_network(recipe).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(scale)
    return made


@pytest.fixture
def dual():
    """A dual model of 12 × 12 images and three classes, whose weights nobody trained."""
    expert = network(3, seed=1)
    model = DualSmoothedClassifier(
        network(2), sigma_e=0.5, experts={0.25: expert, 0.5: network(3, seed=2)}, num_classes=3, backend="torch"
    )
    model.input, model.classes = InputSpec((1, 12, 12)), ("a", "b", "c")
    return model


class Halves(torch.nn.Module):
    """The brighter half of four values, decided so clearly that few votes suffice."""

    def forward(self, x):
        return 10 * x.flatten(1).unflatten(1, (2, -1)).mean(2)


@pytest.fixture
def halves():
    """A dual model of 2 × 2 images that is easily understood."""
    model = DualSmoothedClassifier(
        Halves().eval(),
        sigma_e=0.3,
        experts={0.2: Halves().eval(), 0.3: Halves().eval()},
        num_classes=2,
        backend="torch",
    )
    model.input = InputSpec((1, 2, 2))
    return model


@pytest.fixture
def points():
    """Inputs as they are clear and less clear, and their classes."""
    first = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.8, 0.8, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5], [0.0, 0.1, 1.0, 0.9]])
    return first.view(-1, 1, 2, 2), [0, 0, 0, 1]
