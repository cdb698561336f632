"""The public face: what users call, and what they are told when they call it wrongly."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import dualrs
from dualrs import DualSmoothedClassifier, Expert, SmoothedClassifier
from dualrs.models import BundleError, InputSpec, Recipe, build_network
from dualrs.sampling import NotAFixedFunctionError, export_onnx

XS = 8 * torch.rand((6, 4), generator=torch.Generator().manual_seed(0)) - 4
ARGUMENTS = {"n0": 20, "n": 300}


def halves(x):
    """Class 1 where the first coordinate exceeds 1/2."""
    return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], dim=1)


def thirds(x):
    return torch.stack([-(x[:, 1] ** 2), -((x[:, 1] - 0.5) ** 2), -((x[:, 1] - 1) ** 2)], dim=1)


def single(**changes):
    return SmoothedClassifier(**{"base": halves, "sigma": 0.25, **changes})


def dual(**changes):
    return DualSmoothedClassifier(
        **{"estimator": thirds, "sigma_e": 1.0, "experts": dict.fromkeys((0.25, 0.5, 1.0), halves), **changes}
    )


MODELS = [single, dual]


def network(classes=3, seed=0):
    torch.manual_seed(seed)
    recipe = Recipe("resnet9", {"num_classes": classes, "width": 4, "mean": [0.5], "std": [0.2]})
    return build_network(recipe).eval()


@pytest.mark.parametrize("make", MODELS)
def test_one_by_one_and_in_a_batch_is_the_same(make):
    model = make()
    certificates = model.certify_batch(XS, **ARGUMENTS)
    assert certificates == [model.certify(x, **ARGUMENTS) for x in XS]
    assert certificates == model.certify_batch(list(XS.numpy()), **ARGUMENTS)
    assert certificates == make(batch_size=7).certify_batch((x for x in XS), **ARGUMENTS)
    predictions = model.predict_batch(XS, n=300)
    assert predictions == [model.predict(x, n=300) for x in XS]
    assert model.certify_batch([]) == []


@pytest.mark.parametrize("make", MODELS)
def test_predictions_and_certificates_agree(make):
    model = make()
    pairs = list(zip(model.certify_batch(XS, **ARGUMENTS), model.predict_batch(XS, n=300), strict=True))
    decided = [(c, p) for c, p in pairs if not c.abstained and not p.abstained]
    assert decided
    for certificate, prediction in decided:
        assert certificate.label == prediction.label
        assert certificate.radius >= prediction.radius > 0
        assert prediction.samples < certificate.samples


@pytest.mark.parametrize("make", MODELS)
def test_the_same_seed_gives_the_same_certificates(make):
    first = make().certify_batch(XS, **ARGUMENTS, seed=3)
    torch.manual_seed(1)
    assert make().certify_batch(XS, **ARGUMENTS, seed=3) == first
    assert make().certify_batch(XS, **ARGUMENTS, seed=4) != first


def test_labels_radii_and_levels_are_those_of_the_world():
    certificate = single().certify([0.9, 0.5, 0.5, 0.5], n=20_000)
    assert (certificate.label, certificate.sigma, certificate.rule) == (1, 0.25, "adaptive")
    assert 0.38 < certificate.radius < 0.4  # the plane is 0.4 away
    assert single().certify([0.9, 0.5, 0.5, 0.5], rule="cohen").rule == "cohen"
    certificate = dual().certify([0.9, 3.0, 0.5, 0.5], n=20_000)
    assert (certificate.label, certificate.sigma, certificate.rule) == (1, 1.0, "routed")
    assert 0.38 < certificate.radius < 0.4
    assert certificate.radius == min(route.radius for route in certificate.routes)
    certificate = dual().certify([0.9, 3.0, 0.5, 0.5], n=20_000, rule="min")
    assert certificate.rule == "min"
    assert certificate.classifier_radius == certificate.radius < certificate.estimator_radius


@pytest.mark.parametrize("make", MODELS)
def test_goals_cost_less(make):
    x = [0.9, 3.0, 0.5, 0.5]
    full = make().certify(x)
    for goal in ({"tolerance": 0.05}, {"target": 0.1}, {"time_budget": 1e-9}):
        certificate = make().certify(x, **goal)
        assert certificate.samples < full.samples / 2
        assert certificate.radius <= full.radius
    assert make().certify(x, sequence="mixture").label == full.label


@pytest.mark.parametrize("make", MODELS)
def test_exact_arithmetic_and_the_cryptographic_generator(make):
    x = [1.0, 1.0, 0.2, 0.0]
    certificates = {
        (arithmetic, generator): make(arithmetic=arithmetic, generator=generator).certify(x, n=2000)
        for arithmetic in ("float", "exact")
        for generator in ("sfc64", "shake256")
    }
    assert len({certificate.stages[-1].counts for certificate in certificates.values()}) > 2
    for certificate in certificates.values():
        assert certificate.label == 1
        assert 0.35 < certificate.radius < 0.5
    with pytest.raises(ValueError, match="255"):
        make(arithmetic="exact").certify([0.123456, 0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="unknown arithmetic 'decimal'; known: float, exact"):
        make(arithmetic="decimal")


@pytest.mark.parametrize("make", MODELS)
def test_options_that_mean_nothing_are_refused(make):
    with pytest.raises(TypeError, match="unknown options samples"):
        make().certify(XS[0], samples=3)
    with pytest.raises(TypeError, match="unknown arguments batchsize"):
        make(batchsize=3)
    rule = "cohen" if make is single else "min"
    with pytest.raises(ValueError, match=f"rule '{rule}' takes a fixed number of samples, so target cannot"):
        make().certify(XS[0], rule=rule, target=0.5)


def test_inputs_may_be_anything_that_holds_numbers():
    model = single()
    x = np.array([0.5, 0.25, 0.75, 1.0])
    expected = model.certify(torch.tensor(x, dtype=torch.float32), **ARGUMENTS)
    frozen = x.copy()
    frozen.flags.writeable = False
    for same in (x, x.tolist(), torch.tensor(x), frozen, x[::-1].copy()[::-1], torch.tensor(x, requires_grad=True)):
        assert model.certify(same, **ARGUMENTS) == expected


def test_inputs_from_one_reused_array_are_told_apart():
    memory = np.zeros(4, dtype=np.float32)

    def stream():
        for value in (0.0, 1.0, 0.0):
            memory[:] = value
            yield memory

    assert [c.label for c in single().certify_batch(stream(), n0=5, n=40)] == [0, 1, 0]


# What is refused.


@pytest.mark.parametrize("make", MODELS)
def test_too_few_votes_are_refused_with_how_many_would_do(make):
    with pytest.raises(ValueError, match=r"unanimous vote of n = 5.*use n >= 1"):
        make().certify(XS[0], n=5)
    with pytest.raises(ValueError, match=r"unanimous vote of n = 5.*use n >= 1"):
        make().predict(XS[0], n=5)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_impossible_failure_probabilities_are_refused_before_any_work(make, alpha):
    def never():
        raise AssertionError("an input was asked for")
        yield

    with pytest.raises(ValueError, match=r"alpha .*must lie strictly in \(0, 1\)"):
        make().certify_batch(never(), alpha=alpha)


@pytest.mark.parametrize("make", MODELS)
def test_inputs_are_held_against_the_specification(make):
    model = make()
    model.input = InputSpec((4,))
    model.certify([0.0, 0.1, 0.9, 1.0], **ARGUMENTS)
    with pytest.raises(ValueError, match=r"shape \(3,\); this model takes \(4,\)"):
        model.certify(torch.rand(3))
    with pytest.raises(ValueError, match=r"shape \(1, 4\); this model takes \(4,\)"):
        model.certify(XS[:1])
    with pytest.raises(
        ValueError, match=r"lie in \[-1, 255\].*values in \[0, 1\] \(normalisation is part of the model"
    ):
        model.certify([-1, 0, 128, 255])
    with pytest.raises(ValueError, match=r"lie in \[0, 1\.5\]"):
        model.predict([0.0, 0.0, 0.0, 1.5])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_inputs_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        single().certify([0.0, value, 0.0, 0.0])
    with pytest.raises(ValueError, match="NaN or infinite"):
        single().certify(torch.tensor([0.0, value, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("sigma", [0, -0.5, float("nan"), float("inf")])
def test_noise_levels_must_be_positive(sigma):
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        single(sigma=sigma)
    with pytest.raises(ValueError, match="sigma_e must be positive and finite"):
        dual(sigma_e=sigma)
    with pytest.raises(ValueError, match="σ of an expert must be positive and finite"):
        dual(experts={0.1: halves, sigma: halves})


def test_a_small_noise_level_of_the_estimator_is_warned_of():
    with pytest.warns(UserWarning, match=r"sigma_e = 0\.5 is below the largest σ of the experts, 1: sound, but"):
        dual(sigma_e=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dual(sigma_e=1.0)


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="unknown rule 'max'; known: 'routed', 'min'"):
        dual().certify(XS[0], rule="max")


@pytest.mark.parametrize("experts", [{}, {0.5: halves}, [], [Expert(halves, 0.5)]])
def test_fewer_than_two_experts_are_no_choice(experts):
    with pytest.raises(ValueError, match="two or more experts"):
        dual(experts=experts)


@pytest.mark.parametrize(
    "experts",
    [
        {0.5: halves, 0.50000001: halves},
        [Expert(halves, 0.5), Expert(thirds, 0.5)],
        [Expert(halves, 0.25, "a"), Expert(thirds, 0.5, "a")],
    ],
)
def test_experts_that_names_do_not_tell_apart_are_refused(experts):
    with pytest.raises(ValueError, match=r"no two may have one; got .*: Expert\(base, sigma, name\)"):
        dual(experts=experts)


@pytest.mark.parametrize("name", ["", "estimator"])
def test_experts_need_names_of_their_own(name):
    with pytest.raises(ValueError, match="another one than the estimator's"):
        Expert(halves, 0.5, name)


def test_experts_without_noise_levels_are_refused():
    with pytest.raises(TypeError, match=r"mapping from σ to base classifiers .*; got a function among them"):
        dual(experts=[halves, halves])


def test_a_mapping_is_one_expert_for_each_noise_level():
    model = dual(experts={1.0: thirds, 0.25: halves})
    assert model.experts == (Expert(halves, 0.25, "expert-0.25"), Expert(thirds, 1.0, "expert-1"))
    assert list(model.bases) == ["estimator", "expert-0.25", "expert-1"]
    same = dual(experts=[Expert(thirds, 1), Expert(halves, 0.25)], estimator=halves, num_classes=2)
    assert same.experts == model.experts


def test_experts_of_one_noise_level_keep_their_order():
    pool = [Expert(halves, 0.5, "b"), Expert(thirds, 0.25), Expert(halves, 0.5, "a")]
    model = dual(experts=pool)
    assert [expert.name for expert in model.experts] == ["expert-0.25", "b", "a"]
    assert model.sigmas == (0.25, 0.5, 0.5)


@pytest.mark.parametrize("rule", ["routed", "min"])
def test_the_expert_that_is_chosen_answers(rule):
    pool = [Expert(halves, 0.5, "plain"), Expert(lambda x: -halves(x), 0.5, "turned"), Expert(halves, 1.0)]
    model = dual(estimator=lambda x: thirds(x / 8 + 0.5), experts=pool)  # that is sure at -4, 0 and 4
    for at, expected in ((-4.0, (1, "plain", 0.5)), (0.0, (0, "turned", 0.5)), (4.0, (1, "expert-1", 1.0))):
        certificate = model.certify([1.5, at, 0.0, 0.0], n=1000, rule=rule)
        assert (certificate.label, certificate.expert, certificate.sigma) == expected


def test_experts_of_one_noise_level_meet_noise_of_their_own():
    seen = {"a": [], "b": []}

    def recording(name):
        def logits(x):
            seen[name].append(x.clone())
            return halves(x)

        return logits

    undecided = dual(
        estimator=lambda x: halves(x[:, 1:]), experts=[Expert(recording(name), 0.5, name) for name in seen]
    )
    certificate = undecided.certify([0.9, 0.5, 0.0, 0.0], n=1000)
    assert [route.expert for route in certificate.routes] == ["a", "b"]
    assert all(route.agreement_radius for route in certificate.routes)
    copies = {name: {tuple(row) for row in torch.cat(batches).tolist()} for name, batches in seen.items()}
    assert min(map(len, copies.values())) >= 512
    assert not copies["a"] & copies["b"]


def test_experts_are_sorted_by_noise_level():
    experts = {1.0: lambda x: -halves(x), 0.25: halves, 0.5: halves}
    model = dual(experts=experts)
    assert model.sigmas == (0.25, 0.5, 1.0)
    # The estimator's last class is the largest noise level, whose expert alone is turned around.
    assert model.certify([1.0, 4.0, 0.0, 0.0], n=1000).label == 0
    assert model.certify([1.0, -4.0, 0.0, 0.0], n=1000).label == 1


def test_a_wrong_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"'classifier' gave logits of shape \(256, 2\).*expected \(256, 10\)"):
        single(num_classes=10).certify(XS[0])
    with pytest.raises(ValueError, match=r"'expert-[\d.]+' gave logits"):
        dual(num_classes=10).certify([0.9, 4.0, 0.0, 0.0])


def test_an_estimator_with_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"'estimator' gave logits of shape \(256, 2\).*expected \(256, 3\)"):
        dual(estimator=halves).certify(XS[0])


def test_the_number_of_classes_is_learned_from_the_first_answer():
    for model in (single(), dual()):
        assert model.num_classes is None
        model.predict([0.9, 4.0, 0.0, 0.0], n=100)
        assert model.num_classes == 2
    mixed = dual(experts={0.25: halves, 0.5: halves, 1.0: thirds})
    mixed.predict([0.9, -4.0, 0.0, 0.0], n=100)
    with pytest.raises(ValueError, match=r"'expert-1' gave logits of shape \(256, 3\).*expected \(256, 2\)"):
        mixed.predict([0.9, 4.0, 0.0, 0.0], n=100)


def test_experts_that_disagree_about_the_number_of_classes_are_refused():
    mixed = dual(experts={0.25: halves, 0.5: halves, 1.0: thirds})
    with pytest.raises(ValueError, match=r"different numbers of logits: \[2, 3\]"):
        mixed.predict_batch([[0.9, -4.0, 0.0, 0.0], [0.9, 4.0, 0.0, 0.0]], n=100)


def test_modules_in_training_mode_are_refused():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(NotAFixedFunctionError, match=r"\.eval\(\)"):
        single(base=module).certify(XS[0])


def test_weights_that_change_between_certificates_are_noticed():
    module = nn.Linear(4, 2, bias=False).eval()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]]))
    model = single(base=module, backend="onnx")
    x = torch.tensor([2.0, 0.0, 0.0, 0.0])
    assert model.predict(x, n=100).label == 1
    backends = set(map(id, model._backends.values()))
    assert model.predict(x, n=100).label == 1
    assert set(map(id, model._backends.values())) == backends  # exported once
    module.weight.data.mul_(-1)
    assert model.predict(x, n=100).label == 0


# Saving and loading.


@pytest.mark.slow
def test_a_dual_model_certifies_as_before_after_saving(tmp_path):
    shared = network(seed=3)
    with pytest.warns(UserWarning, match="sigma_e"):
        model = DualSmoothedClassifier(
            network(3, seed=1), 0.75, {0.25: network(seed=2), 0.5: shared, 1.0: shared}, 3, batch_size=64
        )
    model.input, model.classes, model.info = InputSpec((1, 16, 16)), ("a", "b", "c"), {"name": "test"}
    loaded = dualrs.load(model.save(tmp_path / "model"), batch_size=64)
    assert (loaded.sigmas, loaded.sigma_e, loaded.num_classes) == ((0.25, 0.5, 1.0), 0.75, 3)
    assert (loaded.input, loaded.classes, loaded.info) == (model.input, model.classes, model.info)
    assert loaded.experts[1].base is loaded.experts[2].base
    assert len(list((tmp_path / "model").glob("*.safetensors"))) == 3
    xs = torch.rand((3, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    certificates = model.certify_batch(xs, n0=10, n=100)
    assert loaded.certify_batch(xs, n0=10, n=100) == certificates
    assert any(not certificate.abstained for certificate in certificates)


@pytest.mark.slow
def test_a_pool_certifies_as_before_after_saving(tmp_path):
    path = tmp_path / "source.onnx"
    path.write_bytes(export_onnx(network(seed=4), torch.rand(32, 1, 16, 16)))
    shared = network(seed=2)
    pool = [Expert(shared, 0.5, "wide"), Expert(path, 0.5, "deep"), Expert(shared, 1.0)]
    model = DualSmoothedClassifier(network(3, seed=1), 1.0, pool, 3, batch_size=32, backend="torch")
    loaded = dualrs.load(model.save(tmp_path / "model"), batch_size=32, backend="torch")
    assert [(expert.name, expert.sigma) for expert in loaded.experts] == [
        ("wide", 0.5),
        ("deep", 0.5),
        ("expert-1", 1.0),
    ]
    assert loaded.experts[0].base is loaded.experts[2].base
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model.json",
        "estimator.safetensors",
        "wide.safetensors",
        "deep.onnx",
    }
    xs = torch.rand((3, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    certificates = model.certify_batch(xs, n0=10, n=100)
    assert loaded.certify_batch(xs, n0=10, n=100) == certificates


@pytest.mark.slow
def test_a_single_model_of_a_file_certifies_as_before_after_saving(tmp_path):
    path = tmp_path / "source.onnx"
    path.write_bytes(export_onnx(network(), torch.rand(32, 1, 16, 16)))
    model = SmoothedClassifier(str(path), 0.5, 3)
    loaded = dualrs.load(model.save(tmp_path / "model"))
    assert isinstance(loaded, SmoothedClassifier)
    x = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(0))
    certificate = model.certify(x, n0=10, n=100)
    assert loaded.certify(x, n0=10, n=100) == certificate
    assert loaded.sigma == 0.5


def test_callables_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="the base classifier is a function, which cannot be saved"):
        single(num_classes=2).save(tmp_path / "model")
    with pytest.raises(TypeError, match="the estimator is a function"):
        dual(num_classes=2).save(tmp_path / "model")


def test_saving_needs_the_number_of_classes(tmp_path):
    with pytest.raises(ValueError, match="number of classes is not known yet"):
        SmoothedClassifier(network(), 0.5).save(tmp_path / "model")


def test_loading_nothing_is_refused(tmp_path):
    with pytest.raises(BundleError, match="is neither a bundle"):
        dualrs.load(tmp_path)


# The package.


def test_importing_the_package_or_its_mathematics_does_not_import_torch():
    code = "import sys, dualrs, dualrs.certificates; dualrs.Certificate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_everything_public_is_there():
    for name in dualrs.__all__:
        assert getattr(dualrs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dualrs.nothing


def test_networks_that_are_told_sigma_are_told_the_one_of_the_smoothing():
    from dualrs.models import AtSigma, NetworkSpec

    spec = NetworkSpec(name="resnet9", width=4, conditional=True)
    network = spec.build(num_classes=3, mean=[0.5], std=[0.5]).eval()
    torch.nn.init.normal_(network.film[-1].weight, std=0.5)
    x = torch.rand(1, 8, 8)
    single = dualrs.SmoothedClassifier(network, 0.7, 3).certify(x, n=200)
    assert single == dualrs.SmoothedClassifier(AtSigma(network, 0.7), 0.7, 3).certify(x, n=200)
    assert [expert.base.sigma.item() for expert in (dualrs.Expert(network, 0.25), dualrs.Expert(network, 0.5))] == [
        0.25,
        0.5,
    ]
    with pytest.raises(ValueError, match="training mode"):
        dualrs.SmoothedClassifier(network.train(), 0.7, 3).certify(x, n=200)
