"""Runs that are interrupted, killed, continued, damaged, refused and extended. What a real kill does: test_kills.py."""

import errno
import json
import shutil
from dataclasses import replace

import pytest
import torch
from polars.testing import assert_frame_equal

from dualrs import files
from dualrs.evaluation import RunError, evaluate, keeping, load_run, open_run, parts, read_parquet, runs, store
from dualrs.evaluation.store import RunStore
from dualrs.files import exclusive
from dualrs.smoothing import DualSmoothedClassifier

BUDGET = {"n0": 16, "n": 64, "alpha": 0.05, "rules": ["routed", "min"]}
FINISHED = ["certificates.parquet", "curves.png", "run.json", "summary.json"]


def certify(world, folder, dataset=None, **options):
    return evaluate(world.model(batch_size=32), dataset or world.dataset, folder=folder, **{**BUDGET, **options})


def assert_same(found, whole):
    """The same certificates to the last digit; only what they cost may differ."""
    assert_frame_equal(found.drop("seconds"), whole.drop("seconds"), check_exact=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Watched:
    """A data set that knows which of its images were asked for."""

    def __init__(self, dataset):
        self._dataset, self.asked = dataset, []

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def __len__(self):
        return len(self._dataset)

    def image(self, i):
        self.asked.append(i)
        return self._dataset.image(i)

    @property
    def certified(self):
        """The positions that were asked for after the first, which tells the shape."""
        return self.asked[1:]


@pytest.fixture(autouse=True)
def _quick_curves(monkeypatch):
    """Figures take longer than all else here; test_run.py and test_plots.py look at them."""
    monkeypatch.setattr(runs, "plot_curves", lambda table, path, **about: files.write_json(path, about))


@pytest.fixture
def whole(world):
    return certify(world, None).table


@pytest.fixture
def killed(world, tmp_path, monkeypatch):
    """A run that died with five inputs in five parts, and not a thing more."""
    folder, add = tmp_path / "run", RunStore.add

    def add_and_die(self, rows):
        add(self, rows)
        self.flush()
        if len(self.done) == 5:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "add", add_and_die)
        with pytest.raises(SystemExit):
            certify(world, folder)
    assert names(folder) == ["parts", "run.json"]
    assert len(names(folder / "parts")) == 5
    return folder


def test_a_killed_run_goes_on_where_it_stopped(world, killed, whole, capsys):
    kept = load_run(killed)
    assert_same(kept, whole.filter(whole["idx"].is_in(kept["idx"].implode())))
    dataset = Watched(world.dataset)
    found = certify(world, killed, dataset)
    assert "5 of 12 inputs are finished already" in capsys.readouterr().err
    assert found.complete
    assert_same(found.table, whole)
    finished = {world.dataset.indices.tolist().index(idx) for idx in kept["idx"]}
    assert sorted(dataset.certified) == sorted(set(range(12)) - finished)
    assert names(killed) == FINISHED


def test_every_session_is_on_record(world, killed):
    first = json.loads((killed / "run.json").read_text())["sessions"][0]
    assert first["inputs"] == 5
    about = certify(world, killed, info={"note": "second"}).summary["metadata"]
    (earlier,) = about["earlier_sessions"]
    assert earlier == first
    assert about["created"] == first["started"]
    assert about["info"] == {"note": "second"}
    assert about["wall_seconds"] > first["wall_seconds"] > 0
    last = json.loads((killed / "run.json").read_text())["sessions"][1]
    assert last["inputs"] == 7
    votes = [session["engine"]["estimator"]["votes"] for session in (first, last)]
    assert about["engine"]["estimator"]["votes"] == sum(votes) > max(votes) > 0


def test_an_interrupted_run_goes_on_too(world, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        add = RunStore.add

        def add_and_interrupt(self, rows):
            add(self, rows)
            if len(self.done) == 7:
                raise KeyboardInterrupt

        patch.setattr(RunStore, "add", add_and_interrupt)
        found = certify(world, tmp_path)
    assert (found.complete, len(found.missing), found.summary["inputs"]) == (False, 5, 7)
    assert names(tmp_path) == ["certificates.parquet", "run.json", "summary.json"]
    assert_same(certify(world, tmp_path).table, whole)
    assert names(tmp_path) == FINISHED


def test_a_finished_run_is_given_back_without_work(world, tmp_path, capsys):
    first = certify(world, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    dataset = Watched(world.dataset)
    again = certify(world, tmp_path, dataset, indices=[3, 1])
    assert not dataset.certified
    assert again.summary == first.summary
    assert_frame_equal(again.table, first.table)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "12 of 12 inputs are finished already" in capsys.readouterr().err


def test_a_run_takes_further_inputs(world, killed, whole, tmp_path, capsys):
    few = certify(world, tmp_path / "few", indices=[0, 2, 4, 6])
    assert few.complete
    dataset = Watched(world.dataset)
    more = certify(world, tmp_path / "few", dataset, indices=[1, 2, 3])
    assert sorted(dataset.certified) == [1, 3]
    assert_same(more.table, whole.filter(whole["idx"].is_in([110 - 10 * i for i in (0, 1, 2, 3, 4, 6)])))
    assert more.summary["requested"] == 6
    # What an unfinished run was asked for before is not forgotten.
    capsys.readouterr()
    missing = [world.dataset.indices.tolist().index(idx) for idx in open_run(killed).missing]
    assert len(missing) == 7
    assert_same(certify(world, killed, indices=missing[:1]).table, whole)
    assert "6 of the others were asked for before, and are certified too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 65}, r"certification\.n was 64, is 65\): restore them, choose another folder, or overwrite"),
        ({"seed": 1, "alpha": 0.04}, r"certification\.alpha was 0\.05, is 0\.04; certification\.seed was 0, is 1"),
        ({"tolerance": 0.1}, r"certification\.tolerance was 0\.0, is 0\.1"),
        ({"rules": ["min", "routed"]}, r"certification\.rules was \['routed', 'min'\], is \['min', 'routed'\]"),
        ({"global_sigmas": False}, r"certification\.methods was"),
        ({"model_digest": "abc"}, r"model\.digest was None, is abc"),
    ],
)
def test_other_settings_are_refused_by_name(world, killed, change, message):
    before = {path: path.read_bytes() for path in killed.rglob("*.*")}
    with pytest.raises(RunError, match=message):
        certify(world, killed, **change)
    assert {path: path.read_bytes() for path in killed.rglob("*.*")} == before


def test_other_models_and_data_are_refused(world, tmp_path):
    budget = {"n0": 16, "n": 64, "alpha": 0.05}

    def run(model, dataset=world.dataset):
        return evaluate(model, dataset, folder=tmp_path, indices=[0], **budget)

    def retrained():
        model = world.pool()
        with torch.no_grad():
            model.experts[1].base[1].bias += 0.01
        return model

    def configured(**execution):
        model = world.pool()
        return DualSmoothedClassifier(model.estimator, 0.5, model.experts, 2, **{"backend": "torch", **execution})

    run(world.pool())
    assert run(world.pool()).complete
    assert run(world.pool(), replace(world.dataset, name="renamed")).complete  # the digest decides
    relabelled = replace(world.dataset, labels=1 - world.dataset.labels)
    for other, message in (
        ((retrained(),), r"model\.bases\.deep was [0-9a-f]{64}, is"),
        ((world.pool(), relabelled), r"data\.digest was"),
        ((configured(batch_size=128),), r"engine\.estimator\.batch_size was 256, is 128"),
        ((configured(backend="onnx"),), r"engine\.expert-0\.25\.backend was torch, is onnxruntime"),
        ((configured(arithmetic="exact"),), r"certification\.noise was float32"),
    ):
        with pytest.raises(RunError, match=message):
            run(*other)


def damage_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


def truncate(path, keep=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


DAMAGES = {
    "empty": lambda path: truncate(path, 0),
    "half": truncate,
    "no end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a bit": damage_bit,
    "no Parquet": lambda path: path.write_text("idx,method\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_set_aside_and_its_inputs_are_redone(world, killed, whole, capsys, damage):
    broken = sorted((killed / "parts").iterdir())[2]
    DAMAGES[damage](broken)
    content = broken.read_bytes()
    assert load_run(killed)["idx"].n_unique() == 4
    assert f"{broken} is damaged or of another run, and left out" in capsys.readouterr().err
    dataset = Watched(world.dataset)
    assert_same(certify(world, killed, dataset).table, whole)
    assert len(dataset.certified) == 8
    assert "its inputs are done anew" in capsys.readouterr().err
    assert names(killed) == sorted([*FINISHED, "parts"])
    assert names(killed / "parts") == [broken.name + ".broken"]
    assert (killed / "parts" / (broken.name + ".broken")).read_bytes() == content


def test_parts_of_other_runs_are_set_aside(world, killed, whole, tmp_path, monkeypatch):
    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "remove", lambda self: None)
        certify(world, other, seed=1)
    for part in (other / "parts").iterdir():
        shutil.copy(part, killed / "parts")
    shutil.copy(other / "certificates.parquet", killed / "parts")
    assert load_run(killed)["idx"].n_unique() == 5
    assert_same(certify(world, killed).table, whole)
    assert len(names(killed / "parts")) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_certificates_are_an_error_and_nothing_is_overwritten(world, tmp_path, damage):
    certify(world, tmp_path, indices=[0, 1])
    DAMAGES[damage](tmp_path / "certificates.parquet")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for use in (lambda: load_run(tmp_path), lambda: certify(world, tmp_path)):
        with pytest.raises(RunError, match=r"certificates\.parquet .* is not as the run wrote it"):
            use()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert certify(world, tmp_path, indices=[0, 1], overwrite=True).complete
    assert load_run(tmp_path)["idx"].n_unique() == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', "null"])
def test_a_damaged_manifest_is_an_error(world, killed, content):
    (killed / "run.json").write_text(content)
    for use in (lambda: open_run(killed), lambda: certify(world, killed)):
        with pytest.raises(RunError, match=r"run\.json does not describe a run \(.*restore it, or overwrite"):
            use()
    assert len(names(killed / "parts")) == 5


def test_results_of_which_nothing_is_known_are_not_touched(world, killed, tmp_path):
    earlier = tmp_path / "earlier"
    certify(world, earlier, indices=[0])
    for folder, held in ((earlier, "certificates.parquet"), (killed, r"000001-.*\.parquet")):
        (folder / "run.json").unlink()
        with pytest.raises(FileExistsError, match=rf"holds results already \({held}\)"):
            certify(world, folder)
    assert certify(world, earlier, overwrite=True).complete


def test_results_are_replaced_only_when_there_are_others(world, killed, tmp_path):
    def interrupted(batch):
        raise KeyboardInterrupt

    certify(world, tmp_path / "run2")
    before = {path: path.read_bytes() for path in (tmp_path / "run2").iterdir()}
    model = world.model(estimator=interrupted, batch_size=32)
    found = evaluate(model, world.dataset, folder=tmp_path / "run2", overwrite=True, **{**BUDGET, "n": 65})
    assert (found.folder, found.summary["inputs"]) == (None, 0)
    assert {path: path.read_bytes() for path in (tmp_path / "run2").iterdir()} == before
    found = certify(world, killed, overwrite=True, seed=1, indices=[0])
    assert found.summary["requested"] == 1
    assert names(killed) == FINISHED


class FullDisk:
    """Writes as `atomic_write` does while there is room: which of its calls find some?"""

    def __init__(self, write, has_room):
        self._write, self._has_room, self.calls = write, has_room, 0

    def __call__(self, path):
        self.calls += 1
        if not self._has_room(self.calls):
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(path)


def test_a_disk_that_is_full_for_a_while_costs_nothing(world, whole, tmp_path, monkeypatch, capsys):
    add = RunStore.add
    monkeypatch.setattr(RunStore, "add", lambda self, rows: (add(self, rows), self.flush()))
    monkeypatch.setattr(parts, "atomic_write", FullDisk(parts.atomic_write, lambda call: not 3 <= call <= 7))
    found = certify(world, tmp_path)
    assert_same(found.table, whole)
    assert_frame_equal(read_parquet(tmp_path / "certificates.parquet"), found.table)
    said = capsys.readouterr().err
    assert said.count(f"cannot write to {tmp_path} (No space left on device): inputs stay in memory") == 1


def test_a_disk_that_stays_full_is_an_error_that_says_what_is_safe(world, whole, tmp_path, monkeypatch):
    add = RunStore.add
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "add", lambda self, rows: (add(self, rows), self.flush()))
        patch.setattr(parts, "atomic_write", FullDisk(parts.atomic_write, lambda call: call <= 4))
        with pytest.raises(RunError, match=r"No space left on device\): 4 finished inputs are safe there, 8 are lost"):
            certify(world, tmp_path)
    assert load_run(tmp_path)["idx"].n_unique() == 4
    assert_same(certify(world, tmp_path).table, whole)


@pytest.mark.parametrize("room", range(4))
def test_a_disk_that_is_full_at_the_end_loses_nothing(world, killed, whole, monkeypatch, room):
    disk, write_run = FullDisk(files.atomic_write, lambda call: call <= room), store.write_run

    def on_full_disk(*arguments):
        with monkeypatch.context() as patch:
            for writer in (files, keeping):
                patch.setattr(writer, "atomic_write", disk)
            write_run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_run", on_full_disk)
        with pytest.raises(RunError, match=r"12 finished inputs are safe there\. Make room and run the same command"):
            certify(world, killed)
    assert disk.calls == room + 1
    dataset = Watched(world.dataset)
    assert_same(certify(world, killed, dataset).table, whole)
    assert not dataset.certified
    assert names(killed) == FINISHED


def test_an_error_of_the_model_is_not_hidden_by_a_full_disk(world, killed, monkeypatch):
    def broken(batch):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(keeping, "atomic_write", FullDisk(keeping.atomic_write, lambda call: False))
    with pytest.raises(RuntimeError, match="out of memory") as error:
        evaluate(world.model(estimator=broken, batch_size=32), world.dataset, folder=killed, **BUDGET)
    assert "5 finished inputs are safe there" in error.value.__notes__[0]


def test_two_processes_do_not_write_to_one_run(world, killed, whole):
    with exclusive(killed), pytest.raises(BlockingIOError, match=r"another process \(pid \d+\) is writing to .*run"):
        certify(world, killed)
    assert_same(certify(world, killed).table, whole)


def test_what_a_killed_writer_left_is_removed(world, killed):
    for folder in (killed, killed / "parts"):
        (folder / ".000009.parquet.abc.tmp").write_bytes(b"half")
    certify(world, killed)
    assert not list(killed.rglob("*.tmp"))
    assert names(killed) == FINISHED
