import json
import signal
import subprocess
import sys

import polars as pl
import pytest

from dualrs import cli


def test_certify_writes_a_run_and_prints_its_summary(run, bundle, tmp_path):
    folder = tmp_path / "run"
    arguments = ("certify", bundle, "--data", "fashion-mnist-sample", "--images", 4, "--n", 40, "--output", folder)
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert set(summary["certified_accuracy"]) == {"dual", "global-0.25", "global-0.5", "oracle"}
    assert pl.read_parquet(folder / "certificates.parquet").height == 16

    code, out, err = run(*arguments, "--json")
    assert (code, json.loads(out)) == (0, summary)
    assert "4 of 4 inputs are finished already" in err
    code, _, err = run(*arguments, "--seed", 1)
    assert code == 2
    assert "made with other settings (certification.seed was 0, is 1)" in err


def test_shards_are_certified_one_by_one_and_merged(run, bundle, tmp_path):
    chosen = ("certify", bundle, "--data", "fashion-mnist-sample", "--indices", "5,0-2", "--n", 40)
    first, second, merged = (tmp_path / name for name in ("first", "second", "merged"))
    for number, folder in ((1, first), (2, second)):
        assert run(*chosen, "--shard", f"{number}/2", "--output", folder)[0] == 0
    code, out, err = run("merge", second, "--output", merged, "--json")
    assert (code, json.loads(out)["complete"]) == (0, False)
    assert "2 images are still missing: 1,5" in err
    code, out, err = run("merge", first, second, "--output", merged, "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["inputs"] == 4
    assert "missing" not in err
    code, out, err = run(*chosen, "--output", merged)
    assert code == 0
    assert "4 of 4 inputs are finished already" in err
    code, _, err = run("merge", first, second, "--output", merged)
    assert code == 2
    assert "holds results already" in err


def test_certify_takes_a_configuration_that_options_override(run, bundle, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: {bundle}\ndata: fashion-mnist-sample\nimages: 3\nn: 30\noutput: {tmp_path / 'run'}\n")
    code, out, _ = run("certify", config, "--images", 2, "--json")
    assert code == 0
    assert json.loads(out)["inputs"] == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_finished(bundle, tmp_path, how):
    # Every finished image is reported at once, so that the signal can be sent as soon as there is one.
    program = "from dualrs import cli, progress; progress.Progress._SECONDS_BETWEEN_LINES = 0; cli.main()"
    folder = tmp_path / "run"
    arguments = ["certify", bundle, "--data", "fashion-mnist-sample", "--n", "1000", "--output", folder]
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    assert "certifying: 1/1,000 images" in first
    assert process.returncode == cli.INTERRUPTED, err
    assert "Traceback" not in err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"] is False
    assert 0 < summary["inputs"] < 1000
    assert pl.read_parquet(folder / "certificates.parquet").height == 4 * summary["inputs"]
    said = (
        f"Interrupted: {summary['inputs']} of 1,000 images are finished and saved; run the same command again to go on"
    )
    assert said in " ".join(err.split())
