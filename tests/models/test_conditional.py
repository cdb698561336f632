"""Networks that are told the noise level."""

import json

import pytest
import torch
from torch import nn

from dualrs import DualSmoothedClassifier, load
from dualrs.models import AtSigma, ConditionalResNet9, NetworkSpec, ResNet9, build_network, recipe_of
from dualrs.models.recipes import Recipe
from dualrs.sampling import OnnxBackend, export_onnx

HALF = ([0.5], [0.25])


@pytest.fixture
def told():
    """A network whose answers do depend on σ."""
    torch.manual_seed(0)
    network = NetworkSpec(width=2, conditional=True).build(num_classes=3, mean=HALF[0], std=HALF[1]).eval()
    nn.init.normal_(network.film[-1].weight)
    return network


def images(count=4):
    return torch.rand((count, 1, 16, 16), generator=torch.Generator().manual_seed(1))


def test_a_new_one_computes_what_the_network_without_sigma_does():
    plain, network = ResNet9(3, 2, *HALF).eval(), ConditionalResNet9(3, 2, *HALF).eval()
    assert network.takes_sigma
    found = network.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(key.startswith("film.") for key in found.missing_keys)
    torch.testing.assert_close(network(images(), torch.tensor([0.1, 0.5, 1.0, 2.0])), plain(images()))


def test_each_row_is_told_its_own_sigma(told):
    sigma = torch.tensor([0.25, 0.5, 1.0, 0.0])
    together = told(images(), sigma)
    alone = torch.cat([told(image[None], level[None]) for image, level in zip(images(), sigma, strict=True)])
    torch.testing.assert_close(together, alone)
    assert together.isfinite().all()
    assert not torch.allclose(together[:3], told(images(), torch.full((4,), 0.3))[:3])


def test_at_sigma_it_is_an_ordinary_base_classifier(told):
    base = AtSigma(told, 0.5)
    torch.testing.assert_close(base(images()), told(images(), torch.full((4,), 0.5)))
    assert not torch.allclose(base(images()), AtSigma(told, 1.0)(images()))
    exported = OnnxBackend(export_onnx(base, images()))
    torch.testing.assert_close(exported.logits(images()), base(images()), rtol=1e-4, atol=1e-4)


def test_it_remembers_how_it_is_rebuilt_in_json(told):
    recipe = recipe_of(AtSigma(told, 0.5))
    rebuilt = build_network(Recipe(**json.loads(json.dumps(recipe.as_argument())))).eval()
    assert recipe_of(rebuilt) == recipe
    rebuilt.load_state_dict(AtSigma(told, 1.0).state_dict())  # the weights are those of every σ
    torch.testing.assert_close(rebuilt(images()), AtSigma(told, 0.5)(images()))
    assert recipe_of(AtSigma(ConditionalResNet9(3, 2, *HALF), 0.5)) is None


def test_a_bundle_keeps_one_set_of_weights_for_all_sigma(told, tmp_path):
    estimator = NetworkSpec(width=1).build(num_classes=3, mean=HALF[0], std=HALF[1]).eval()
    experts = {sigma: AtSigma(told, sigma) for sigma in (0.25, 0.5, 1.0)}
    model = DualSmoothedClassifier(estimator, 1.0, experts, 3, backend="torch", batch_size=32)
    folder = model.save(tmp_path / "model")
    assert len(list(folder.iterdir())) == 3  # the description, the estimator, and one network
    loaded = load(folder, backend="torch", batch_size=32)
    for name, base in model.bases.items():
        assert torch.equal(loaded.bases[name](images()), base(images()))
    x = images()[0]
    assert loaded.certify(x, n=200) == model.certify(x, n=200)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_levels_are_refused(told, sigma):
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        AtSigma(told, sigma)


def test_a_network_that_is_not_told_sigma_is_refused():
    with pytest.raises(TypeError, match="ResNet9 is not told σ"):
        AtSigma(ResNet9(3, 2, *HALF), 0.5)
