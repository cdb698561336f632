import copy
import json
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

import dualrs
from dualrs.config import parse_section
from dualrs.data import ArrayDataset
from dualrs.models import Biased, Chain, NetworkSpec, OneShotDenoiser
from dualrs.progress import Progress
from dualrs.sampling import export_onnx
from dualrs.training.config import ExpertConfig, Optimization, TrainingConfig
from dualrs.training.experts import train_expert
from dualrs.training.fronts import SharedClassifier, fits_half, round_weights
from dualrs.training.loop import fit
from dualrs.training.pipeline import Pipeline
from dualrs.training.votes import StaleVotesError

OPTIMIZATION = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05, "crop_padding": 0, "precision": "fp32"}
ADAM = {**OPTIMIZATION, "optimizer": "adamw", "learning_rate": 0.01}
NETWORK = {"width": 4}
EXPERT = {"network": NETWORK, "optimization": OPTIMIZATION}
EXPERTS = [{**EXPERT, "sigmas": [0.25]}, {**EXPERT, "sigmas": [0.5], "start_from": 0.25}]
DENOISER = {"network": {"width": 4, "depth": 1}, "stages": [{"mse": 1, "optimization": {**ADAM, "epochs": 1}}]}
DIFFUSION = {"diffusion": {"width": 8, "steps": 20, "optimization": {**ADAM, "epochs": 1}}}


@pytest.fixture(autouse=True)
def quick_votes(monkeypatch):
    """Networks vote as they are, without the time that an export takes; parts and quick estimators fit the data."""
    from dualrs.smoothing import base

    make = base.make_backend
    monkeypatch.setattr(base, "make_backend", lambda *args, **options: make(*args, **{**options, "backend": "torch"}))
    monkeypatch.setattr("dualrs.training.votes._IMAGES_PER_WRITE", 20)
    monkeypatch.setattr("dualrs.training.selection._LEAST_STEPS", 20)


def toy(output, **changes):
    content = {
        "name": "toy",
        "data": "bright",
        "sigmas": [0.25, 0.5],
        "sigma_e": 0.5,
        "output": output,
        "experts": EXPERTS,
        "labels": {"n": 50},
        "estimator": {"network": NETWORK, "start_from": 0.5, "optimization": ADAM, "consistency": 1.0},
        **copy.deepcopy(changes),
    }
    return parse_section(TrainingConfig, content, source="test")


@pytest.fixture
def weights(train_data, tmp_path_factory):
    """A classifier that tells dark from bright, as others might have trained it."""
    config = ExpertConfig.model_validate({**EXPERT, "sigmas": [0.25]})
    network = train_expert(config, train_data, start=None, folder=tmp_path_factory.mktemp("w"), seed=9)
    return network.state_dict()


def published(path, weights):
    """Its file, as others might have saved it; returns its part of a configuration."""
    if path.suffix == ".pt":
        torch.save({"state_dict": weights}, path)
    else:
        save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return {"classifier": str(path), "options": {"architecture": "resnet9"}}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def certifies(model, data, *, right=10):
    certificates = model.certify_batch([data.image(i) for i in range(12)], n=300, alpha=0.01)
    return sum(c.label == data.label(i) and c.radius > 0.1 for i, c in enumerate(certificates)) >= right


def test_from_data_to_a_bundle_that_certifies(train_data, test_data, tmp_path):
    folder = Pipeline(toy(tmp_path), train_data, test_data).run()
    model = dualrs.load(folder)
    assert isinstance(model, dualrs.DualSmoothedClassifier)
    assert model.sigmas == (0.25, 0.5)
    assert model.classes == ("dark", "bright")
    assert model.info["expert-0.25"]["test_accuracy_one_noise_draw"]["0.25"] > 0.9
    shares = model.info["labels"]["best_expert_shares"]
    assert set(shares) == {"expert-0.25", "expert-0.5", "none"}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert certifies(model, test_data)


def everything(output, ready):
    """Every kind of step at once: three experts, of which two share a σ, selection, a round and the dial."""
    return toy(
        output,
        experts=[*EXPERTS, {**ready, "name": "ready", "sigmas": [0.25], "denoiser": DENOISER}],
        validation=16,
        labels={"n": 30, "images": 60},
        estimator={"network": NETWORK, "start_from": 0.5, "optimization": ADAM, "utility": {}, "denoiser": DIFFUSION},
        selection={"copies": 2, "images": 40},
        fine_tuning={"optimization": {**ADAM, "epochs": 2}, "votes": 20, "assignment": "possible"},
        dial={"votes": 20},
    )


def test_interrupted_at_every_stage_it_gives_the_same_model(train_data, test_data, weights, tmp_path, monkeypatch):
    ready = published(tmp_path / "weights.pt", weights)
    whole = Pipeline(everything(tmp_path / "whole", ready), train_data, test_data).run()
    interrupted, doomed, spared = [], {}, set()
    advance = Progress.advance

    @wraps(advance)
    def advance_or_stop(self, count, *, note="", measured=True):
        # Of each stage the first attempt ends at its fourth step, and the next one goes through.
        advance(self, count, note=note, measured=measured)
        if measured:
            if id(self) not in doomed:
                doomed[id(self)] = (self, 0 if self._description in spared else 4)  # held, so that no id comes twice
                spared.discard(self._description)
            progress, left = doomed[id(self)]
            doomed[id(self)] = progress, left - 1
            if left == 1:
                interrupted.append(self._description)
                spared.add(self._description)
                raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "advance", advance_or_stop)
    parts, folder = everything(tmp_path / "parts", ready), None
    while folder is None:
        try:
            folder = Pipeline(parts, train_data, test_data).run()
        except KeyboardInterrupt:
            assert len(interrupted) < 60
    assert (folder / "model.json").read_bytes() == (whole / "model.json").read_bytes()
    kinds = [
        "expert for σ=0.25", "expert for σ=0.5", "denoiser for σ=0.25, stage 1 of 1", "labels by expert-0.25",
        "labels by expert-0.5", "labels by ready", "choice of the pool",
        "diffusion model", "variance estimator", "choices of the estimator", "votes for the dial",
    ]  # fmt: skip
    assert set(kinds) <= set(interrupted)
    assert any(name.startswith("fine-tuning of ") for name in interrupted)
    assert interrupted.count("variance estimator") == 2


def test_running_again_repeats_nothing(train_data, test_data, weights, tmp_path):
    config = everything(tmp_path, published(tmp_path / "weights.safetensors", weights))
    first = Pipeline(config, train_data, test_data).run()
    before = files(tmp_path)
    torch.manual_seed(12345)
    Pipeline(config, train_data, test_data).run()
    assert files(tmp_path) == before
    model = dualrs.load(first)
    assert isinstance(model.estimator, Biased)
    assert isinstance(model.estimator.network, Chain)
    assert isinstance(model.estimator.network.denoiser, OneShotDenoiser)
    ranked = json.loads((tmp_path / "selection/pools.json").read_text())
    assert ranked["images"] == 16  # the validation images
    assert len(ranked["pools"]) == 7
    best = next(pool["members"] for pool in ranked["pools"] if len(pool["members"]) > 1)
    assert [expert.name for expert in model.experts] == best
    assert certifies(model, test_data)


@pytest.mark.parametrize("assignment", ["majority", "possible"])
def test_rounds_of_fine_tuning(train_data, test_data, tmp_path, assignment):
    rounds = {"rounds": 2, "optimization": {**ADAM, "epochs": 1}, "votes": 20, "assignment": assignment, "images": 64}
    folder = Pipeline(toy(tmp_path, fine_tuning=rounds), train_data, test_data).run()
    assert certifies(dualrs.load(folder), test_data)
    pool = tmp_path / "pool-0.25+0.5"
    for number in (1, 2):
        with np.load(pool / f"round-{number}/choices/votes.npz") as votes:
            assert (votes["counts"].sum(axis=1) == 20).all()
            assert len(votes["counts"]) == 64
        assert (pool / f"round-{number}/labels/expert-0.25.npz").exists()
        assert (pool / f"round-{number}/estimator/metrics.jsonl").exists()
    assert list(pool.glob("round-2/expert-*/metrics.jsonl"))
    shipped = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert len(set(shipped.values())) == 3


def test_a_further_round_repeats_no_earlier_one(train_data, test_data, tmp_path):
    rounds = {"optimization": {**ADAM, "epochs": 1}, "votes": 20, "images": 64}
    Pipeline(toy(tmp_path, fine_tuning={**rounds, "rounds": 1}), train_data, test_data).run()
    before = {path: content for path, content in files(tmp_path).items() if "bundle" not in path.parts}
    further = Pipeline(toy(tmp_path, fine_tuning={**rounds, "rounds": 2}), train_data, test_data)
    assert not [step for step in further.plan().steps if step.remark]
    further.run()
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    assert (tmp_path / "pool-0.25+0.5/round-2/estimator/metrics.jsonl").exists()


@pytest.mark.parametrize("validation", [0, 16])
def test_a_dial_is_turned_without_doing_anything_else_anew(train_data, test_data, tmp_path, validation):
    dial = {"images": 20, "votes": 30}
    chosen = Pipeline(toy(tmp_path, dial=dial, validation=validation), train_data, test_data).run()
    settings = json.loads((tmp_path / "pool-0.25+0.5/dial/settings.json").read_text())
    assert settings["images"] == (validation or 20)  # or the last labelled ones, which the estimator has not seen
    assert dualrs.load(chosen).estimator.bias.tolist() == pytest.approx(settings["settings"][0]["bias"])
    before = {path: content for path, content in files(tmp_path).items() if "bundle" not in path.parts}
    turned = {**dial, "bias": [0.5, 0.0]}
    fixed = Pipeline(toy(tmp_path, dial=turned, validation=validation), train_data, test_data).run()
    assert {path: content for path, content in files(tmp_path).items() if "bundle" not in path.parts} == before
    model = dualrs.load(fixed)
    assert isinstance(model.estimator, Biased)
    assert model.estimator.bias.tolist() == [0.5, 0.0]
    assert certifies(model, test_data)


def test_another_expert_trains_only_another_estimator(train_data, test_data, tmp_path):
    Pipeline(toy(tmp_path), train_data, test_data).run()
    before = {path: content for path, content in files(tmp_path).items() if "bundle" not in path.parts}
    more = [*EXPERTS, {**EXPERT, "name": "other", "sigmas": [0.5]}]
    folder = Pipeline(toy(tmp_path, experts=more), train_data, test_data).run()
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    added = {path.relative_to(tmp_path).parts[0] for path in after.keys() - before.keys()}
    assert added == {"other", "labels", "pool-0.25+0.5+other", "bundle"}
    assert [expert.name for expert in dualrs.load(folder).experts] == ["expert-0.25", "expert-0.5", "other"]

    # And back: the first estimator is still there, so this takes no training.
    again = Pipeline(toy(tmp_path), train_data, test_data).run()
    assert set(files(tmp_path)) - {path for path in after if "bundle" in path.parts} <= set(after) | set(files(again))
    assert [expert.name for expert in dualrs.load(again).experts] == ["expert-0.25", "expert-0.5"]


def test_a_classifier_off_the_shelf_is_an_expert_as_it_is(train_data, test_data, weights, tmp_path):
    ready = {**published(tmp_path / "weights.pt", weights), "name": "ready", "sigmas": [0.25]}
    config = toy(tmp_path / "out", experts=[ready, EXPERTS[1] | {"start_from": None}])
    model = dualrs.load(Pipeline(config, train_data, test_data).run())
    assert [expert.name for expert in model.experts] == ["ready", "expert-0.5"]
    assert model.info["ready"]["test_accuracy_one_noise_draw"]["0.25"] > 0.8
    assert model.info["ready"]["experts"]

    # Under the same name at another σ, its votes are others.
    moved = [{**ready, "sigmas": [0.4]}, EXPERTS[1] | {"start_from": None}]
    with pytest.raises(StaleVotesError, match="made by another model or with other settings"):
        Pipeline(toy(tmp_path / "out", experts=moved, sigmas=[0.4, 0.5]), train_data, test_data).run()


def test_one_classifier_behind_denoisers_for_two_noise_levels_stays_one(train_data, test_data, weights, tmp_path):
    ready = {**published(tmp_path / "weights.pt", weights), "sigmas": [0.25, 0.5], "denoiser": DIFFUSION}
    config = toy(
        tmp_path / "out",
        experts=[ready],
        estimator={"network": NETWORK, "optimization": ADAM, "denoiser": DIFFUSION},
        fine_tuning={"optimization": {**ADAM, "epochs": 1}, "votes": 20},
    )
    folder = Pipeline(config, train_data, test_data).run()
    model = dualrs.load(folder)
    tuned = [expert.base.classifier.state_dict() for expert in model.experts]
    assert all(torch.equal(value, tuned[1][key]) for key, value in tuned[0].items())
    assert len(list((tmp_path / "out").glob("diffusion*/checkpoint.pt"))) == 1
    assert not torch.equal(tuned[0]["head.weight"], weights["head.weight"].half().float())
    unets = [expert.base.denoiser.state_dict() for expert in model.experts]
    trained = torch.load(tmp_path / "out/diffusion/checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(value.half().float(), unets[0][f"unet.{key}"]) for key, value in trained.items())
    # One file of weights for both: they differ in what the denoiser is for.
    assert len(list(folder.glob("expert-*.safetensors"))) == 1
    assert certifies(model, test_data, right=0)


def test_frozen_features_stay_those_of_the_expert(train_data, test_data, tmp_path):
    estimator = {"network": NETWORK, "start_from": 0.5, "frozen": True, "optimization": ADAM, "denoiser": DENOISER}
    folder = Pipeline(toy(tmp_path, estimator=estimator), train_data, test_data).run()
    model = dualrs.load(folder)
    own, expert = model.estimator.classifier.state_dict(), model.experts[1].base.state_dict()
    assert all(torch.equal(own[key], expert[key]) for key in own if not key.startswith("head"))
    assert not torch.equal(own["head.weight"], expert["head.weight"])


def test_a_python_callable_is_an_expert_that_cannot_be_stored(train_data, test_data, tmp_path, monkeypatch):
    (tmp_path / "brightness.py").write_text(
        "import torch\n\n\ndef classify(x):\n    b = x.flatten(1).mean(1) - 0.5\n    return torch.stack([-b, b], 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    experts = [{"name": "mine", "sigmas": [0.25], "classifier": "brightness:classify"}, {**EXPERT, "sigmas": [0.5]}]
    pipeline = Pipeline(toy(tmp_path / "out", experts=experts), train_data, test_data)
    with pytest.raises(ValueError, match=r"a bundle cannot hold brightness:classify: export it to ONNX"):
        pipeline.run()
    assert not (tmp_path / "out").exists()
    model = pipeline.model()
    assert certifies(model, test_data)
    before = files(tmp_path / "out")
    Pipeline(toy(tmp_path / "out", experts=experts), train_data, test_data).model()
    assert files(tmp_path / "out") == before


def test_impossible_data_is_refused(train_data, test_data, tmp_path):
    with pytest.raises(ValueError, match="validation takes 96 images, and the training split has 96"):
        Pipeline(toy(tmp_path, validation=96), train_data, test_data)
    other = copy.copy(test_data)
    object.__setattr__(other, "classes", ("dim", "bright"))
    with pytest.raises(ValueError, match="the splits have different classes"):
        Pipeline(toy(tmp_path), train_data, other)


def stand_ins(folder):
    """Tiny weights in the place of those that a configuration of the paper names, as their publishers save them."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        in_channels=3, out_channels=6, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, dropout=0.3,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(folder / "diffusion")
    diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=4000).save_pretrained(
        folder / "diffusion"
    )
    classifier = timm.create_model("test_vit", num_classes=2, img_size=16)
    classifier.head.bias.data[1] = 10.0  # one answer to everything, so that there is something to certify
    torch.save(classifier.state_dict(), folder / "classifier.pt")


@pytest.mark.parametrize("name", ["paper-cifar10", "paper-imagenet"])
def test_the_papers_configurations_run_as_they_are_but_for_their_size(name, tmp_path):
    stand_ins(tmp_path)
    content = yaml.safe_load((Path(__file__).parents[2] / "configs" / f"{name}.yaml").read_text())
    (expert,), estimator = content["experts"], content["estimator"]
    options = {"architecture": "timm:test_vit", "normalisation": "half", "image_size": 16}
    arguments = {"img_size": 16}
    expert |= {"classifier": str(tmp_path / "classifier.pt"), "options": {**options, "arguments": arguments}}
    for front in (expert["denoiser"], estimator["denoiser"]):
        front["diffusion"] = str(tmp_path / "diffusion")
    content |= {"data": "noise", "image_size": None, "output": str(tmp_path / "out")}
    content["labels"]["n"] = content["fine_tuning"]["votes"] = 20
    for part in (estimator, content["fine_tuning"]):
        part["optimization"] |= {"epochs": 1, "batch_size": 8}
    estimator["network"] = {"name": "resnet20"} if name == "paper-cifar10" else {"name": "timm:test_resnet"}

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    data = ArrayDataset("noise", "train", images, np.ones(8, np.int64), ("one", "other"))
    config = parse_section(TrainingConfig, content, source=name)
    folder = Pipeline(config, data, data).run()
    model = dualrs.load(folder, backend="torch")
    assert model.sigmas == config.sigmas
    assert {type(expert.base.denoiser) for expert in model.experts} == {OneShotDenoiser}
    log = next((tmp_path / "out").glob("pool-*/round-1/estimator/metrics.jsonl"))
    assert json.loads(log.read_text().splitlines()[0])["epoch"] == 1
    # The fine-tuning leaves the denoiser as it is.
    saved = load_file(tmp_path / "diffusion/diffusion_pytorch_model.safetensors")
    unet = model.experts[0].base.denoiser.unet.state_dict()
    assert all(torch.equal(value.half().float(), unet[key]) for key, value in saved.items())


def test_an_onnx_file_is_an_expert_that_is_not_fine_tuned(train_data, test_data, weights, tmp_path):
    network = NetworkSpec(width=4).build(num_classes=2, mean=[0.5], std=[0.4])
    network.load_state_dict(weights)
    (tmp_path / "expert.onnx").write_bytes(export_onnx(network.eval(), torch.zeros(32, 1, 8, 8)))
    config = toy(
        tmp_path / "out",
        experts=[{"sigmas": [0.25], "classifier": str(tmp_path / "expert.onnx")}, {**EXPERT, "sigmas": [0.5]}],
        fine_tuning={"optimization": {**ADAM, "epochs": 1}, "votes": 20},
    )
    model = dualrs.load(Pipeline(config, train_data, test_data).run())
    assert certifies(model, test_data)
    assert sorted(path.name for path in (tmp_path / "out").glob("pool-*/round-1/*")) == [
        "choices", "estimator", "expert-0.5", "labels",
    ]  # fmt: skip


class Offset(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = torch.nn.Parameter(torch.tensor(by))

    def forward(self, x):
        return x + self.by


def test_images_of_a_shared_classifier_go_through_the_denoiser_for_their_noise():
    classifier = torch.nn.Flatten()
    shared = SharedClassifier((0.25, 1.0), [Chain(Offset(by), classifier, clip=False) for by in (10.0, 20.0)])
    images = torch.arange(6.0).view(6, 1, 1, 1)
    sigmas = torch.tensor([1.0, 0.25, 0.25, 1.0, 0.0, 3.0])
    expected = images.flatten() + torch.tensor([20.0, 10.0, 10.0, 20.0, 10.0, 20.0])
    torch.testing.assert_close(shared(images, sigmas).flatten(), expected)
    torch.testing.assert_close(shared(images[:1], sigmas[:1]).flatten(), torch.tensor([20.0]))


def test_frozen_parts_are_used_in_training_as_they_will_be(train_data, tmp_path):
    front = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(1))
    network = torch.nn.Sequential(front.requires_grad_(False), torch.nn.Flatten(), torch.nn.Linear(64, 2))
    seen = []

    def objective(model, batch):
        seen.append([part.training for part in model.modules()])
        return model(batch.images).square().mean(), {}

    plan = Optimization(epochs=1, batch_size=48, crop_padding=0)
    fit(network, objective, train_data.images, plan, folder=tmp_path, seed=0, settings={},
        description="test")  # fmt: skip
    assert seen == [[True, False, False, False, False, True, True]] * 2
    assert network[0][2].num_batches_tracked == 0


def test_weights_that_16_bits_cannot_hold_are_left_as_they_are():
    network = torch.nn.Linear(2, 1, bias=False)
    network.weight.data = torch.tensor([[0.1, 1e6]])
    round_weights(network)
    assert network.weight.tolist() == [[pytest.approx(0.1), 1e6]]
    assert not fits_half(network)
    network.weight.data[0, 1] = 1.0
    round_weights(network)
    assert network.weight[0, 0].item() == torch.tensor(0.1).half().item()
