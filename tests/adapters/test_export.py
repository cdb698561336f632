import sys

import onnxruntime
import pytest
import torch

import dualrs
from dualrs import DualSmoothedClassifier, SmoothedClassifier, cli
from dualrs.adapters import export_onnx


def test_the_files_are_the_same_classifier_in_batches_of_any_size(dual, tmp_path):
    folder = export_onnx(dual, tmp_path / "onnx")
    assert len(list(folder.glob("*.onnx"))) == 3
    loaded = dualrs.load(folder)
    for name, base in dual.bases.items():
        session = onnxruntime.InferenceSession(loaded.bases[name])
        for size in (1, 5):
            x = torch.rand(size, 1, 12, 12)
            (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            with torch.no_grad():
                assert torch.allclose(base(x), torch.from_numpy(found), atol=1e-4)
    assert isinstance(loaded, DualSmoothedClassifier)
    assert (loaded.sigmas, loaded.sigma_e, loaded.num_classes, loaded.classes, loaded.input) == (
        dual.sigmas, dual.sigma_e, 3, ("a", "b", "c"), dual.input,
    )  # fmt: skip
    x = torch.rand(1, 12, 12)
    assert loaded.certify(x, n=300).label == dual.certify(x, n=300).label
    files = {float(sigma): folder / f"expert-{sigma}.onnx" for sigma in ("0.25", "0.5")}
    by_hand = DualSmoothedClassifier(folder / "estimator.onnx", 0.5, files)
    assert by_hand.certify(x, n=300) == loaded.certify(x, n=300)


def test_what_cannot_be_exported_is_named(dual, tmp_path):
    dual.input = None
    with pytest.raises(ValueError, match="input_shape"):
        export_onnx(dual, tmp_path / "onnx")
    called = DualSmoothedClassifier(lambda x: x, 0.5, {0.25: lambda x: x, 0.5: lambda x: x}, 2)
    with pytest.raises(TypeError, match="no graph"):
        export_onnx(called, tmp_path / "onnx", input_shape=(2,))
    assert not (tmp_path / "onnx").exists()


def test_a_network_that_learns_still_is_refused(dual, tmp_path):
    dual.estimator.train()
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(dual, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_model_of_one_noise_level_and_one_of_files(dual, tmp_path):
    single = SmoothedClassifier(dual.experts[0].base, 0.25, 3)
    folder = export_onnx(single, tmp_path / "onnx", input_shape=(1, 12, 12))
    assert [path.name for path in folder.glob("*.onnx")] == ["classifier.onnx"]
    again = export_onnx(dualrs.load(folder), tmp_path / "again", input_shape=(1, 12, 12))  # files are copied
    assert (again / "classifier.onnx").read_bytes() == (folder / "classifier.onnx").read_bytes()


def test_other_logits_are_no_success(dual, tmp_path, monkeypatch):
    monkeypatch.setattr("dualrs.adapters.export.agree", lambda *_: False)
    with pytest.raises(ValueError, match="estimator: the exported model's logits differ from the network's by up to"):
        export_onnx(dual, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_command_names_the_files(dual, tmp_path, monkeypatch, capsys):
    bundle = dual.save(tmp_path / "bundle")
    monkeypatch.setattr(sys, "argv", ["dualrs", "export-onnx", str(bundle), str(tmp_path / "onnx")])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr().out
    assert not exit_.value.code, said
    for name in ("estimator.onnx", "expert-0.25.onnx", "expert-0.5.onnx", "bundle: "):
        assert name in said
    assert dualrs.load(tmp_path / "onnx").names == dual.names
