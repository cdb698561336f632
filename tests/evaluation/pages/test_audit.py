"""What a report says of the audit that a run's folder holds."""

import polars as pl
import pytest

from dualrs.evaluation import CERTIFICATES, ResultsError, write_parquet, write_report
from dualrs.evaluation.pages._audit import audit_alarm, audit_in_words, audit_tables
from dualrs.evaluation.pages._runs import open_runs


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_attempts_breaks_and_accuracies_are_in_tables(table, save, audited):
    folder = save("one", table)
    audited(folder)
    (run,) = open_runs([folder])
    aims, accuracy = audit_tables(run)
    assert texts(aims) == [
        ["none", "the input itself", "3", "0", "0", "300", "–"],
        ["label", "another answer of the chosen expert", "3", "0", "0", "300", "−0.500"],
    ]
    assert texts(accuracy) == [
        ["0.00", "66.7", "66.7", "0"],
        ["0.125", "66.7", "66.7", "0"],
        ["1.00", "0.0", "33.3", "1"],
    ]


def test_the_verdict_is_beside_what_bad_luck_explains(table, save, audited):
    folder = save("one", table)
    audited(folder)
    (run,) = open_runs([folder])
    words = audit_in_words(run)
    assert (words["verdict"], words["wrong"], words["first"]) == ("No certificate was broken.", False, "dual")
    assert {term: cell.text for term, cell in words["headline"]} == {
        "inputs attacked": "3",
        "attempts on certificates": "6",
        "inputs broken": "0",
        "expected from bad luck, at most": "0.006",
    }
    assert audit_alarm(run) is None


def test_certificates_that_broke_are_told_of_first(table, save, audited, tmp_path):
    folder = save("one", table)
    audited(folder, breaks=2)
    page = write_report([folder], tmp_path / "report").read_text()
    alarm = page.index("<strong>The certificates are wrong.</strong> Attacks broke 2 of 3 inputs")
    assert alarm < page.index("What a certificate says")
    assert "THE CERTIFICATES ARE WRONG: 2 of 3 inputs broken, p = " in page
    assert (tmp_path / "report" / "tables" / "attack-aims.csv").read_text().splitlines()[2].startswith("label,")


def test_an_audit_that_was_interrupted_says_so(table, save, audited, tmp_path):
    folder = save("one", table)
    audited(folder, complete=False, requested=40)
    page = write_report([folder], tmp_path / "report").read_text()
    assert "on 3 of 40 inputs, for the audit was interrupted. A remark." in page


def test_without_an_audit_nothing_is_shown(table, save, audited, tmp_path):
    one, other = save("one", table), save("other", table)
    page = write_report([one], tmp_path / "report").read_text()
    assert "Attacks" not in page
    assert not list((tmp_path / "report" / "tables").glob("attack*"))
    audited(one)  # of two runs one
    page = write_report([other, one], tmp_path / "report").read_text()
    assert page.count("Attacks on the certificates") == 1
    header, row, *_ = (tmp_path / "report" / "tables" / "attack-accuracy.csv").read_text().splitlines()
    assert header == "run,budget,certified,empirical,attempts"
    assert row.startswith("one,0.00,0.66")


def test_an_audit_of_other_certificates_is_left_out(table, save, audited, tmp_path, capsys):
    folder = save("one", table)
    audited(folder)
    more = pl.concat([table, table.with_columns(pl.col("idx") + 100)])
    write_parquet(more, folder / CERTIFICATES)  # the run went on, and the audit holds
    assert open_runs([folder])[0].audit["inputs"] == 3
    write_parquet(table.with_columns(radius=pl.col("radius") / 2), folder / CERTIFICATES)
    assert open_runs([folder])[0].audit is None
    assert "is an audit of other certificates than the run has now, and left out" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[1]", "null", "{}"])
def test_a_damaged_audit_is_an_error(table, save, tmp_path, content):
    folder = save("one", table)
    (folder / "attack.json").write_text(content)
    with pytest.raises(ResultsError, match=r"attack\.json is no summary of an audit"):
        write_report([folder], tmp_path / "report")
