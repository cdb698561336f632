import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dualrs.certificates import Certificate, Route
from dualrs.evaluation import (
    STANDARD_RADII,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    certified_accuracy_interval,
    choice_loss,
    choice_slack,
    confidence_interval,
    dual_to_oracle,
    estimator_abstention_rate,
    estimator_limited_share,
    expert_shares,
    oracle_rows,
    radius_key,
    row_of,
    samples_per_input,
    seconds_per_input,
    sigma_shares,
    summarize,
    table_of,
)
from dualrs.sampling import Outcome


def test_certified_accuracy_is_strict_and_counts_only_true_labels(by_hand):
    accuracy = certified_accuracy(by_hand, [0, 0.125, 0.25, 0.5, 0.74, 0.75, 1.0, 2.0])
    assert {method: (5 * values).tolist() for method, values in accuracy.items()} == {
        "dual": [2, 2, 1, 1, 1, 1, 0, 0],  # radii .25 and 1; idx 7 (1.5) is wrong
        "global-0.25": [3, 2, 2, 1, 1, 0, 0, 0],  # .75, .125, .5
        "global-0.5": [3, 3, 3, 1, 1, 1, 0, 0],  # .5, 1, .5; idx 7 (2.5) is wrong
    }


def test_a_true_label_with_radius_zero_counts_nowhere():
    certificate = Certificate(1, 0.0, 0.5, 0.001, "predict", ())
    table = table_of([row_of(0, "global-0.5", 1, Outcome(certificate, 0.0))])
    assert certified_accuracy(table, 0.0)["global-0.5"] == 0


def test_means_by_hand(by_hand):
    assert average_certified_radius(by_hand) == pytest.approx(
        {"dual": 1.25 / 5, "global-0.25": 1.375 / 5, "global-0.5": 2.0 / 5}
    )
    assert abstention_rate(by_hand) == {"dual": 0.4, "global-0.25": 0.2, "global-0.5": 0.2}
    assert samples_per_input(by_hand) == {"dual": 1800, "global-0.25": 1100, "global-0.5": 1100}
    assert seconds_per_input(by_hand) == {"dual": 2.0, "global-0.25": 0.5, "global-0.5": 1.0}


def test_the_estimator_by_hand(by_hand):
    assert sigma_shares(by_hand) == {0.25: 0.4, 0.5: 0.4}
    assert estimator_abstention_rate(by_hand) == 0.2
    # Of the certificates 3, 5 and 7, the estimator limits 3 (.25 < .75) and 7 (1.5 < 2.5).
    assert estimator_limited_share(by_hand) == pytest.approx(2 / 3)


def test_what_the_choice_costs_by_hand(by_hand):
    # Idx 9 has no choice. Idx 7 chose σ = 0.5, whose certificate is of a wrong class, where σ = 0.25 has radius 0.125.
    assert choice_loss(by_hand).tolist() == [0.0, 0.0, 0.125, 0.0]
    assert choice_slack(by_hand).tolist() == [0.25 - 0.75, 2.0 - 1.0, 1.5 - 2.5, 0.5 - 0.0]


def test_a_routed_choice_limits_as_far_as_the_other_routes_do():
    def slack(*routes):
        radius = min(route.radius for route in routes)
        certificate = Certificate(1, radius, 0.5, 0.001, "routed", (), 0.1, 0.75, routes, "wide")
        return choice_slack(table_of([row_of(0, "dual", 1, Outcome(certificate, 0.0))])).tolist()

    wide = Route(0.5, 0.0, 0.75, "wide")
    assert slack(wide, Route(0.5, 0.1, 1.0, "deep"), Route(1.0, 0.5, None, "expert-1")) == [-0.25]
    assert slack(Route(0.25, 0.5, 1.0, "expert-0.25"), wide) == [0.25]


def test_experts_of_one_sigma_are_told_apart():
    def rows(idx, chosen, **radii):
        made = {"dual": Certificate(1, 0.1, 0.5, 0.001, "min", (), 0.1, 0.2, expert=chosen)} | {
            f"global-0.5 ({name})": Certificate(1, radius, 0.5, 0.001, "cohen", (), expert=name)
            for name, radius in radii.items()
        }
        return [row_of(idx, method, 1, Outcome(certificate, 0.0)) for method, certificate in made.items()]

    table = table_of([*rows(0, "wide", wide=0.5, deep=0.75), *rows(1, "deep", wide=0.5, deep=0.75)])
    assert choice_loss(table).tolist() == [0.25, 0.0]
    assert expert_shares(table) == {"deep": 0.5, "wide": 0.5}
    assert summarize(table)["estimator"]["expert_shares"] == expert_shares(table)
    assert sigma_shares(table) == {0.5: 1.0}


def test_dual_to_oracle_by_hand(by_hand):
    table = pl.concat([by_hand, oracle_rows(by_hand)])
    assert dual_to_oracle(table, [0, 0.25, 0.5, 0.75, 1.0]).tolist() == pytest.approx(
        [2 / 4, 1 / 3, 1 / 2, 1.0, float("nan")], nan_ok=True
    )
    assert dual_to_oracle(by_hand, [0.0]) is None


def test_equal_radii_are_not_limited_by_the_estimator():
    certificate = Certificate(1, 0.5, 0.5, 0.001, "min", (), 0.5, 0.5)
    table = table_of([row_of(0, "dual", 1, Outcome(certificate, 0.0))])
    assert estimator_limited_share(table) == 0


def test_without_dual_rows_there_is_no_estimator(by_hand):
    single = by_hand.filter(pl.col("method") != "dual")
    assert (sigma_shares(single), estimator_abstention_rate(single), estimator_limited_share(single)) == (
        {},
        None,
        None,
    )
    assert expert_shares(single) == {}
    assert len(choice_loss(single)) == len(choice_slack(single)) == 0
    assert summarize(single)["estimator"] is None


@pytest.mark.parametrize("radii", [-0.1, [0.5, float("nan")]])
def test_impossible_radii_are_refused(by_hand, radii):
    with pytest.raises(ValueError, match="at least 0"):
        certified_accuracy(by_hand, radii)


def test_confidence_interval_matches_published_values():
    # 81 of 263: Newcombe (1998), Table I, exact method: 0.2527, 0.3676; 0 and 15 of 15 in closed form.
    low, high = confidence_interval([81], 263)
    assert (low[0], high[0]) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    low, high = confidence_interval([0, 15], 15)
    assert (low[0], high[1]) == (0.0, 1.0)
    assert (high[0], low[1]) == pytest.approx((1 - 0.025 ** (1 / 15), 0.025 ** (1 / 15)), rel=1e-6)
    with pytest.raises(ValueError, match="confidence"):
        confidence_interval([1], 2, confidence=1.0)


@settings(deadline=None)
@given(
    trials=st.integers(1, 60), p=st.integers(0, 1000).map(lambda i: i / 1000), confidence=st.sampled_from([0.8, 0.95])
)
def test_confidence_interval_covers(trials, p, confidence):
    successes = np.arange(trials + 1)
    low, high = confidence_interval(successes, trials, confidence)
    missed = binom.pmf(successes, trials, p)[(p < low) | (p > high)].sum()
    assert missed <= 1 - confidence + 1e-9


def test_intervals_contain_the_accuracies(by_hand):
    accuracy = certified_accuracy(by_hand, STANDARD_RADII)
    for method, (low, high) in certified_accuracy_interval(by_hand, STANDARD_RADII).items():
        assert (low <= accuracy[method]).all()
        assert (accuracy[method] <= high).all()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), min_size=3, max_size=3), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    )
)
def test_the_oracle_bounds_every_single_sigma_and_dual(inputs):
    rows = []
    for idx, (answers, chosen) in enumerate(inputs):
        certificates = [
            Certificate(int(right), radius, sigma, 0.001, "cohen", ())
            for (right, radius), sigma in zip(answers, (0.25, 0.5, 1.0), strict=True)
        ]
        best = certificates[chosen]
        dual = Certificate(best.label, min(1.5, best.radius), best.sigma, 0.001, "min", (), 1.5, best.radius)
        rows.append(row_of(idx, "dual", 1, Outcome(dual, 0.0)))
        rows += [row_of(idx, f"global-{c.sigma:g}", 1, Outcome(c, 0.0)) for c in certificates]
    table = table_of(rows)
    grid = np.linspace(0, 3, 31)
    (oracle,) = certified_accuracy(oracle_rows(table), grid).values()
    assert all((oracle >= accuracy).all() for accuracy in certified_accuracy(table, grid).values())


def test_summary_is_json_ready_and_complete(by_hand):
    table = pl.concat([by_hand, oracle_rows(by_hand)])
    summary = json.loads(json.dumps(summarize(table), allow_nan=False))
    methods = ["dual", "global-0.25", "global-0.5", "oracle"]
    keys = ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25", "1.50", "1.75", "2.00", "2.25", "2.50"]
    assert summary["inputs"] == 5
    assert list(summary["certified_accuracy"]) == methods
    for method in methods:
        assert list(summary["certified_accuracy"][method]) == keys
        assert list(summary["confidence_95"][method]) == keys
        low, high = summary["confidence_95"][method]["0.00"]
        assert low < summary["certified_accuracy"][method]["0.00"] < high
    assert summary["certified_accuracy"]["oracle"]["0.50"] == 0.4
    assert summary["average_certified_radius"]["oracle"] == pytest.approx(2.375 / 5)
    assert summary["estimator"] == {
        "abstained": 0.2,
        "limits_radius": pytest.approx(2 / 3),
        "sigma_shares": {"0.25": 0.4, "0.5": 0.4},
        "choice_loss": {
            "mean": 0.03125,
            **dict.fromkeys(("0.05", "0.25", "0.5"), 0.0),
            "0.75": pytest.approx(0.125 / 4),
            "0.95": pytest.approx(0.125 * 0.85),
        },
        "choice_slack": {
            "mean": 0.0,
            "0.05": pytest.approx(-0.925),
            "0.25": pytest.approx(-0.625),
            "0.5": 0.0,
            "0.75": pytest.approx(0.625),
            "0.95": pytest.approx(0.925),
        },
    }
    assert list(summary["dual_to_oracle"]) == keys
    assert [summary["dual_to_oracle"][r] for r in ("0.00", "0.75", "1.00")] == [0.5, 1.0, None]
    for name in ("abstention_rate", "samples_per_input", "seconds_per_input"):
        assert list(summary[name]) == methods


def test_summary_of_nothing_and_of_abstentions_alone(by_hand):
    empty = summarize(by_hand.clear())
    assert (empty["inputs"], empty["certified_accuracy"], empty["estimator"]) == (0, {}, None)
    abstained = summarize(by_hand.filter(idx=9))
    assert abstained["estimator"]["abstained"] == 1.0
    assert abstained["estimator"]["limits_radius"] is None
    assert (abstained["estimator"]["choice_loss"], abstained["estimator"]["choice_slack"]) == (None, None)
    assert (abstained["dual_to_oracle"], empty["dual_to_oracle"]) == (None, None)


def test_summary_refuses_what_would_mislead(by_hand):
    with pytest.raises(ValueError, match="ascend strictly"):
        summarize(by_hand, [0.5, 0.25])
    with pytest.raises(ValueError, match=r"different inputs \(dual: 4, global-0.25: 5"):
        summarize(by_hand.filter((pl.col("idx") != 5) | (pl.col("method") != "dual")))


def test_radius_keys_tell_radii_apart():
    assert [radius_key(r) for r in (0, 0.5, 2.25, 0.125, 0.1)] == ["0.00", "0.50", "2.25", "0.125", "0.10"]
