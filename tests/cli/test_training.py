import json

import numpy as np
import pytest
import torch

from dualrs import cli
from dualrs.data import ArrayDataset
from dualrs.training import experts
from dualrs.training.plan import Plan


def bright_or_dark(split):
    labels = np.arange(64, dtype=np.int64) % 2
    noise = np.random.default_rng(len(split)).integers(0, 40, (64, 8, 8, 1))
    images = (noise + 210 * labels[:, None, None, None]).astype(np.uint8)
    return ArrayDataset("bright", split, images, labels, ("dark", "bright"))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The configuration of a training that takes no time, and where its results go."""
    monkeypatch.setattr("dualrs.training.pipeline.load_arrays", lambda name, split, size: bright_or_dark(split))
    config = tmp_path / "toy.yaml"
    optimization = "{epochs: 2, batch_size: 16, learning_rate: 0.05, crop_padding: 0}"
    config.write_text(
        f"""
name: toy
data: bright
sigmas: [0.25, 0.5]
sigma_e: 0.5
output: {tmp_path / "out"}
experts:
  - {{sigmas: [0.25, 0.5], network: {{width: 4}}, optimization: {optimization}}}
labels: {{n: 60}}
estimator: {{network: {{width: 4}}, optimization: {optimization}}}
"""
    )
    return config, tmp_path / "out"


def test_train_goes_from_a_configuration_to_a_bundle(run, toy):
    config, output = toy
    code, out, _ = run("train", config, "--plan", "--json")
    assert code == 0
    steps = json.loads(out)["steps"]
    titles = ["expert for σ=0.25, 0.5", "labels by expert-0.25", "labels by expert-0.5", "variance estimator"]
    assert [step["title"] for step in steps] == titles
    assert all(step["state"] == "to do" and step["seconds_left"] > 0 for step in steps)
    assert not output.exists()

    code, out, _ = run("label", config, "--device", "cpu")
    assert code == 0
    assert (output / "labels/expert-0.25.npz").exists()
    code, out, err = run("train", config)
    assert code == 0
    assert out.splitlines() == [
        f"bundle: {output / 'bundle'}",
        f"certify it: dualrs certify {output / 'bundle'} --data bright --images 500",
    ]
    assert "step state time left estimated from expert for σ=0.25, 0.5 done labels by expert-0.25 done" in err
    assert "variance estimator to do" in err
    assert (output / "bundle/model.json").exists()

    code, out, _ = run("train", config, "--plan")
    assert code == 0
    assert out.splitlines()[-1].split() == ["all", "done", "0", "s"]


@pytest.mark.parametrize("command", ["train", "label"])
def test_an_interrupted_training_says_how_to_go_on(run, monkeypatch, command):
    class Interrupted:
        def run(self, *_):
            raise KeyboardInterrupt

        experts = labels = run

        def plan(self):
            return Plan(())

    monkeypatch.setattr("dualrs.training.pipeline.open_pipeline", lambda *_, **__: Interrupted())
    code, _, err = run(command, "some.yaml")
    assert code == cli.INTERRUPTED
    assert "run the same command again to go on" in err


def test_a_device_that_is_not_here_is_refused_before_any_data_is_read(run, toy, monkeypatch):
    config, output = toy
    monkeypatch.setattr("dualrs.training.pipeline.load_arrays", lambda *_, **__: pytest.fail("the data were read"))
    for command in ("train", "label"):
        code, _, err = run(command, config, "--device", "cuda:99")
        assert code == 2
        assert "error: there is no device 'cuda:99' here; there is cpu" in err
    assert not output.exists()


def test_a_training_that_diverges_says_where_the_good_checkpoint_is(run, toy, monkeypatch):
    config, output = toy
    honest, steps = experts.expert_objective, []

    def diverging(*arguments, **options):
        objective = honest(*arguments, **options)

        def once(model, batch):
            steps.append(batch)
            loss, metrics = objective(model, batch)
            return (loss * float("nan") if len(steps) == 7 else loss), metrics  # the third step of the second epoch

        return once

    monkeypatch.setattr(experts, "expert_objective", diverging)
    monkeypatch.setattr("dualrs.training.pipeline.make_plan", lambda *_: Plan(()))  # probes train as well
    code, _, err = run("train", config)
    assert code == 1
    folder = output / "expert-0.25-0.5"
    assert f"the loss became nan in epoch 2; the checkpoint in {folder} holds the 1 good epochs" in err
    assert "Traceback" not in err
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epochs_done"] == 1
    assert run("label", config)[0] == 0  # goes on from there
    assert len(steps) == 11
