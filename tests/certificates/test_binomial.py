import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc
from scipy.stats import binom, binomtest

from dualrs.certificates import clopper_pearson_lower, clopper_pearson_upper, two_sided_binomial_p_value

LEVELS = (1e-12, 1e-6, 0.0005, 0.05, 0.5, 0.999)

levels = st.floats(1e-12, 0.999)  # beyond, neighbouring bounds differ by no more than rounding
votes = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def exact_upper_tail(k, n, p):
    """Return P[Bin(n, p) >= k] for the very float p, summed in 150 digits."""
    with mpmath.workdps(150):
        p = mpmath.mpf(p)
        near_n = n - k < k
        js = range(k, n + 1) if near_n else range(k)
        mass = mpmath.fsum(mpmath.binomial(n, j) * p**j * (1 - p) ** (n - j) for j in js)
        return mass if near_n else 1 - mass


class TestVectors:
    @pytest.mark.parametrize(
        ("k", "expected"), [(9785, 0.973304), (10_000, 0.999240), (0, 0.0)], ids=["most", "all", "none"]
    )
    def test_lower_at_the_level_of_the_paper(self, k, expected):
        assert clopper_pearson_lower(k, 10_000, 0.0005) == pytest.approx(expected, abs=1.1e-6)

    def test_upper_is_the_mirror_image_of_lower(self):
        k = np.arange(51)
        lower, upper = clopper_pearson_lower(50 - k, 50, 0.01), clopper_pearson_upper(k, 50, 0.01)
        assert upper == pytest.approx(1 - lower, rel=1e-14)

    @pytest.mark.parametrize("n", [1, 2, 10, 1000, 10_000_000])
    @pytest.mark.parametrize("level", [*LEVELS, 1 - 1e-15])
    def test_unanimous_votes(self, n, level):
        assert clopper_pearson_lower(n, n, level) == pytest.approx(level ** (1 / n), abs=1e-7)
        assert 0 < clopper_pearson_lower(n, n, level) < 1
        assert 0 < clopper_pearson_upper(0, n, level) < 1
        assert clopper_pearson_lower(0, n, level) == 0
        assert clopper_pearson_upper(n, n, level) == 1

    def test_p_value_is_that_of_scipy(self):
        for n in (1, 2, 7, 30, 1000):
            for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
                expected = binomtest(k, n, 0.5).pvalue
                assert two_sided_binomial_p_value(k, n) == pytest.approx(expected, rel=1e-7)

    def test_p_value_of_a_tie_is_one(self):
        assert two_sided_binomial_p_value(5, 10) == 1


class TestAgainstMpmath:
    @pytest.mark.parametrize("n", [1, 2, 5, 100, 10_000, 1_000_000])
    @pytest.mark.parametrize("level", LEVELS)
    def test_bounds_are_safe_and_tight_near_both_ends(self, n, level):
        for k in sorted({k for k in (1, 2, 3, 20, n - 20, n - 2, n - 1, n) if 1 <= k <= n}):
            tail = exact_upper_tail(k, n, clopper_pearson_lower(k, n, level))
            assert level * (1 - 1e-7) < tail <= level
            # Failures of an upper bound on 1 - p are successes: P[Bin(n, p) <= n - k] = P[Bin(n, 1 - p) >= k].
            with mpmath.workdps(150):
                complement = 1 - mpmath.mpf(clopper_pearson_upper(n - k, n, level))
            tail = exact_upper_tail(k, n, complement)
            assert tail <= level

    @pytest.mark.parametrize("level", [1e-100, 1e-30, 0.0005, 0.3])
    def test_bounds_are_safe_in_the_middle(self, level):
        for k, n in [(1500, 3000), (200, 1500), (1300, 1500), (51, 100)]:
            tail = exact_upper_tail(k, n, clopper_pearson_lower(k, n, level))
            assert level * (1 - 1e-6) < tail <= level

    def test_a_failing_quantile_does_not_empty_the_bound(self):
        # The quantile of scipy 1.17 overshoots here by more than the slack that is left at first.
        k, n, level = 301_938, 3_000_000, 1e-100
        bound = clopper_pearson_lower(k, n, level)
        assert level * (1 - 2e-5) < betainc(k, n - k + 1, bound) < level

    def test_p_value_is_never_too_small(self):
        for n in (1, 11, 100, 1000):
            for k in range(0, n // 2, max(1, n // 10)):
                exact = 2 * mpmath.fsum(mpmath.binomial(n, j) for j in range(k + 1)) / mpmath.mpf(2) ** n
                assert two_sided_binomial_p_value(k, n) >= min(1, exact)


class TestExactCoverage:
    """Sum the binomial over the counts for which the bound is wrong."""

    @pytest.mark.parametrize("n", [1, 2, 5, 10, 50, 200, 1000])
    @pytest.mark.parametrize("level", [0.0005, 0.01, 0.1, 0.5])
    def test_bounds_fail_no_more_often_than_promised(self, n, level):
        k = np.arange(n + 1)
        lower, upper = clopper_pearson_lower(k, n, level), clopper_pearson_upper(k, n, level)
        # The coverage is worst just beside the bounds themselves, where it reaches the level.
        edges = np.concatenate([lower * (1 - 1e-9), lower, upper, upper + (1 - upper) * 1e-9])
        grid = np.concatenate([np.linspace(0, 1, 301), edges[:: max(1, n // 100)]])
        outcomes = binom.pmf(k[:, None], n, grid)
        lower_fails = (outcomes * (lower[:, None] > grid)).sum(axis=0)
        upper_fails = (outcomes * (upper[:, None] < grid)).sum(axis=0)
        assert lower_fails.max() <= level * (1 + 1e-9)
        assert upper_fails.max() <= level * (1 + 1e-9)
        assert lower_fails.max() > level * 0.999
        assert upper_fails.max() > level * 0.999

    def test_the_p_value_is_small_no_more_often_than_promised(self):
        for n in (1, 5, 10, 50, 200):
            k = np.arange(n + 1)
            p_values, mass = two_sided_binomial_p_value(k, n), binom.pmf(k, n, 0.5)
            for alpha in (0.001, 0.01, 0.1, 0.5):
                assert mass[p_values <= alpha].sum() <= alpha


class TestProperties:
    @given(votes, levels)
    def test_bounds_enclose_the_frequency_at_levels_below_one_half(self, counts, level):
        k, n = counts
        level = level / 2
        assert clopper_pearson_lower(k, n, level) <= k / n <= clopper_pearson_upper(k, n, level)

    @given(votes, levels)
    def test_bounds_are_probabilities(self, counts, level):
        assert 0 <= clopper_pearson_lower(*counts, level) < 1
        assert 0 < clopper_pearson_upper(*counts, level) <= 1

    @given(votes, levels)
    def test_more_successes_raise_both_bounds(self, counts, level):
        k, n = counts
        assert clopper_pearson_lower(k + 1, n + 1, level) >= clopper_pearson_lower(k, n + 1, level)
        assert clopper_pearson_upper(k + 1, n + 1, level) >= clopper_pearson_upper(k, n + 1, level)

    @given(votes, levels)
    def test_one_more_failure_lowers_both_bounds(self, counts, level):
        k, n = counts
        assert clopper_pearson_lower(k, n + 1, level) <= clopper_pearson_lower(k, n, level)
        assert clopper_pearson_upper(k, n + 1, level) <= clopper_pearson_upper(k, n, level)

    @given(votes, levels, levels)
    def test_a_larger_level_narrows_the_bounds(self, counts, one, other):
        small, large = sorted((one, other))
        rounding = 1e-12  # of the quantile, where the two levels all but agree
        assert clopper_pearson_lower(*counts, small) <= clopper_pearson_lower(*counts, large) + rounding
        assert clopper_pearson_upper(*counts, small) >= clopper_pearson_upper(*counts, large) - rounding


class TestShapes:
    @pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper])
    def test_scalars_give_a_float_and_arrays_broadcast(self, bound):
        assert type(bound(3, 10, 0.1)) is float
        assert type(bound(np.int64(3), np.int32(10), np.float64(0.1))) is float
        table = bound(np.array([[3], [4]]), np.uint8(10), [0.1, 0.2, 0.3])
        assert table.shape == (2, 3)
        assert table.dtype == np.float64
        assert table[1, 2] == bound(4, 10, 0.3)

    def test_p_values_likewise(self):
        assert type(two_sided_binomial_p_value(3, 10)) is float
        assert two_sided_binomial_p_value([1, 2, 3], 10).shape == (3,)


@pytest.mark.parametrize("bound", [clopper_pearson_lower, clopper_pearson_upper])
class TestRefusals:
    @pytest.mark.parametrize(("k", "n"), [(-1, 10), (11, 10), ([0, 11], 10), (1, [10, 0])])
    def test_impossible_counts(self, bound, k, n):
        with pytest.raises(ValueError, match=r"successes must lie between|trials must lie in"):
            bound(k, n, 0.1)

    @pytest.mark.parametrize("n", [0, -1, 10_000_001])
    def test_impossible_trials(self, bound, n):
        with pytest.raises(ValueError, match=rf"trials must lie in \[1, 10000000\], got {n}"):
            bound(0, n, 0.1)

    @pytest.mark.parametrize("k", [3.0, float("nan"), "3", True, None])
    def test_counts_that_are_not_integers(self, bound, k):
        with pytest.raises(TypeError, match="successes must be integers"):
            bound(k, 10, 0.1)

    def test_counts_that_do_not_fit(self, bound):
        with pytest.raises(ValueError, match="must fit into 64 bits"):
            bound(np.uint64(2**63), 10, 0.1)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1.5, float("nan"), 1e-101, [0.1, 1.0]])
    def test_levels_that_are_no_failure_probability(self, bound, level):
        with pytest.raises(ValueError, match=r"level .* must lie in \[1e-100, 1\)"):
            bound(3, 10, level)

    def test_levels_that_are_no_numbers(self, bound):
        with pytest.raises(TypeError, match="level must be real numbers"):
            bound(3, 10, "0.1")
