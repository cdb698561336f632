"""From a recorded run to its audit, by the command line."""

import json
import signal
import sys

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dualrs import DualSmoothedClassifier, cli
from dualrs.evaluation import open_run, read_parquet, write_parquet
from dualrs.evaluation.attack import ATTEMPTS
from dualrs.models import InputSpec

SHAPE = (3, 4, 4)
LIGHT = ("--steps", 3, "--draws", 4, "--n", 800)


def half_space(path, value):
    """An ONNX file: class 1 where the value at a position of the input is above 1/2."""
    weights = np.zeros((48, 2), dtype=np.float32)
    weights[value] = -9, 9
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"]),
    ]
    ends = (("input", ["B", *SHAPE]), ("logits", ["B", 2]))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends)
    constants = {"weights": weights, "bias": np.array([4.5, -4.5], dtype=np.float32)}
    initial = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "half-space", inputs, outputs, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    expert, estimator = half_space(folder / "expert.onnx", 0), half_space(folder / "estimator.onnx", 1)
    model = DualSmoothedClassifier(estimator, 0.5, {0.25: expert, 0.5: expert}, 2)
    model.input = InputSpec(SHAPE)
    return model.save(folder / "bundle")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Grey pictures of two classes, that differ in one value alone; the estimator is sure of them all."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, value in enumerate((20, 235, 30, 225, 40, 215)):
        picture = np.full((4, 4, 3), 128, dtype=np.uint8)
        picture[0, 0, 0], picture[0, 1, 0] = value, 242
        path = folder / ("dark", "light")[value > 127] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line in this process; returns exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dualrs", *map(str, arguments)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, " ".join(captured.err.split())

    return call


@pytest.fixture
def certified(run, bundle, pictures, tmp_path):
    """The folder of a run."""
    folder = tmp_path / "run"
    options = ("--data", f"folder:{pictures}", "--n", 800, "--output", folder)
    assert run("certify", bundle, *options)[0] == 0
    return folder


def stretch(folder, factor):
    """Multiplies the radii of a run, whose manifest would tell."""
    (folder / "run.json").unlink(missing_ok=True)
    table = read_parquet(folder / "certificates.parquet")
    write_parquet(table.with_columns(radius=pl.col("radius") * factor), folder / "certificates.parquet")


def test_an_audit_of_a_run_is_written_beside_it(run, certified):
    code, out, _ = run("attack", certified, *LIGHT, "--budgets", "0.2", "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary == json.loads((certified / "attack.json").read_text(encoding="utf-8"))
    table = pl.read_parquet(certified / "attack.parquet")
    assert table.schema == ATTEMPTS
    assert (summary["inputs"], summary["broken"], summary["complete"]) == (6, [], True)
    assert summary["verdict"] == "no certificate was broken"
    assert (table["norm"] <= table["radius"]).all()
    about = summary["metadata"]
    assert about["info"] == {"run": str(certified)}
    assert about["model"]["digest"] == open_run(certified).metadata["model"]["digest"]
    assert {each["backend"] for each in about["engine"].values()} == {"onnxruntime"}
    assert list(summary["accuracy"]) == ["0.00", "0.20"]

    code, _, err = run("attack", certified, *LIGHT)
    assert code == 2
    assert f"{certified} holds an audit that was made with other settings (audit.budgets was [0.2], is []" in err
    code, out, err = run("attack", certified, *LIGHT, "--budgets", "0.2", "--json")
    assert (code, json.loads(out)) == (0, summary)
    assert "6 of 6 inputs are attacked already" in err
    code, out, _ = run("attack", certified, *LIGHT, "--overwrite", "--images", 1, "--aims", "random")
    assert code == 0
    assert "no certificate was broken." in out
    assert out.splitlines()[-1] == f"results: {certified}"


def test_certificates_that_are_wrong_end_with_a_code_of_their_own(run, certified, tmp_path):
    stretch(certified, 1.5)
    code, out, _ = run("attack", certified, *LIGHT, "--output", tmp_path / "audit")
    assert code == cli.WRONG
    assert "THE CERTIFICATES ARE WRONG: " in out
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == [
        "attack-run.json",
        "attack.json",
        "attack.parquet",
    ]
    assert not (certified / "attack.json").exists()


def test_every_method_of_a_run_can_be_audited(run, certified, tmp_path):
    for method in ("global-0.25", "global-0.5"):
        output = tmp_path / method
        code, out, _ = run("attack", certified, *LIGHT, "--method", method, "--output", output, "--json")
        assert code == 0
        assert list(json.loads(out)["metadata"]["engine"]) == [f"expert-{method.removeprefix('global-')}"]
    code, _, err = run("attack", certified, "--method", "oracle")
    assert code == 2
    assert "method 'oracle' is none that can be audited; of this model these are dual, global-0.25, global-0.5" in err


def test_another_model_other_images_and_the_certificates_noise_are_refused(run, certified, bundle, pictures, tmp_path):
    other = half_space(tmp_path / "other.onnx", 2)
    strange = DualSmoothedClassifier(other, 0.5, {0.25: other, 0.5: other}, 2).save(tmp_path / "strange")
    code, _, err = run("attack", certified, "--model", strange)
    assert code == 2
    assert f"the model of {certified} has digest" in err
    assert "name the right one with --model" in err
    fewer = tmp_path / "fewer"
    for path in sorted(pictures.glob("*/*.png"))[1:]:
        (fewer / path.parent.name).mkdir(parents=True, exist_ok=True)
        (fewer / path.parent.name / path.name).write_bytes(path.read_bytes())
    code, _, err = run("attack", certified, "--data", f"folder:{fewer}")
    assert code == 2
    assert f"the data of {certified} has digest" in err
    code, _, err = run("attack", certified, "--seed", 0)
    assert code == 2
    assert "seed 0 is that of the certificates" in err


def test_a_run_that_says_too_little_asks_for_the_rest(run, certified, bundle, pictures):
    summary = json.loads((certified / "summary.json").read_text(encoding="utf-8"))
    summary["metadata"]["info"] = {}
    summary["metadata"]["engine"]["estimator"]["backend"] = "torch"
    (certified / "run.json").unlink()
    (certified / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    code, _, err = run("attack", certified)
    assert code == 2
    assert "model: must be given" in err
    assert "data: must be given" in err
    told = ("--model", bundle, "--data", f"folder:{pictures}", "--aims", "random", "--images", 1)
    code, out, _ = run("attack", certified, *LIGHT, *told)
    assert code == 0
    assert "estimator was certified on backend torch and is audited on onnxruntime." in " ".join(out.split())


def test_what_is_no_run_is_refused(run, certified, tmp_path):
    (tmp_path / "empty").mkdir()
    table = certified / "certificates.parquet"
    for place, message in (
        ("nowhere", "nowhere is no run"),
        (tmp_path / "empty", "empty is no folder of a run"),
        (table, "this table does not say how it was made, so there is nothing to audit"),
    ):
        code, _, err = run("attack", place)
        assert code == 2
        assert message in err


def test_a_run_that_was_altered_is_refused(run, certified):
    table = read_parquet(certified / "certificates.parquet")
    write_parquet(table.with_columns(radius=pl.col("radius") / 2), certified / "certificates.parquet")
    code, _, err = run("attack", certified)
    assert code == 2
    assert "is not as the run wrote it" in err


@pytest.mark.slow
def test_a_shipped_model_stands_up_to_an_audit_and_three_times_its_radii_do_not(run, tmp_path):
    folder, light = tmp_path / "run", ("--steps", 5, "--draws", 8, "--n", 1000)
    options = ("--data", "fashion-mnist-sample", "--skip", 300, "--n", 300, "--output", folder)
    assert run("certify", "fashion-mnist", *options)[0] == 0
    code, out, _ = run("attack", folder, *light, "--json")
    summary = json.loads(out)
    assert (code, summary["broken"], summary["remarks"]) == (0, [], [])
    assert set(summary["aims"]) == {"none", "label", "choice", "both", "random", "transfer"}
    stretch(folder, 3.0)
    code, out, _ = run("attack", folder, *light, "--aims", "label", "--overwrite")
    assert code == cli.WRONG
