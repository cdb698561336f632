"""Without an extra, what needs it says how to get it, and the rest works."""

import importlib
import sys

import pytest

import dualrs.adapters


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("SmoothedEstimator", "sklearn", "sklearn"), ("ARTSmoothedClassifier", "art", "art")],
)
def test_what_is_missing_is_named(monkeypatch, name, library, extra):
    modules = {"SmoothedEstimator": "estimator", "ARTSmoothedClassifier": "toolbox"}
    for loaded in [each for each in sys.modules if each == library or each.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, library, None)  # importing it raises ImportError
    monkeypatch.delitem(sys.modules, f"dualrs.adapters.{modules[name]}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'dualrs\[{extra}\]'"):
        getattr(dualrs.adapters, name)
    assert callable(dualrs.adapters.export_onnx)


def test_what_there_is_not_is_an_error():
    with pytest.raises(AttributeError, match="has no attribute 'KerasClassifier'"):
        importlib.import_module("dualrs.adapters").KerasClassifier  # noqa: B018
