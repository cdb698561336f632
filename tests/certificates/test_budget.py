import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualrs.certificates import BudgetExceededError, FailureBudget


def test_what_is_spent_is_recorded_in_order():
    budget = FailureBudget(0.01)
    assert budget.spend("estimator", 0.004) == 0.004
    assert budget.spend("classifier", 0.001) == 0.001
    assert budget.alpha == 0.01
    assert budget.spent == 0.005
    assert budget.remaining == 0.005
    assert budget.history == (("estimator", 0.004), ("classifier", 0.001))
    assert repr(budget) == "FailureBudget(alpha=0.01, spent=0.005)"


def test_a_new_budget_is_unspent():
    budget = FailureBudget(0.01)
    assert (budget.spent, budget.remaining, budget.history) == (0.0, 0.01, ())


@given(st.floats(1e-12, 1, exclude_max=True), st.integers(1, 200))
def test_equal_shares_fill_the_budget_exactly(alpha, parts):
    budget = FailureBudget(alpha)
    for i in range(parts):
        budget.spend(f"claim {i}", alpha / parts)
    assert budget.spent == pytest.approx(alpha, rel=1e-14)
    assert budget.remaining <= alpha * 1e-14
    with pytest.raises(BudgetExceededError):
        budget.spend("one more", alpha * 1e-9)


def test_an_overspent_budget_says_what_became_of_it():
    budget = FailureBudget(0.001)
    budget.spend("estimator", 0.0005)
    message = (
        r"cannot spend 0\.001 on 'classifier': alpha = 0\.001, 0\.0005 spent \(estimator: 0\.0005\), "
        r"0\.0005 remains"
    )
    with pytest.raises(BudgetExceededError, match=message):
        budget.spend("classifier", 0.001)
    assert budget.spent == 0.0005
    budget.spend("classifier", 0.0005)


def test_a_first_claim_can_be_too_large():
    with pytest.raises(BudgetExceededError, match="no claim yet"):
        FailureBudget(0.001).spend("all", 0.0010001)


def test_exceeding_is_a_value_error():
    assert issubclass(BudgetExceededError, ValueError)


def test_a_name_spends_once():
    budget = FailureBudget(0.01)
    budget.spend("estimator", 0.001)
    with pytest.raises(ValueError, match=r"'estimator' has already spent 0\.001"):
        budget.spend("estimator", 0.001)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2, float("nan")])
def test_values_that_are_no_failure_probability(value):
    with pytest.raises(ValueError, match=r"alpha .* must lie strictly in \(0, 1\)"):
        FailureBudget(value)
    with pytest.raises(ValueError, match=r"level .* must lie strictly in \(0, 1\)"):
        FailureBudget(0.5).spend("claim", value)


def test_values_that_are_no_numbers():
    with pytest.raises(TypeError, match=r"alpha must be a real number, got '0\.1' of type str"):
        FailureBudget("0.1")
