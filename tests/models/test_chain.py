"""Denoiser, clipping, resizing and classifier as one base classifier, and as a saved one."""

import json

import pytest
import torch
from torch import nn

import dualrs
from dualrs.models import Chain, DnCNN, Recipe, UNet, build_network, recipe_of, weights_digest
from dualrs.sampling import make_backend
from dualrs.sampling.folding import fold_batch_norms

CLASSIFIER = Recipe("resnet9", {"num_classes": 3, "width": 4, "mean": [0.5], "std": [0.2]})


class Add(nn.Module):
    """A denoiser that adds a number, or what it is told."""

    def __init__(self, number=None):
        super().__init__()
        self.number, self.takes_sigma = number, number is None

    def forward(self, x, sigma=None):
        return x + (sigma.view(-1, 1, 1, 1) if self.takes_sigma else self.number)


class Corners(nn.Module):
    """Logits are the pixels of the first row."""

    def forward(self, x):
        return x[:, 0, 0]


def network(recipe, seed=0):
    torch.manual_seed(seed)
    made = build_network(recipe)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.normal_(0.0, 0.15)
    return made.eval()


def unet(**changes):
    return network(Recipe("unet", {"channels": 1, "width": 4, "depth": 1, "takes_sigma": False, **changes}))


def chain(**options):
    return Chain(unet(), network(CLASSIFIER), **options).eval()


def test_images_are_denoised_then_clipped_then_classified():
    x = torch.tensor([-0.9, 0.3, 0.8]).view(1, 1, 1, 3)
    assert Chain(Add(0.4), Corners())(x)[0].tolist() == pytest.approx([0.0, 0.7, 1.0])
    assert Chain(Add(0.4), Corners(), clip=False)(x)[0].tolist() == pytest.approx([-0.5, 0.7, 1.2])
    assert Chain(None, Corners())(x)[0].tolist() == pytest.approx([0.0, 0.3, 0.8])


def test_clipping_comes_before_resizing():
    x = torch.zeros(1, 1, 2, 2)
    x[..., 1] = 9.0
    logits = Chain(None, Corners(), size=(4, 4))(x)[0]
    assert logits.shape == (4,)
    assert float(logits.max()) < 1.2  # bicubic interpolation overshoots a little; of 9 it would be more than 9


def test_the_denoiser_is_told_the_chains_sigma():
    x = torch.zeros(2, 1, 1, 3)
    assert Chain(Add(), Corners(), sigma=0.25)(x).tolist() == [[0.25] * 3] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "takes σ: give the chain the sigma"),
        ({"sigma": 0.0}, "sigma must be positive; got 0.0"),
        ({"sigma": float("nan")}, "sigma must be positive"),
        ({"sigma": 0.5, "size": (0, 4)}, "positive height and width"),
        ({"sigma": 0.5, "size": (4,)}, "positive height and width"),
    ],
)
def test_impossible_chains_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Chain(Add(), Corners(), **options)


CHAINS = [
    chain,
    lambda: chain(clip=False, size=(16, 12)),
    lambda: Chain(unet(takes_sigma=True), network(CLASSIFIER), sigma=0.3).eval(),
    lambda: Chain(
        network(Recipe("dncnn", {"channels": 1, "width": 4, "depth": 3, "takes_sigma": False})), network(CLASSIFIER)
    ).eval(),
    lambda: Chain(None, network(CLASSIFIER), size=(16, 16)).eval(),
    lambda: Chain(unet(), chain()).eval(),
]


@pytest.mark.parametrize("make", CHAINS)
def test_a_saved_chain_comes_back_with_the_same_logits(make, tmp_path):
    base, images = make(), torch.rand(4, 1, 12, 12)
    folder = dualrs.SmoothedClassifier(base, 0.3, 3).save(tmp_path / "model")
    loaded = dualrs.load(folder).base
    assert torch.equal(loaded(images), base(images))
    assert recipe_of(loaded) == recipe_of(base)
    assert weights_digest(loaded) == weights_digest(base)
    assert not any(module.training for module in loaded.modules())


def test_sigma_survives_weights_in_16_bits(tmp_path):
    base = Chain(unet(takes_sigma=True), network(CLASSIFIER), sigma=0.3).eval()
    folder = dualrs.SmoothedClassifier(base, 0.3, 3).save(tmp_path / "model", half=True)
    assert torch.equal(dualrs.load(folder).base.sigma, torch.tensor([0.3]))
    assert json.loads((folder / "model.json").read_text())["parts"]["classifier"]["arguments"]["sigma"] == 0.3


def test_two_sigmas_are_two_chains():
    denoiser, classifier = unet(takes_sigma=True), network(CLASSIFIER)
    first, second = (Chain(denoiser, classifier, sigma=sigma) for sigma in (0.25, 0.5))
    assert weights_digest(first) != weights_digest(second)


def test_a_chain_of_parts_that_cannot_be_rebuilt_works_but_has_no_recipe():
    assert recipe_of(Chain(unet(), Corners())) is None
    assert recipe_of(Chain(Add(1.0), network(CLASSIFIER))) is None
    assert recipe_of(Chain(UNet(1, 4, 1), network(CLASSIFIER))) is None
    assert recipe_of(Chain(DnCNN(1, 4, 2), Corners())) is None


@pytest.mark.parametrize(
    ("base", "size"),
    [
        (Chain(unet(takes_sigma=True), network(CLASSIFIER), sigma=0.3, size=(16, 16)).eval(), 12),
        (chain(), 16),
    ],
    ids=["padded, told σ, resized", "plain"],
)
def test_chains_are_exported_to_onnx_with_equal_logits(base, size):
    images = torch.rand(4, 1, size, size)
    backend = make_backend(base, input_shape=(1, size, size), batch_size=4, backend="onnx")
    torch.testing.assert_close(backend.logits(images), base(images), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("make", CHAINS[:4])
def test_normalisation_is_folded_in_both_parts(make):
    base, images = make(), torch.rand(4, 1, 12, 12)
    folded = fold_batch_norms(base, images)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(images), base(images), atol=1e-4, rtol=1e-3)
