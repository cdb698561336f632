"""Radii from two bounds: against mpmath, against each other, and never rounded up."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from dualrs.certificates import exclusion_radius, gaussian_radius, margin_radius

probabilities = st.floats(1e-12, 1 - 1e-12)
sigmas = st.sampled_from([0.12, 0.25, 0.5, 1.0, 2.0])


def quantile(p):
    with mpmath.workdps(50):
        return mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1)


@given(probabilities, probabilities, sigmas)
def test_the_margin_is_right_and_never_above_the_exact_one(winner, rival, sigma):
    found = margin_radius(winner, rival, sigma)
    with mpmath.workdps(50):
        low = min(mpmath.mpf(rival), 1 - mpmath.mpf(winner))
        exact = mpmath.mpf(sigma) / 2 * (quantile(winner) - quantile(low))
        assert 0 <= found <= max(exact, 0)
        assert found >= exact - 1e-12


@given(probabilities, st.integers(2, 10), sigmas)
def test_rarity_is_right_and_never_above_the_exact_one(candidate, candidates, sigma):
    found = exclusion_radius(0.0, candidate, candidates, sigma)
    with mpmath.workdps(50):
        exact = mpmath.mpf(sigma) * (quantile(mpmath.mpf(1) / candidates) - quantile(candidate))
        assert 0 <= found <= max(exact, 0)
        assert found >= exact - 1e-12


@given(probabilities, probabilities, sigmas)
def test_a_bound_on_the_rival_never_costs(winner, rival, sigma):
    assert margin_radius(winner, rival, sigma) >= gaussian_radius(winner, sigma) * (1 - 1e-12) - 1e-12
    assert margin_radius(winner, 1.0, sigma) == pytest.approx(gaussian_radius(winner, sigma), abs=1e-12)
    assert exclusion_radius(winner, rival, 3, sigma) >= margin_radius(winner, rival, sigma)


def test_of_two_candidates_being_rare_is_losing():
    for p in (0.001, 0.2, 0.49):
        assert exclusion_radius(0.0, p, 2, 0.5) == pytest.approx(gaussian_radius(1 - p, 0.5))
    assert exclusion_radius(0.0, 0.5, 2, 0.5) == 0.0


@pytest.mark.parametrize("shares", [(0.5, 0.45, 0.05), (0.9, 0.08, 0.02), (0.4, 0.35, 0.25), (0.6, 0.39, 0.01)])
def test_no_shift_within_the_radius_lets_the_excluded_candidate_lead(shares):
    """In the worst worlds for the two reasons: the excluded candidate gains, and the others lose, as half-spaces do."""
    radius = exclusion_radius(shares[0], shares[2], 3, 1.0)
    z = ndtri(np.array(shares))
    for shift in np.linspace(0, radius * (1 - 1e-9), 50):
        gained, kept = ndtr(z[2] + shift), ndtr(z[:2] - shift)
        # Whatever the leader and the runner-up lose, together they keep what the gained one leaves.
        assert gained < max(kept[0], (1 - gained) / 2)
    assert radius > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: margin_radius(1.0, 0.1, 1.0), r"winner_lower must lie in \[0, 1\)"),
        (lambda: margin_radius(0.5, 0.0, 1.0), r"rival_upper must lie in \(0, 1\]"),
        (lambda: margin_radius(1.5, 0.1, 1.0), "winner_lower is a probability"),
        (lambda: margin_radius(0.9, float("nan"), 1.0), "rival_upper is a probability"),
        (lambda: margin_radius(0.9, 0.1, 0.0), "sigma must be positive"),
        (lambda: exclusion_radius(0.9, 0.1, 1, 1.0), "candidates must be at least 2"),
        (lambda: exclusion_radius(0.9, 0.0, 2, 1.0), r"candidate_upper must lie in \(0, 1\]"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_claim_without_a_bound():
    assert margin_radius(0.0, 0.5, 1.0) == 0.0
    assert margin_radius(0.3, 0.3, 1.0) == 0.0
