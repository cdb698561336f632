"""A small bundle, and the command line in this process."""

import signal
import sys

import pytest
import torch

from dualrs import DualSmoothedClassifier, cli
from dualrs.models import InputSpec, NetworkSpec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)

    def network(outputs):
        return NetworkSpec(width=2).build(num_classes=outputs, mean=[0.3], std=[0.3]).eval()

    shared = network(10)
    model = DualSmoothedClassifier(network(2), 1.0, {0.25: shared, 0.5: shared}, 10)
    model.input = InputSpec((1, 28, 28))
    model.classes = tuple(f"class-{i}" for i in range(10))
    return model.save(tmp_path_factory.mktemp("cli") / "bundle")


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
