"""Audits that are killed, interrupted, continued and refused."""

import pytest
from polars.testing import assert_frame_equal

from dualrs.evaluation import RunError
from dualrs.evaluation.attack import Plan, audit
from dualrs.evaluation.attack._aims import Adversary
from dualrs.evaluation.attack._store import AuditStore

from .worlds import experts_agree, experts_contradict

EFFORT = {"steps": 3, "draws": 4, "starts": 1, "directions": 2, "keep": 1, "votes": 20, "n": 1500}
FINISHED = ["attack-run.json", "attack.json", "attack.parquet"]


def examine(folder, world=None, **changes):
    world, options = world or experts_agree(), {"seed": 1, "budgets": (0.5,), **changes}
    effort = {name: options.pop(name) for name in (*EFFORT, "budgets") if name in options}
    plan = Plan(**{**EFFORT, **effort}, aims=("label", "random"))
    return audit(world.model, world.dataset, world.table(), plan, folder=folder, **options)


def assert_same(found, whole):
    """The same attempts to the last digit, and the same said of them; only what they cost may differ."""
    assert_frame_equal(found.table.drop("seconds"), whole.table.drop("seconds"), check_exact=True)
    assert {**found.summary, "metadata": None} == {**whole.summary, "metadata": None}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """Kills audits in a folder after so many inputs, each in a part of its own."""

    def kill(inputs, **options):
        add = AuditStore.add

        def add_and_die(self, rows):
            add(self, rows)
            self.flush()
            if len(self.done) == inputs:
                raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(AuditStore, "add", add_and_die)
            with pytest.raises(SystemExit):
                examine(tmp_path / "audit", **options)
        assert names(tmp_path / "audit") == ["attack-parts", "attack-run.json"]
        return tmp_path / "audit"

    return kill


@pytest.mark.parametrize("inputs", [1, 4, 6])
def test_a_killed_audit_goes_on_where_it_stopped(killed, capsys, monkeypatch, inputs):
    folder = killed(inputs)
    attacked, candidates = [], Adversary.candidates

    def watched(self, aim, ball, *arguments, **options):
        attacked.append(ball.centre)
        return candidates(self, aim, ball, *arguments, **options)

    monkeypatch.setattr(Adversary, "candidates", watched)
    found = examine(folder)
    assert f"{inputs} of 6 inputs are attacked already" in capsys.readouterr().err
    assert len({x.numpy().tobytes() for x in attacked}) == 6 - inputs
    assert_same(found, examine(None))
    assert names(folder) == FINISHED
    sessions = [*found.summary["metadata"]["earlier_sessions"], found.summary["metadata"]]
    assert len(sessions) == 2 - (inputs == 6)


def test_a_secret_seed_is_that_of_the_first_session(killed):
    folder = killed(2, seed=None)
    found = examine(folder, seed=None)
    seed = found.summary["metadata"]["audit"]["seed"]
    assert_same(found, examine(None, seed=seed))
    assert examine(folder, seed=None).summary == found.summary
    assert examine(folder, seed=None, overwrite=True).summary["metadata"]["audit"]["seed"] != seed


def test_an_interrupted_audit_is_written_and_goes_on(tmp_path, monkeypatch):
    honest = Adversary.candidates

    def interrupted(self, *arguments, **options):
        if names(tmp_path) and len(calls) == 8:  # two aims, inside the ball and beyond it
            raise KeyboardInterrupt
        calls.append(None)
        return honest(self, *arguments, **options)

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(Adversary, "candidates", interrupted)
        found = examine(tmp_path)
    assert (found.complete, found.summary["inputs"]) == (False, len(found.table["idx"].unique()))
    assert 0 < found.summary["inputs"] < 6
    assert names(tmp_path) == FINISHED
    assert_same(examine(tmp_path), examine(None))


def test_a_finished_audit_is_given_back_without_work(tmp_path, monkeypatch):
    first = examine(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Adversary, "candidates", lambda *_, **__: pytest.fail("it was attacked again"))
    again = examine(tmp_path)
    assert again.summary == first.summary
    assert_frame_equal(again.table, first.table)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, r"holds an audit that was made with other settings \(audit\.seed was 1, is 2\): restore them"),
        ({"images": 3}, r"audit\.images was 6, is 3; certification\.inputs was"),
        (
            {"steps": 4, "budgets": (0.5, 1.0)},
            r"audit\.budgets was \[0\.5\], is \[0\.5, 1\.0\].*audit\.steps was 3, is 4",
        ),
        ({"world": experts_contradict()}, r"certification\.digest was .*data\.digest was"),
    ],
)
def test_other_settings_are_refused_by_name(killed, tmp_path, change, message):
    examine(tmp_path / "finished")
    for folder in (killed(3), tmp_path / "finished"):
        before = {path: path.read_bytes() for path in folder.rglob("*.*")}
        with pytest.raises(RunError, match=message):
            examine(folder, **change)
        assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_finished_audit_is_replaced_only_by_overwriting(tmp_path):
    examine(tmp_path)
    (tmp_path / "attack-run.json").unlink()
    with pytest.raises(FileExistsError, match=r"holds results already \(attack\.parquet\)"):
        examine(tmp_path)
    assert examine(tmp_path, steps=4, overwrite=True).summary["metadata"]["audit"]["steps"] == 4


def test_damaged_parts_are_done_anew_and_damaged_attempts_are_an_error(killed, capsys):
    folder = killed(3)
    broken = sorted((folder / "attack-parts").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-9])
    assert_same(examine(folder), examine(None))
    said = capsys.readouterr().err
    assert "2 of 6 inputs are attacked already" in said
    assert "its inputs are done anew" in said
    (folder / "attack.parquet").write_bytes((folder / "attack.parquet").read_bytes()[:-9])
    with pytest.raises(RunError, match=r"attack\.parquet .* is not as the run wrote it"):
        examine(folder)
