import polars as pl
import pytest

from dualrs.evaluation import CERTIFICATES, SUMMARY, Evaluation, ResultsError, RunError, evaluate, write_parquet
from dualrs.evaluation.pages._facts import alarms_of, facts_of, guarantee_of
from dualrs.evaluation.pages._runs import Run, open_runs
from dualrs.evaluation.store import RunStore


def test_a_run_is_read_as_it_was_written(table, save):
    (run,) = open_runs([save("one", table)])
    assert run.table.equals(table)
    assert (run.name, run.finished, run.methods) == ("one", 5, ["dual", "global-0.25", "global-0.5", "oracle"])
    assert run.of("certification", "n") == 1000
    assert run.of("certification", "unknown") is None


def test_a_table_alone_is_a_run(table, save):
    (run,) = open_runs([save("one", table) / CERTIFICATES])
    assert (run.name, run.metadata, run.of("data", "name")) == ("one", {}, None)


def test_a_run_that_is_under_way_is_read_as_far_as_it_got(world, tmp_path, monkeypatch):
    def die(store):
        raise SystemExit

    monkeypatch.setattr(RunStore, "finish", die)
    with pytest.raises(SystemExit):
        evaluate(world.model(), world.dataset, folder=tmp_path / "run", n0=16, n=64, alpha=0.05)
    assert not (tmp_path / "run" / CERTIFICATES).exists()
    (run,) = open_runs([tmp_path / "run"])
    assert (run.name, run.finished, run.of("certification", "n")) == ("run", 12, 64)


def test_names_tell_runs_apart(table, save, tmp_path):
    folders = [save(name, table) for name in ("a/seed", "b/seed")]
    assert [run.name for run in open_runs(folders)] == ["a/seed", "b/seed"]
    log = write_parquet(table, tmp_path / "a" / "seed.parquet")
    assert [run.name for run in open_runs([folders[0], log])] == ["seed", "seed.parquet"]


def test_runs_are_narrowed_to_what_all_have(table, save):
    runs = open_runs([save("all", table), save("some", table.filter(pl.col("idx") > 5))])
    assert [run.table["idx"].unique().sort().to_list() for run in runs] == [[7, 9, 11]] * 2
    assert [(run.finished, run.inputs) for run in runs] == [(5, 3), (3, 3)]


def test_nothing_and_twice_are_refused(table, save):
    folder = save("one", table)
    with pytest.raises(ValueError, match="at least one run"):
        open_runs([])
    with pytest.raises(ValueError, match="named twice"):
        open_runs([folder, folder / ".." / "one"])
    with pytest.raises(ValueError, match="named twice"):
        open_runs([folder, folder / CERTIFICATES])


def test_a_missing_run_is_named(table, save, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no run.*no such folder"):
        open_runs([tmp_path / "nowhere"])
    folder = save("one", table)
    (folder / CERTIFICATES).unlink()
    with pytest.raises(RunError, match=r"no folder of a run: it has neither run\.json nor certificates\.parquet"):
        open_runs([folder])


def test_damage_is_named(table, save):
    folder = save("one", table)
    (folder / SUMMARY).write_text('{"complete": tr')
    with pytest.raises(ResultsError, match=r"summary\.json is no summary of a run \(JSONDecodeError"):
        open_runs([folder])
    (folder / SUMMARY).write_text("[]")
    with pytest.raises(ResultsError, match="is no summary of a run"):
        open_runs([folder])
    (folder / CERTIFICATES).write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match="truncated or no Parquet file"):
        open_runs([folder])


def test_an_empty_run_is_refused(table, save):
    with pytest.raises(ResultsError, match="not one input was finished"):
        open_runs([save("one", table.clear())])


def test_other_data_are_refused(table, save, metadata):
    one = save("one", table)
    other = save("other", table, metadata=metadata(data={"name": "cifar10", "digest": "cd" * 32}))
    with pytest.raises(ValueError, match=r"different data: one is of fashion-mnist-sample .*other is of cifar10"):
        open_runs([one, other])
    other = table.with_columns(label=pl.lit(0, pl.Int64()))
    relabelled = other.with_columns(correct=pl.col("predicted").eq_missing(pl.col("label")))
    with pytest.raises(ValueError, match="input 3 has class 1 in one and 0 in the other"):
        open_runs([one, save("relabelled", relabelled)])
    with pytest.raises(ValueError, match="no input is in all of one, moved"):
        open_runs([one, save("moved", table.with_columns(pl.col("idx") + 100))])


def test_facts_say_what_is_recorded(recorded):
    facts = {term: (value, detail) for term, value, detail in facts_of(recorded)}
    assert facts["data"][0] == "fashion-mnist-sample; test split"
    assert facts["inputs"] == ("5", "")
    assert facts["model"] == ("σ = 0.25, 0.5; σ_e = 1; 10 classes", "sha256 abababababababab…")
    assert facts["rules"][0] == "min, cohen"
    assert facts["votes of each stage"][0] == "n0 = 100; n = 1,000"
    assert facts["made"] == ("2026-01-02; dualrs 0.1.0", "2 min of computing")
    assert alarms_of(recorded) == []


def test_facts_say_what_is_not(table, run_of):
    run = run_of("log", table.filter(method="global-0.5").with_columns(alpha=pl.lit(None, pl.Float64())))
    facts = {term: value for term, value, _ in facts_of(run)}
    unknown = [term for term, value in facts.items() if value == "not recorded"]
    assert unknown == ["data", "model", "votes of each stage", "failure probability", "noise", "made"]
    assert "its failure probability" in guarantee_of([run])[0]


def test_what_is_unfinished_is_said(table):
    run = Run("part", table, Evaluation(table, False, 1000, {}, None))
    ((title, alarm),) = alarms_of(run)
    assert title == "Incomplete."
    assert alarm.startswith("5 of 1,000 inputs were finished")
    assert {term: value for term, value, _ in facts_of(run)}["inputs"] == "5 of 1,000"


def test_the_guarantee_has_its_numbers(recorded):
    said, unsaid = guarantee_of([recorded])
    assert said.endswith("at most α = 0.001.")
    assert "among 5, 0.005 wrong ones" in unsaid
