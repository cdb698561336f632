"""Bundles come back as they were saved, or are refused."""

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import nn

from dualrs.models import Bundle, BundleError, InputSpec, Recipe, build_network, bundle_digest, load_bundle, save_bundle
from dualrs.sampling import OnnxBackend, export_onnx

IMAGES = torch.rand((4, 1, 16, 16), generator=torch.Generator().manual_seed(0))


def network(classes=3, seed=0):
    torch.manual_seed(seed)
    net = build_network(Recipe("resnet9", {"num_classes": classes, "width": 4, "mean": [0.5], "std": [0.2]}))
    net.train()(torch.rand(8, 1, 16, 16))  # batch statistics that are not those of a fresh network
    return net.eval()


def dual_bundle(**changes):
    bundle = Bundle(
        sigmas=(0.25, 0.5, 1.0),
        experts=("low", "high", "high"),
        parts={"estimator": network(3, 1), "low": network(3, 2), "high": network(3, 3)},
        num_classes=3,
        sigma_e=1.0,
        classes=("cat", "dog", "ship ⚓"),
        input=InputSpec((1, 16, 16)),
        info={"name": "test", "accuracy": {"0.25": 0.5}},
    )
    return replace(bundle, **changes)


def single_bundle(part):
    return Bundle(sigmas=(0.5,), experts=("classifier",), parts={"classifier": part}, num_classes=3)


@pytest.fixture(scope="module")
def onnx_content():
    return export_onnx(network(), IMAGES)


@pytest.fixture
def saved(tmp_path):
    return save_bundle(dual_bundle(), tmp_path / "model")


def change_manifest(folder, change):
    path = folder / "model.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def replace_file(folder, part, content):
    """Puts another content under a part, with the right digest."""

    def change(manifest):
        entry = manifest["parts"][part]
        (folder / entry["file"]).write_bytes(content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()

    change_manifest(folder, change)


def same_values(first, second):
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# Round trips.


def test_a_dual_model_comes_back_as_it_was(saved):
    original, loaded = dual_bundle(), load_bundle(saved)
    assert replace(loaded, parts={}) == replace(original, parts={})
    assert loaded.parts.keys() == original.parts.keys()
    for name, part in original.parts.items():
        assert same_values(part, loaded.parts[name])
        assert not any(module.training for module in loaded.parts[name].modules())
        assert torch.equal(part(IMAGES), loaded.parts[name](IMAGES))
    assert {path.name for path in saved.iterdir()} == {
        "model.json",
        "estimator.safetensors",
        "low.safetensors",
        "high.safetensors",
    }


def test_experts_that_share_a_noise_level_come_back_with_their_names(tmp_path):
    pool = dual_bundle(sigmas=(0.5, 0.5, 1.0), names=("wide", "deep", "expert-1"))
    loaded = load_bundle(save_bundle(pool, tmp_path / "model"))
    assert replace(loaded, parts={}) == replace(pool, parts={})


def test_names_are_left_out_where_noise_levels_are_names_enough(saved):
    manifest = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert manifest["version"] == 1
    assert "names" not in manifest


def test_a_model_with_one_noise_level_comes_back(tmp_path):
    loaded = load_bundle(save_bundle(single_bundle(network()), tmp_path / "deep" / "model"))
    assert (loaded.sigmas, loaded.experts, loaded.sigma_e) == ((0.5,), ("classifier",), None)
    assert (loaded.classes, loaded.input, loaded.info) == (None, None, {})
    assert same_values(loaded.parts["classifier"], network())


def test_a_loaded_model_can_be_saved_again(saved, tmp_path):
    again = save_bundle(load_bundle(saved), tmp_path / "again")
    assert bundle_digest(again) == bundle_digest(saved)


def test_half_precision_halves_the_weights_and_comes_back_in_float32(tmp_path):
    net = network()
    whole = save_bundle(single_bundle(net), tmp_path / "whole")
    half = save_bundle(single_bundle(net), tmp_path / "half", half=True)
    sizes = [(folder / "classifier.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.65 * sizes[1]
    loaded = load_bundle(half).parts["classifier"]
    for key, value in net.state_dict().items():
        found = loaded.state_dict()[key]
        assert found.dtype == value.dtype
        assert torch.equal(found, value.half().float() if value.is_floating_point() else value)
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_half_precision_is_refused_where_weights_do_not_fit(tmp_path):
    net = network()
    next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d)).running_var.fill_(1e5)
    with pytest.raises(ValueError, match=r"running_var reaches 100000, which float16 cannot hold"):
        save_bundle(single_bundle(net), tmp_path / "model", half=True)
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_part_comes_back_as_the_path_of_a_file(onnx_content, tmp_path):
    source = tmp_path / "any name.onnx"
    source.write_bytes(onnx_content)
    folder = save_bundle(single_bundle(source), tmp_path / "model")
    part = load_bundle(folder).parts["classifier"]
    assert part == folder / "classifier.onnx"
    assert torch.equal(OnnxBackend(part).logits(IMAGES), OnnxBackend(onnx_content).logits(IMAGES))


def test_an_onnx_part_brings_its_external_weights_along(onnx_content, tmp_path):
    model = onnx.load_model_from_string(onnx_content)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=64)
    folder = save_bundle(single_bundle(tmp_path / "m.onnx"), tmp_path / "model")
    (tmp_path / "m.data").unlink()
    part = load_bundle(folder).parts["classifier"]
    assert torch.equal(OnnxBackend(part).logits(IMAGES), OnnxBackend(onnx_content).logits(IMAGES))


def test_loading_leaves_random_numbers_alone(saved):
    torch.manual_seed(11)
    expected = torch.rand(5)
    torch.manual_seed(11)
    load_bundle(saved)
    assert torch.equal(torch.rand(5), expected)


def test_the_digest_names_weights_and_description(saved, tmp_path):
    other_weights = dual_bundle(parts={**dual_bundle().parts, "low": network(3, 9)})
    digests = {
        bundle_digest(saved),
        bundle_digest(save_bundle(other_weights, tmp_path / "a")),
        bundle_digest(save_bundle(dual_bundle(sigma_e=2.0), tmp_path / "b")),
    }
    assert len(digests) == 3
    assert bundle_digest(saved) == bundle_digest(save_bundle(dual_bundle(), tmp_path / "c"))


# Replacing.


def test_a_bundle_is_replaced_as_a_whole(saved, tmp_path):
    save_bundle(single_bundle(network()), saved)
    assert {path.name for path in saved.iterdir()} == {"model.json", "classifier.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_bundle(saved, tmp_path):
    digest = bundle_digest(saved)
    for broken in (
        dual_bundle(parts={**dual_bundle().parts, "low": nn.Linear(2, 2)}),
        dual_bundle(info={"x": object()}),
    ):
        with pytest.raises(TypeError):
            save_bundle(broken, saved)
        assert bundle_digest(saved) == digest
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_bundle_is_put_back_if_its_successor_cannot_take_its_place(saved, tmp_path, monkeypatch):
    digest, rename = bundle_digest(saved), Path.replace

    def fail_on_second(path, target):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("disk trouble")
        return rename(path, target)

    calls = []
    monkeypatch.setattr(Path, "replace", fail_on_second)
    with pytest.raises(OSError, match="disk trouble"):
        save_bundle(single_bundle(network()), saved)
    assert bundle_digest(saved) == digest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_bundle_is_not_overwritten(tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("words")
    with pytest.raises(FileExistsError, match="exists and is not a bundle"):
        save_bundle(dual_bundle(), folder)
    with pytest.raises(FileExistsError, match="exists and is not a bundle"):
        save_bundle(dual_bundle(), folder / "chapter.tex")
    assert (folder / "chapter.tex").read_text() == "words"
    assert len(list(tmp_path.rglob("*"))) == 2


# What cannot be saved.


def test_a_module_without_a_recipe_is_refused_with_what_would_do(tmp_path):
    with pytest.raises(TypeError, match=r"part 'classifier' is a Linear.*build_network.*\.onnx"):
        save_bundle(single_bundle(nn.Linear(2, 2)), tmp_path / "model")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"must be an \.onnx file"):
        save_bundle(single_bundle(tmp_path / "weights.pt"), tmp_path / "model")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "/etc/x", "a\\b", "x\n"])
def test_names_of_parts_cannot_lead_out_of_the_folder(name, tmp_path):
    with pytest.raises(ValueError, match="parts become files"):
        save_bundle(
            dual_bundle(experts=("low", "high", name), parts={**dual_bundle().parts, name: network()}), tmp_path / "m"
        )
    assert list(tmp_path.iterdir()) == []


INCONSISTENT = [
    ({"sigmas": (0.25, 0.5)}, "need as many experts"),
    ({"sigmas": (0.5, 0.25, 1.0)}, "sigmas ascend"),
    ({"sigmas": (0.25, 0.25, 1.0)}, "experts that share a σ need names"),
    ({"names": ("low", "high")}, "one each"),
    ({"names": ("low", "high", "high")}, "none of them twice"),
    ({"names": ("low", "high", "estimator")}, "or the estimator's"),
    ({"names": ("low", "high", "")}, "at least 1 character"),
    ({"sigmas": (0.0, 0.25, 1.0)}, "positive"),
    ({"sigmas": (0.25, 0.5, float("inf"))}, "positive|finite"),
    ({"sigma_e": -1.0}, "positive"),
    ({"sigma_e": None}, "several need one"),
    ({"sigmas": (0.25,), "experts": ("low",)}, "one expert needs no estimator"),
    ({"experts": ("low", "high", "absent")}, "absent"),
    ({"classes": ("cat", "dog")}, "3 classes have 2 names"),
    ({"num_classes": 1}, "greater than or equal to 2"),
]


@pytest.mark.parametrize(("changes", "message"), INCONSISTENT)
def test_inconsistent_bundles_are_neither_written_nor_read(changes, message, saved, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_bundle(dual_bundle(**changes), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    change_manifest(saved, lambda manifest: manifest.update(changes))
    with pytest.raises(BundleError, match=f"does not describe a bundle.*({message})"):
        load_bundle(saved)


# What is not read.


def test_a_folder_without_a_description_is_no_bundle(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BundleError, match=r"is not a bundle: it has no readable model\.json"):
            load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="zip"), "format"),
        (lambda m: m.update(version=2), "version"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("parts"), "parts: Field required"),
        (lambda m: m["parts"]["low"].update(file="../outside.safetensors"), r"parts\.low\.file"),
        (lambda m: m["parts"]["low"].update(file="/etc/passwd"), r"parts\.low\.file"),
        (lambda m: m["parts"]["low"].update(file="sub/low.safetensors"), r"parts\.low\.file"),
        (lambda m: m["parts"]["low"].update(file=".."), r"parts\.low\.file"),
        (lambda m: m["parts"]["low"].update(sha256="0"), r"parts\.low\.sha256"),
        (lambda m: m["parts"].update({"../x": m["parts"]["low"]}), "parts"),
    ],
)
def test_strange_descriptions_are_refused_by_the_field_that_is_wrong(change, message, saved):
    change_manifest(saved, change)
    with pytest.raises(BundleError, match=rf"model\.json does not describe a bundle: .*{message}"):
        load_bundle(saved)


def test_a_description_that_is_no_json_is_refused(saved):
    (saved / "model.json").write_bytes((saved / "model.json").read_bytes()[:-50])
    with pytest.raises(BundleError, match=r"model\.json does not describe a bundle"):
        load_bundle(saved)


def test_missing_weights_are_named(saved):
    (saved / "low.safetensors").unlink()
    with pytest.raises(BundleError, match=r"the weights of 'low' are missing \(low\.safetensors\)"):
        load_bundle(saved)


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])])
def test_truncated_or_altered_weights_are_refused(damage, saved):
    path = saved / "high.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleError, match=r"high\.safetensors \([\d,]+ bytes\) is truncated or altered: its SHA-256"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["parts"]["low"].update(network="resnet999"),
        lambda m: m["parts"]["low"]["arguments"].update(width=8),
        lambda m: m["parts"]["low"]["arguments"].update(width="wide"),
        lambda m: m["parts"]["low"]["arguments"].update(depth=9),
        lambda m: m["parts"]["low"]["arguments"].pop("mean"),
    ],
)
def test_a_network_that_its_weights_do_not_fit_is_refused(change, saved):
    change_manifest(saved, change)
    with pytest.raises(BundleError, match=r"low\.safetensors does not fit network"):
        load_bundle(saved)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path(self.target),)


@pytest.mark.parametrize("part", ["network", "onnx"])
def test_nothing_is_unpickled(part, saved, tmp_path, onnx_content):
    Trap.target = str(tmp_path / "executed")
    for content in (pickle.dumps(Trap()), save_pickled(Trap(), tmp_path)):
        replace_file(saved, "low", content)
        if part == "onnx":
            change_manifest(saved, lambda m: m["parts"]["low"].update(network=None))
        with pytest.raises(BundleError):
            load_bundle(saved)
        change_manifest(saved, lambda m: m["parts"]["low"].update(network="resnet9"))
    assert not (tmp_path / "executed").exists()


def save_pickled(value, folder):
    path = folder / "pickled.pt"
    torch.save(value, path)
    return path.read_bytes()


def test_weights_of_other_names_or_shapes_are_refused(saved):
    weights = network().state_dict()
    missing = {key: value for key, value in weights.items() if key != "head.bias"}
    reshaped = {**weights, "head.bias": torch.zeros(4)}
    for tensors in (missing, reshaped, {**weights, "more": torch.zeros(1)}):
        replace_file(saved, "low", save_tensors(tensors))
        with pytest.raises(BundleError, match="does not fit network 'resnet9'"):
            load_bundle(saved)


def test_onnx_parts_with_weights_elsewhere_are_refused(onnx_content, tmp_path):
    """No digest covers what is not in the file."""
    source = tmp_path / "m.onnx"
    source.write_bytes(onnx_content)
    folder = save_bundle(single_bundle(source), tmp_path / "model")
    onnx.save_model(
        onnx.load_model_from_string(onnx_content),
        folder / "classifier.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=64,
    )
    replace_file(folder, "classifier", (folder / "classifier.onnx").read_bytes())
    with pytest.raises(BundleError, match="no ONNX model with all of its weights inside"):
        load_bundle(folder)
