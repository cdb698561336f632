import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualrs.certificates import clopper_pearson_lower, gaussian_probability, gaussian_radius, max_radius

sigmas = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(
    ("sigma", "k", "radius"),
    [(1.0, 9785, 1.931752), (0.5, 9586, 0.830494), (1.0, 10_000, 3.170914), (1.0, 8768, 1.106061)],
)
def test_vectors_of_the_paper(sigma, k, radius):
    assert gaussian_radius(clopper_pearson_lower(k, 10_000, 0.0005), sigma) == pytest.approx(radius, abs=1e-6)


def test_the_largest_radius_is_that_of_a_unanimous_vote():
    assert max_radius(10_000, 0.0005, 0.5) == pytest.approx(3.170914 / 2, abs=1e-6)
    assert max_radius(9, 0.001, 1.0) == 0
    assert max_radius([9, 10], 0.001, 1.0)[1] > 0


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_half_the_votes_certify_nothing(p):
    assert gaussian_radius(p, 1.0) == 0


def test_the_radius_is_never_rounded_up():
    probabilities = np.concatenate([np.linspace(0.501, 0.999, 97), 1 - np.logspace(-15, -3, 25)])
    for p in probabilities:
        with mpmath.workdps(40):
            exact = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) * mpmath.mpf(0.37)
            assert exact * (1 - 3e-15) < gaussian_radius(p, 0.37) <= exact


@given(st.floats(0.0, 5.0), sigmas)
def test_probability_inverts_radius(ratio, sigma):
    radius = ratio * sigma
    assert gaussian_radius(gaussian_probability(radius, sigma), sigma) == pytest.approx(
        radius, rel=1e-7, abs=1e-12 * sigma
    )


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True), sigmas)
def test_a_higher_probability_reaches_further(one, other, sigma):
    low, high = sorted((one, other))
    assert gaussian_radius(low, sigma) <= gaussian_radius(high, sigma)


@given(st.floats(0, 1, exclude_max=True), sigmas)
def test_the_radius_scales_with_the_noise(p, sigma):
    assert gaussian_radius(p, sigma) == pytest.approx(sigma * gaussian_radius(p, 1.0), rel=1e-14)


def test_a_radius_beyond_all_votes_needs_certainty():
    assert gaussian_probability(9.0, 1.0) == 1


def test_scalars_give_a_float_and_arrays_broadcast():
    assert type(gaussian_radius(0.9, 1)) is float
    assert type(gaussian_probability(np.float32(0.5), np.float64(1.0))) is float
    assert gaussian_radius([[0.6], [0.7]], [0.25, 0.5, 1.0]).shape == (2, 3)
    assert max_radius([10, 100], 0.001, [[0.25], [0.5]]).dtype == np.float64


@pytest.mark.parametrize("p", [1.0, 1.1, -0.1, float("nan"), [0.5, 1.0]])
def test_probabilities_outside_of_their_range(p):
    with pytest.raises(ValueError, match=r"probability_lower must lie in \[0, 1\)"):
        gaussian_radius(p, 1.0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan"), [1.0, 0.0]])
def test_noise_levels_outside_of_their_range(sigma):
    with pytest.raises(ValueError, match=r"sigma .* must be positive and finite"):
        gaussian_radius(0.9, sigma)
    with pytest.raises(ValueError, match=r"sigma .* must be positive and finite"):
        gaussian_probability(0.9, sigma)


@pytest.mark.parametrize("radius", [-0.1, float("inf"), float("nan")])
def test_radii_outside_of_their_range(radius):
    with pytest.raises(ValueError, match="radius must be finite and at least 0"):
        gaussian_probability(radius, 1.0)


def test_what_is_no_number():
    with pytest.raises(TypeError, match="sigma must be real numbers"):
        gaussian_radius(0.9, "1.0")
