"""Networks by name: what may be said of each, and that records stay what they were."""

import json

import pytest
import timm
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from dualrs.models import (
    Bundle,
    BundleError,
    CifarResNet,
    ConditionalResNet9,
    NetworkSpec,
    Recipe,
    SmallConvNet,
    build_network,
    bundle_digest,
    find_bundle,
    load_bundle,
    recipe_of,
    save_bundle,
)
from dualrs.models.registry import classifier_names
from dualrs.models.timm_network import TimmNetwork, published

DATA = {"num_classes": 5, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def build(**fields):
    return NetworkSpec(**fields).build(**DATA).eval()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"name": "resnet20"}, CifarResNet),
        ({"name": "resnet32", "width": 4, "arguments": {"shortcut": "projection"}}, CifarResNet),
        ({"name": "resnet9", "width": 2, "conditional": True}, ConditionalResNet9),
        ({"name": "small-conv", "arguments": {"channels": [4], "hidden": []}}, SmallConvNet),
        ({"name": "timm:test_resnet"}, TimmNetwork),
        ({"name": "timm:test_vit", "image_size": 160, "arguments": {"drop_rate": 0.1}}, TimmNetwork),
    ],
)
def test_a_name_and_its_choices_build_a_network_that_is_rebuilt_from_its_recipe(fields, kind):
    torch.manual_seed(0)
    network = build(**fields)
    assert isinstance(network, kind)
    recipe = recipe_of(network)
    rebuilt = build_network(Recipe(**json.loads(json.dumps(recipe.as_argument())))).eval()
    rebuilt.load_state_dict(network.state_dict())
    arguments = (torch.rand(2, 3, 32, 32), *([torch.tensor([0.5, 1.0])] if kind is ConditionalResNet9 else []))
    logits = network(*arguments)
    assert logits.shape == (2, 5)
    assert torch.equal(rebuilt(*arguments), logits)


def test_a_spec_is_recorded_as_it_was_given():
    """Checkpoints of a training compare these records with those from before there were further fields."""
    assert NetworkSpec(name="resnet9", width=32).model_dump(mode="json") == {"name": "resnet9", "width": 32}
    assert NetworkSpec(width=32).model_dump(mode="json") == {"name": "resnet9", "width": 32}
    fields = {"name": "timm:test_resnet", "image_size": 64, "arguments": {"drop_rate": 0.1}}
    assert NetworkSpec(**fields).model_dump(mode="json") == fields
    assert NetworkSpec(**NetworkSpec(**fields).model_dump()) == NetworkSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "resnet9"}, "resnet9 needs width"),
        ({"name": "resnet21"}, "unknown network 'resnet21'; known: .*; did you mean .*resnet20"),
        ({"name": "timm:test_resnt"}, "timm has no network of this name; did you mean timm:test_resnet"),
        ({"name": "timm:qqqqqqq"}, r"no network of this name; timm\.list_models\(\) lists them"),
        ({"name": "timm:hf-hub:owner/name"}, "timm has no network of this name"),
        ({"name": "timm:test_resnet", "width": 4}, "has no width; what can be chosen is arguments, image_size, interp"),
        ({"name": "resnet20", "image_size": 64}, "resnet20 has no image_size; what can be chosen is shortcut, width"),
        ({"name": "resnet20", "conditional": True}, r"resnet20 cannot be told σ .*resnet9 can"),
        ({"name": "resnet20", "pretrained": True}, "weights are published for networks of timm; resnet20 is none"),
        ({"name": "resnet20", "arguments": {"width": 3}}, "width cannot be among the arguments"),
        ({"name": "resnet20", "arguments": {"num_classes": 3}}, "num_classes cannot be among the arguments"),
        ({"name": "resnet20", "arguments": {"depth": 3}}, "resnet20 has no depth"),
        ({"name": "at-sigma"}, "at-sigma is no classifier; a classifier is one of .*resnet20.*timm:NAME"),
        ({"name": "unet", "width": 4}, "unet is no classifier"),
    ],
)
def test_what_an_architecture_does_not_have_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        NetworkSpec(**fields)


def test_classifiers_are_listed_without_parts_and_wrappers():
    names = classifier_names()
    assert {"resnet9", "resnet20", "resnet110", "small-conv", "timm:NAME"} <= set(names)
    assert not {"unet", "chain", "at-sigma", "resnet9-sigma"} & set(names)


# Networks of timm.


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_resized_then_normalised_inside(interpolation):
    network = build(name="timm:test_resnet", image_size=64, interpolation=interpolation)
    images = torch.rand(2, 3, 32, 32)
    resized = F.interpolate(images, (64, 64), mode=interpolation, antialias=True)
    torch.testing.assert_close(network(images), network.body((resized - 0.5) / 0.25))


def test_the_number_of_channels_is_that_of_the_data():
    network = NetworkSpec(name="timm:test_resnet").build(num_classes=4, mean=(0.5,), std=(0.25,)).eval()
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 4)


def test_pretrained_weights_keep_the_statistics_that_they_were_trained_with(monkeypatch):
    create, asked = timm.create_model, []

    def no_download(name, *, pretrained, **arguments):
        asked.append(pretrained)
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", no_download)
    network = build(name="timm:test_resnet", pretrained=True)
    expected = published("test_resnet")
    assert asked == [True]
    assert network.normalize.std.flatten().tolist() == pytest.approx(expected.std)
    assert expected.std != DATA["std"]
    build_network(recipe_of(network))  # as a bundle does
    assert asked == [True, False]
    grey = NetworkSpec(name="timm:test_resnet", pretrained=True).build(num_classes=4, mean=(0.5,), std=(0.25,))
    assert grey.normalize.std.flatten().tolist() == [0.25]


def test_weights_that_cannot_be_fetched_are_an_error_that_says_what_would_do(monkeypatch):
    create = timm.create_model

    def offline(name, *, pretrained, **arguments):
        if pretrained:
            raise RuntimeError("no route to host")
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        OSError, match=r"weights of 'timm:test_resnet' cannot be had: no route to host.*load_classifier"
    ):
        build(name="timm:test_resnet", pretrained=True)


@pytest.mark.parametrize("name", ["pretrained", "checkpoint_path", "pretrained_cfg", "cache_dir", "in_chans"])
def test_a_bundle_cannot_make_timm_read_files_or_fetch(name, tmp_path):
    folder = save_bundle(
        Bundle((0.5,), ("classifier",), {"classifier": build(name="timm:test_resnet")}, 5), tmp_path / "m"
    )
    manifest = json.loads((folder / "model.json").read_text())
    manifest["parts"]["classifier"]["arguments"]["arguments"] = {name: "/etc/passwd"}
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"{name} cannot be among the arguments for timm"):
        load_bundle(folder)


def test_what_timm_cannot_build_is_a_plain_error():
    with pytest.raises(ValueError, match=r"timm cannot build 'test_resnet' of .*no_such_argument"):
        build(name="timm:test_resnet", arguments={"no_such_argument": 3})
    with pytest.raises(ValueError, match="image_size must be a positive number"):
        TimmNetwork("test_resnet", 3, [0.5], [0.5], image_size=0)
    with pytest.raises(ValueError, match="interpolation must be one of"):
        TimmNetwork("test_resnet", 3, [0.5], [0.5], interpolation="nearest")


# Bundles.


def test_a_network_of_timm_comes_back_from_a_bundle(tmp_path):
    network = build(name="timm:test_resnet", image_size=48)
    folder = save_bundle(Bundle((0.5,), ("classifier",), {"classifier": network}, 5), tmp_path / "model")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_bundle(folder).parts["classifier"](images), network(images))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_bundle_from_before_is_written_again_bit_for_bit(name, tmp_path):
    digest = bundle_digest(find_bundle(name))
    assert bundle_digest(save_bundle(load_bundle(find_bundle(name)), tmp_path / "again", half=True)) == digest
