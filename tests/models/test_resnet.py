"""The residual networks for CIFAR, against the paper and against published weights."""

import pytest
import torch

from dualrs.models import CifarResNet, Recipe, build_network, load_classifier
from dualrs.models.resnet import DEPTHS, PadShortcut

HALF = ([0.5] * 3, [0.25] * 3)


# He et al. 2015, table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million; digits as counted by others for this form.
@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_sizes_are_those_of_the_paper(depth, parameters):
    with torch.device("meta"):
        network = CifarResNet(depth, 10, *HALF)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize(("channels", "size", "width"), [(3, 32, 16), (1, 28, 3), (4, 9, 5)])
def test_images_become_one_logit_per_class(channels, size, width, shortcut):
    network = CifarResNet(20, 7, [0.5] * channels, [0.25] * channels, width=width, shortcut=shortcut).eval()
    logits = network(torch.rand(2, channels, size, size))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_the_shortcut_without_parameters_takes_every_second_pixel_and_pads_channels_on_either_side():
    x = torch.arange(32.0).view(1, 2, 4, 4)
    out = PadShortcut(2, 4)(x)
    assert out.shape == (1, 4, 2, 2)
    assert out[0, 1].tolist() == [[0, 2], [8, 10]]
    assert out[0, 2].tolist() == [[16, 18], [24, 26]]
    assert not out[0, [0, 3]].any()


def test_normalisation_is_inside():
    plain = CifarResNet(20, 3, [0.0], [1.0], width=2).eval()
    network = CifarResNet(20, 3, [0.5], [0.25], width=2).eval()
    weights = {key: value for key, value in plain.state_dict().items() if not key.startswith("normalize.")}
    network.load_state_dict(weights, strict=False)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(network(images), plain((images - 0.5) / 0.25))


def test_each_depth_has_a_name():
    for depth in DEPTHS:
        with torch.device("meta"):
            network = build_network(Recipe(f"resnet{depth}", {"num_classes": 2, "mean": [0.5], "std": [0.2]}))
        assert len(network.layer1) == (depth - 2) // 6


@pytest.mark.parametrize("wrong", [{"depth": 18}, {"depth": 20, "shortcut": "zero"}])
def test_other_depths_and_shortcuts_are_refused(wrong):
    with pytest.raises(ValueError, match=r"depth must be one of \(20, 32.*shortcut one of \('pad', 'projection'\)"):
        CifarResNet(num_classes=2, mean=[0.5], std=[0.2], **wrong)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "options", "percent"),
    [
        ("resnet20-12fca82f.th", {"architecture": "resnet20", "normalisation": "imagenet"}, 91.73),
        (
            "cifar_small_36px.pth",
            {
                "architecture": "small-conv",
                "normalisation": ((0.485, 0.456, 0.406), (0.225,) * 3),
                "entry": "state_dict.0",
            },
            54.4,
        ),
    ],
)
def test_published_weights_have_their_published_accuracy(file, options, percent, published, cifar10, accuracy):
    network = load_classifier(published(file), **options)
    assert accuracy(network, cifar10) == pytest.approx(percent, abs=0.3)
