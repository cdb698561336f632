import io

import polars as pl
import pytest
from rich.console import Console

from dualrs.evaluation import evaluate, oracle_rows, render, summarize


def printed(summary, width=100):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render(summary))
    return out.getvalue()


@pytest.fixture
def summary(by_hand):
    return summarize(pl.concat([by_hand, oracle_rows(by_hand)]))


def test_it_shows_every_figure(summary):
    lines = [line.split() for line in printed(summary).splitlines()]
    zeros = ["0.0"] * 6
    assert ["dual", "40.0", "20.0", "20.0", "20.0", *["0.0"] * 7] in lines
    assert ["σ", "=", "0.25", "*60.0", "40.0", "*20.0", *["0.0"] * 8] in lines
    assert ["σ", "=", "0.5", "*60.0", "*60.0", "*20.0", "*20.0", "0.0", *zeros] in lines
    assert ["oracle", "80.0", "60.0", "40.0", "20.0", "0.0", *zeros] in lines
    assert ["dual", "0.250", "40.0", "1,800", "2"] in lines


def test_remarks_say_what_limits_the_dual_method(summary):
    text = " ".join(printed(summary).split())
    assert "5 inputs; 95 % intervals at most" in text
    assert "chose σ = 0.25 40.0 %, σ = 0.5 40.0 %; it abstained on 20.0 %" in text
    assert "limits the radius of 66.7 % of certificates." in text
    assert "INCOMPLETE" not in text
    partial = " ".join(printed({**summary, "complete": False, "requested": 1000}).split())
    assert "INCOMPLETE: 5 of 1,000 inputs were finished." in partial


def test_it_fits_in_100_columns(summary):
    # Nothing is wider than 100.0 % with a mark, in every cell.
    full = {
        **summary,
        "certified_accuracy": {m: dict.fromkeys(c, 1.0) for m, c in summary["certified_accuracy"].items()},
    }
    text = printed(full, width=300)
    tables = text[: text.index("inputs;")]
    assert max(len(line.rstrip()) for line in tables.splitlines()) <= 100
    assert "…" not in printed(full)
    assert printed(full).count("*100.0") == 22


def test_experts_are_named_where_a_sigma_has_several(world):
    found = evaluate(world.pool(), world.dataset, n0=32, n=200, alpha=0.01)
    text = " ".join(printed(found.summary).split())
    assert "σ = 0.25 " in text
    assert "σ = 0.5 (deep) " in text
    assert "* the best single expert at that radius. The oracle picks an expert knowing the label" in text
    shares = {name: f"{100 * share:.1f} %" for name, share in found.summary["estimator"]["expert_shares"].items()}
    assert f"(expert-0.25 {shares['expert-0.25']}, callable {shares['callable']}, deep {shares['deep']})" in text


def test_one_method_has_no_best(by_hand):
    text = printed(summarize(by_hand.filter(method="global-0.5")))
    assert "*" not in text
    assert "estimator" not in text


def test_nothing_finished_is_said_plainly(by_hand):
    assert printed(summarize(by_hand.clear())).split() == ["0", "inputs."]
