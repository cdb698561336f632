import json

import pytest

from dualrs.training.plan import Plan

ARGUMENTS = ("--data", "fashion-mnist-sample", "--images", 6, "--n", 60, "--sample", 3, "--votes", 20)


def test_plan_takes_what_certify_takes_and_says_what_it_will_take(run, bundle, tmp_path):
    certify = ("--seed", 1, "--output", tmp_path / "run", "--overwrite", "--rule", "routed", "--batch-size", 32)
    code, out, _ = run(
        "plan", bundle, *ARGUMENTS, *certify, "--price", 2, "--devices", 3, "--radii", "0.1,0.2", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert (found["images"], found["size"], found["n"], found["sample"]) == (6, 1000, 60, 3)
    assert [each["devices"] for each in found["devices"]] == [1, 2, 3]
    assert all(each["cost"]["expected"] > 0 for each in found["devices"])
    assert list(found["options"][0]["certified_accuracy"]) == ["0.10", "0.20"]
    assert all(model["batch_size"] == 32 for model in found["models"])
    assert not (tmp_path / "run").exists()

    code, out, _ = run("plan", bundle, *ARGUMENTS)
    assert code == 0
    assert out.startswith("6 of 1,000 images of fashion-mnist-sample, n = 60, α = 0.001: dual, global-0.25, global-0.5")


def test_plan_takes_the_configuration_of_a_run(run, bundle, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {bundle}\ndata: fashion-mnist-sample\nn: 30\nglobal_sigmas: false\noutput: x\n")
    code, out, _ = run("plan", config, "--images", 2, "--votes", 20, "--json")
    assert code == 0
    assert (json.loads(out)["images"], json.loads(out)["methods"]) == (2, ["dual"])


def test_plan_of_a_training_is_that_of_train(run, tmp_path, monkeypatch):
    class Pipeline:
        def plan(self):
            return Plan(())

    monkeypatch.setattr("dualrs.training.pipeline.open_pipeline", lambda *_, **__: Pipeline())
    config = tmp_path / "training.yaml"
    config.write_text("name: toy\nexperts: []\n")
    assert run("plan", config, "--json") == run("train", config, "--plan", "--json")
    code, _, err = run("plan", config, "--images", 3, "--batch-size", 7)
    assert code == 2
    assert "is a training, which --images, --batch-size cannot be given with" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.yaml",), "cannot read the configuration nowhere.yaml"),
        (("BUNDLE",), "data: must be given"),
        (("nowhere", "--data", "fashion-mnist-sample"), "nowhere is neither a bundle"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--indices", "1000"), "counted from 0; got 1000"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--n", "5"), "even a unanimous vote of n = 5"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--sample", "0"), "sample, votes and devices must be at least 1"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--devices", "0"), "--devices must be at least 1; got 0"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--radii", "x"), "--radii are numbers separated by commas"),
        (("BUNDLE", "--data", "fashion-mnist-sample", "--price", "-1"), "price and radii must be at least 0"),
    ],
)
def test_bad_input_is_named(run, bundle, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("plan", *(bundle if argument == "BUNDLE" else argument for argument in arguments))
    assert code == 2
    assert message in err
