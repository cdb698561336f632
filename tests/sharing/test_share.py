"""Cards say what is so, and their examples do what they say."""

import re
import sys

import numpy as np
import pytest
import yaml

import dualrs
from dualrs import DualSmoothedClassifier, cli
from dualrs.data import ArrayDataset, load
from dualrs.evaluation import CERTIFICATES, evaluate, open_run
from dualrs.models import InputSpec, bundle_digest
from dualrs.sharing import model_card, share, stage


@pytest.fixture(scope="module")
def fashion(networks, tmp_path_factory):
    """A bundle for real images, of networks that are quick and know nothing."""
    shared = networks(10, 1)
    model = DualSmoothedClassifier(networks(2, 51), 1.0, {0.25: shared, 0.5: shared}, 10)
    model.input = InputSpec((1, 28, 28))
    return model.save(tmp_path_factory.mktemp("share") / "fashion")


@pytest.fixture(scope="module")
def run(fashion, tmp_path_factory):
    """A run of it, with the settings that the command line would have recorded."""
    folder = tmp_path_factory.mktemp("share") / "run"
    execution = {"backend": "torch", "batch_size": 64}
    evaluate(
        dualrs.load(fashion, **execution),
        load("fashion-mnist-sample"),
        indices=[0, 300, 600, 900],
        n=200,
        seed=7,
        tolerance=0.01,
        folder=folder,
        model_digest=bundle_digest(fashion),
        info={"command": {"data": "fashion-mnist-sample", "images": 4, "device": "cpu", **execution}},
    )
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dualrs", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, " ".join(captured.err.split())

    return call


def header_of(card):
    _, header, _ = card.split("---\n", 2)
    return yaml.safe_load(header)


def example_of(card):
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return example


def rows_of(card, heading):
    """The cells of a section's table, by the first of each row."""
    section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows}


def test_a_card_says_what_the_model_is(dual, tmp_path):
    folder = dual.save(tmp_path / "bundle")
    card = model_card(folder, repo_id="me/model", license="mit")
    header = header_of(card)
    assert (header["library_name"], header["license"]) == ("dualrs", "mit")
    assert {"dualrs", "certified-robustness", "randomized-smoothing"} <= set(header["tags"])
    assert header["pipeline_tag"] == "image-classification"
    assert "smoothed at σ_e = 1, chooses for each input one of 2 experts, Σ = {0.25, 0.5}" in card
    assert "1 × 8 × 8, values in [0, 1]" in card
    roles = rows_of(card, "Files")
    assert roles["estimator, σ_e = 1"][0] == "`estimator.safetensors`"
    assert roles["expert, σ = 0.25; expert, σ = 0.5"][2] in {
        f"`{digest}`" for digest in dualrs.models.bundle_files(folder).values()
    }
    assert bundle_digest(folder) in card
    assert "license" not in header_of(model_card(folder))
    assert "Certified accuracy" not in card
    assert "dog\\|wolf, ship \\<b\\>⚓" in card  # names of classes are shown, not obeyed
    assert "hf download me/model --revision main" in card


def test_a_card_of_one_noise_level(single, tmp_path):
    card = model_card(single.save(tmp_path / "bundle"), repo_id="me/single")
    assert "gives most often under Gaussian noise, σ = 0.5." in card
    assert "dualrs.SmoothedClassifier.from_pretrained(" in card


def test_the_example_of_a_card_runs(hub, dual, tmp_path, token, capsys):
    dual.push_to_hub("me/model", token=token)
    card = hub.commits[hub.repos["me/model"]["main"]]["README.md"].decode()
    exec(
        compile(example_of(card).replace("10_000", "200").replace("\n)", '\n    backend="torch")', 1), "card", "exec"),
        {},
    )
    assert "α=0.001" in capsys.readouterr().out


def test_a_shared_run_is_shown_and_one_of_its_certificates_is_reproduced(hub, fashion, run, token):
    address = share(fashion, "me/fashion", run=run, license="mit", token=token)
    commit = address.rpartition("/")[2]
    files = hub.commits[commit]
    named = {"model.json", *dualrs.models.bundle_files(fashion)}
    assert files.keys() == {".gitattributes", "README.md", "curves.png", *named}
    assert files["curves.png"].startswith(b"\x89PNG")
    card = files["README.md"].decode()
    summary = open_run(run).summary
    rows = rows_of(card, "Certified accuracy")
    assert rows.keys() == {
        "r", "---", "**dual**", "95 % interval", "global-0.25", "global-0.5", "*oracle σ, no classifier*"
    }  # fmt: skip
    shares = {key: f"{100 * share:.1f}" for key, share in summary["certified_accuracy"]["dual"].items()}
    assert rows["r"][: len(shares)] == list(shares)
    assert rows["**dual**"][: len(shares)] == list(shares.values())
    assert rows["**dual**"][-2] == f"{summary['average_certified_radius']['dual']:.3f}"
    assert "n0 = 100, n = 200, α = 0.001 for each certificate, seed 7, tolerance 0.01" in card
    expected = "dualrs certify bundle --data fashion-mnist-sample --images 4 --n0 100 --n 200 --alpha 0.001 --seed 7 "
    assert f"{expected}--tolerance 0.01 --batch-size 64 --output run" in card
    example = example_of(card)
    assert '    backend="torch",\n    batch_size=64,\n)' in example  # as the run was made
    assert "assert (certificate.label, certificate.radius) == (" in example
    found = {}
    exec(compile(example, "card", "exec"), found)  # its assertion holds
    assert not found["certificate"].abstained
    with pytest.raises(AssertionError):
        exec(compile(example.replace("seed=7", "seed=8"), "card", "exec"), {})


def test_runs_that_do_not_belong_to_the_model_are_refused(fashion, run, dual, tmp_path):
    other = dual.save(tmp_path / "other")
    with pytest.raises(ValueError, match="was made with another model: its digest is"):
        model_card(other, run=run)
    with pytest.raises(FileNotFoundError, match="is no run"):
        model_card(fashion, run=tmp_path / "absent")
    with pytest.raises(ValueError, match="of which nothing is recorded"):
        model_card(fashion, run=run / CERTIFICATES)


def test_a_run_that_is_not_finished_is_refused(dual, tmp_path):
    images = np.full((3, 8, 8, 1), 90, dtype=np.uint8)
    images[:, 0, 0, 0] = range(3)
    data = ArrayDataset("toy", "test", images, np.zeros(3, dtype=np.int64), ("cat", "dog", "ship"))
    folder = dual.save(tmp_path / "bundle")

    class Stops:
        def __getattr__(self, name):
            return getattr(data, name)

        def __len__(self):
            return len(data)

        def image(self, i):
            if i == 2:
                raise OSError("unreadable")
            return data.image(i)

    model, digest = dualrs.load(folder, backend="torch"), bundle_digest(folder)
    evaluate(model, Stops(), n=100, n0=10, folder=tmp_path / "run", model_digest=digest)
    with pytest.raises(ValueError, match="has 2 of 3 inputs: finish it first"):
        model_card(folder, run=tmp_path / "run")
    evaluate(model, data, n=100, n0=10, folder=tmp_path / "run", model_digest=digest)
    card = model_card(folder, run=tmp_path / "run")
    assert re.search(r"x = \.\.\.  # input [012] of the data", card)  # data that nobody else has
    assert "--data folder:images" in card


def test_what_is_staged_was_checked_and_is_all_there_is(dual, tmp_path):
    folder = dual.save(tmp_path / "bundle")
    (folder / "notes.txt").write_text("not for others")
    staged = stage(folder, tmp_path / "staged", repo_id="me/model")
    assert {path.name for path in staged.iterdir()} == {
        "README.md",
        "model.json",
        *dualrs.models.bundle_files(folder),
    }
    assert bundle_digest(staged) == bundle_digest(folder)
    with pytest.raises(FileExistsError, match="not empty: choose another folder"):
        stage(folder, tmp_path / "staged")
    with pytest.raises(ValueError, match="Repo id"):
        stage(folder, tmp_path / "elsewhere", repo_id="me/model/x; rm -rf")
    weights = folder / "estimator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(dualrs.models.BundleError, match="truncated or altered"):
        stage(folder, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    assert not (tmp_path / "elsewhere").exists()


def test_the_command_shows_what_it_would_upload(command, fashion, run, tmp_path, hub):
    target = tmp_path / "to-share"
    code, out, _ = command("share", fashion, "me/fashion", "--run", run, "--dry-run", target)
    assert code == 0
    assert f"would be uploaded to me/fashion: {target}" in out
    assert (target / "curves.png").exists()
    assert "Certified accuracy" in (target / "README.md").read_text(encoding="utf-8")
    assert hub.requests == []
    assert command("share", fashion, "me/fashion", "--dry-run", target)[0] == 2


def test_the_command_uploads(command, dual, tmp_path, hub, token, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token)
    folder = dual.save(tmp_path / "bundle")
    code, out, err = command("share", folder, "me/model", "--license", "mit", "--private")
    assert code == 0, err
    assert f"uploaded: {hub.url}/me/model/commit/{hub.repos['me/model']['main']}" in out
    assert "me/model" in hub.private
    code, out, err = command("share", folder, "me/model", "--license", "apache-2.0", "--pull-request")
    assert code == 0, err
    assert f"uploaded: {hub.url}/me/model/discussions/1" in out
    assert "license: apache-2.0" in hub.commits[hub.repos["me/model"]["refs/pr/1"]]["README.md"].decode()
    assert "license: mit" in hub.commits[hub.repos["me/model"]["main"]]["README.md"].decode()
    assert command("share", tmp_path / "absent", "me/model")[0] == 2
