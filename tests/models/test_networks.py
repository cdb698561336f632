"""Networks and the registry that rebuilds them."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dualrs.models import NETWORKS, NetworkSpec, Normalize, Recipe, ResNet9, build_network, recipe_of


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 32, 10), (1, 28, 2), (3, 64, 7), (4, 8, 3)])
def test_resnet9_maps_images_to_one_logit_per_class(channels, size, classes):
    net = ResNet9(classes, 4, [0.5] * channels, [0.2] * channels).eval()
    logits = net(torch.rand(5, channels, size, size))
    assert logits.shape == (5, classes)
    assert logits.isfinite().all()


def test_resnet9_treats_each_image_alone_in_eval_mode():
    net = ResNet9(10, 4, [0.5] * 3, [0.2] * 3).eval()
    images = torch.rand(6, 3, 32, 32)
    torch.testing.assert_close(net(images)[2:3], net(images[2:3]))


def test_normalisation_is_per_channel_and_part_of_the_network():
    normalize = Normalize([0.5, 0.25], [0.5, 0.25])
    image = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 0.0)])[None]
    assert normalize(image)[0, :, 0, 0].tolist() == [1.0, -1.0]
    shifted = ResNet9(3, 4, [0.0], [1.0]).eval()
    net = ResNet9(3, 4, [0.5], [0.25]).eval()
    net.load_state_dict(
        {**shifted.state_dict(), "normalize.mean": net.normalize.mean, "normalize.std": net.normalize.std}
    )
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(net(images), shifted((images - 0.5) / 0.25))


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.2, 0.2]), ([0.5], [0.0]), ([0.5], [-1.0])])
def test_impossible_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="one entry per channel and std > 0"):
        Normalize(mean, std)


def test_a_network_remembers_its_recipe_and_no_other_module_has_one():
    recipe = Recipe("resnet9", {"num_classes": 3, "width": 4, "mean": [0.5], "std": [0.2]})
    assert recipe_of(build_network(recipe)) == recipe
    assert recipe_of(nn.Linear(2, 2)) is None
    assert recipe_of(ResNet9(3, 4, [0.5], [0.2])) is None


def test_a_spec_builds_what_it_says():
    net = NetworkSpec(width=4).build(num_classes=5, mean=(0.5,), std=(0.2,))
    assert isinstance(net, ResNet9)
    assert net.head.in_features == 32
    assert recipe_of(net).arguments == {"num_classes": 5, "width": 4, "mean": [0.5], "std": [0.2]}


def test_the_first_weights_are_those_of_torchs_generator():
    spec = NetworkSpec(width=4)
    torch.manual_seed(3)
    first = spec.build(num_classes=5, mean=(0.5,), std=(0.2,))
    torch.manual_seed(3)
    second = spec.build(num_classes=5, mean=(0.5,), std=(0.2,))
    assert torch.equal(first.head.weight, second.head.weight)


def test_unknown_networks_are_refused_with_those_known():
    known = ", ".join(sorted(NETWORKS))
    with pytest.raises(ValueError, match=f"unknown network 'resnet999'; known: {known}"):
        build_network(Recipe("resnet999", {}))
    with pytest.raises(ValidationError, match="unknown network 'resnet999'"):
        NetworkSpec(name="resnet999", width=4)


@pytest.mark.parametrize("fields", [{"width": 0}, {}, {"width": 4, "depth": 9}])
def test_impossible_specs_are_refused(fields):
    with pytest.raises(ValidationError):
        NetworkSpec(**fields)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError):
        build_network(Recipe("resnet9", {"depth": 9}))
