"""The command line as a whole: it starts fast, and bad input ends it with one line."""

import os
import subprocess
import sys

import pytest

DUALRS = [sys.executable, "-m", "dualrs.cli"]


def dualrs(*arguments, **options):
    return subprocess.run([*DUALRS, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def test_help_and_version_start_without_torch():
    code = "import sys; from dualrs import cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert dualrs("--version").stdout.strip() == "0.1.0"
    for command in (
        "quickstart",
        "plan",
        "certify",
        "attack",
        "predict",
        "train",
        "label",
        "merge",
        "import",
        "export",
        "compare",
    ):
        assert "Example: dualrs" in dualrs(command, "--help", env={**os.environ, "COLUMNS": "200"}).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("certify", "BUNDLE", "--data", "mnist"), "mnist"),
        (("certify", "BUNDLE"), "data: must be given"),
        (("certify", "BUNDLE", "--data", "fashion-mnist-sample", "--n", "5"), "even a unanimous vote of n = 5"),
        (("certify", "BUNDLE", "--data", "fashion-mnist-sample", "--alpha", "2"), "alpha: Input should be less than 1"),
        (("certify", "nowhere", "--data", "fashion-mnist-sample"), "nowhere is neither a bundle"),
        (("certify", "BUNDLE", "--data", "fashion-mnist-sample", "--indices", "1,1000"), "counted from 0; got 1000"),
        (("certify", "BUNDLE", "--data", "fashion-mnist-sample", "--images", "3", "--shard", "4/4"), "no shard 4/4"),
        (("merge", "nowhere", "--output", "x"), "nowhere is no folder of a run"),
        (("quickstart", "--images", "0"), "images: Input should be greater than 0 (given: 0)"),
        (("certify", "no[where]/[/x]", "--data", "cifar10"), "no[where]/[/x] is neither a bundle"),
        (("train", "nowhere.yaml"), "cannot read the configuration nowhere.yaml"),
        (("predict", "BUNDLE", "nowhere.png"), "nowhere.png"),
    ],
)
def test_bad_input_ends_with_code_2_and_says_what_is_wrong(run, bundle, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*(bundle if argument == "BUNDLE" else argument for argument in arguments))
    assert code == 2
    assert message in err


def test_an_unknown_field_is_named(run, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("model: fashion-mnist\ndata: cifar10\noutput: x\nsamples: 7\n")
    code, _, err = run("certify", config)
    assert code == 2
    assert "samples: unknown field (value 7); known here: alpha, arithmetic, backend, batch_size" in err
