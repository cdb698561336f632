import pytest
import torch

from dualrs.training.config import ExpertConfig
from dualrs.training.experts import noisy_accuracy, train_expert
from dualrs.training.loop import Batch
from dualrs.training.methods import gaussian_augmentation


class Recorder(torch.nn.Module):
    def forward(self, x):
        self.seen = x
        return torch.stack([-x.flatten(1).mean(1), x.flatten(1).mean(1)], dim=1)


def test_noise_has_the_level_drawn_for_each_image():
    model, images = Recorder(), torch.zeros(600, 1, 16, 16)
    objective = gaussian_augmentation(torch.zeros(600, dtype=torch.int64), [0.25, 1.0])
    objective(model, Batch(images, torch.arange(600), torch.Generator().manual_seed(0)))
    levels = model.seen.flatten(1).std(dim=1)
    small = (levels - 0.25).abs() < 0.06
    large = (levels - 1.0).abs() < 0.2
    assert bool((small | large).all())
    assert 240 < int(small.sum()) < 360


def test_loss_is_cross_entropy_of_the_noisy_image():
    model, images = Recorder(), torch.rand(8, 1, 4, 4)
    labels = torch.tensor([0, 1] * 4)
    loss, metrics = gaussian_augmentation(labels, [0.5])(
        model, Batch(images, torch.arange(8), torch.Generator().manual_seed(1))
    )
    logits = model(model.seen)
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert metrics["accuracy"].item() == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_an_expert_learns_and_starts_from_another(train_data, test_data, tmp_path):
    config = ExpertConfig.model_validate(
        {
            "sigmas": [0.25],
            "network": {"width": 4},
            "optimization": {"epochs": 6, "batch_size": 16, "learning_rate": 0.05, "crop_padding": 0},
        }
    )
    expert = train_expert(config, train_data, start=None, folder=tmp_path / "a", seed=0)
    assert noisy_accuracy(expert, test_data, 0.25) >= 0.9

    one_step = config.optimization.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    copy = train_expert(
        config.model_copy(update={"optimization": one_step}), train_data, start=expert, folder=tmp_path / "b", seed=7
    )
    assert torch.allclose(copy.head.weight, expert.head.weight, atol=1e-6)
