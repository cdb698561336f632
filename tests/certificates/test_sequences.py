"""Sum, over every path of the trials, the probability that a bound ever fails: the worst that any stopping rule can do.

The probabilities lie just beside the bounds that are attained, where the errors are largest.
"""

import math
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualrs.certificates import clopper_pearson_lower, clopper_pearson_upper, sequences
from dualrs.certificates.sequences import ConfidenceSequence, MixtureSequence, SpendingSequence, geometric_looks

ROUNDING = 1e-12  # of the summed probabilities
LEVELS = (0.001, 0.01, 0.1, 0.3)

levels = st.floats(1e-12, 0.5)  # beyond, even a fixed bound need not enclose the frequency
votes = st.integers(1, 3000).flatmap(lambda t: st.tuples(st.integers(0, t), st.just(t)))
schedules = st.lists(st.integers(1, 3000), min_size=1, max_size=8, unique=True).map(lambda looks: tuple(sorted(looks)))


def every_path(bounds, fails, grid):
    """Return, for each p in `grid`, the probability that a bound fails at any look.

    A path is taken out at its first failure. So what is taken out is the error of the stopping rule that
    waits for one, and no rule does worse.

    Args:
        bounds: The bounds of 0, ..., t successes, by the look t.
        fails: Tells which bounds, in a row, are wrong for which p, in a column.
        grid: Success probabilities.
    """
    p = np.asarray(grid)[:, None]
    paths, failed = np.ones((len(p), 1)), np.zeros(len(p))
    for t in range(1, max(bounds) + 1):
        paths = np.pad(paths * (1 - p), ((0, 0), (0, 1))) + np.pad(paths * p, ((0, 0), (1, 0)))
        if t in bounds:
            wrong = fails(bounds[t][None, :], p)
            failed += (paths * wrong).sum(axis=1)
            paths[wrong] = 0
    return failed


def largest_errors(sequence, looks, points=80):
    """Return the largest error of the lower bound and that of the upper one."""
    lower = {t: np.array([sequence.lower(k, t) for k in range(t + 1)]) for t in looks}
    upper = {t: np.array([sequence.upper(k, t) for k in range(t + 1)]) for t in looks}
    below = np.unique(np.concatenate([bounds[1:] for bounds in lower.values()])) * (1 - 1e-9)
    above = 1 - (1 - np.unique(np.concatenate([bounds[:-1] for bounds in upper.values()]))) * (1 - 1e-9)
    grids = [np.append(edges[:: math.ceil(len(edges) / points)], np.linspace(0, 1, 21)) for edges in (below, above)]
    return (
        every_path(lower, lambda bound, p: bound > p, grids[0]).max(),
        every_path(upper, lambda bound, p: bound < p, grids[1]).max(),
    )


class Fixed(ConfidenceSequence):
    """The fault: the bound for one look fixed in advance, at every look."""

    def _check_look(self, trials):
        pass

    def _lower(self, k, t):
        return clopper_pearson_lower(k, t, self.level)


class TestExactCoverage:
    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize(
        ("looks", "final_share"),
        [
            ((1, 2, 3, 4, 5, 6, 7, 8), 0.5),
            ((10, 20, 30, 40, 50, 60), 0.2),
            ((50, 400), 0.9),
            (geometric_looks(10, 300), 0.5),
            (geometric_looks(50, 500), 0.75),
        ],
    )
    def test_spending(self, looks, final_share, level):
        for error in largest_errors(SpendingSequence(looks, level, final_share), looks):
            assert 0.4 * level < error <= level + ROUNDING

    @pytest.mark.parametrize("level", LEVELS)
    def test_spending_at_one_look_wastes_nothing(self, level):
        for error in largest_errors(SpendingSequence((100,), level), (100,)):
            assert 0.999 * level < error <= level + ROUNDING

    @pytest.mark.parametrize("level", LEVELS)
    def test_a_mixture_at_every_trial(self, level):
        for error in largest_errors(MixtureSequence((300,), level), range(1, 301)):
            assert 0.5 * level < error <= level + ROUNDING

    @pytest.mark.parametrize("level", LEVELS)
    def test_both_bounds_of_a_mixture_together(self, level):
        sequence = MixtureSequence((150,), level)
        bounds = {
            t: np.array([[sequence.lower(k, t), sequence.upper(k, t)] for k in range(t + 1)]) for t in range(1, 151)
        }
        grid = np.append(np.linspace(0, 1, 101), bounds[150].ravel() * (1 - 1e-9))
        error = every_path(bounds, lambda bound, p: (bound[..., 0] > p) | (bound[..., 1] < p), grid).max()
        assert 0.3 * level < error <= level + ROUNDING


class TestTheSumsSeeFaults:
    @pytest.mark.parametrize("level", LEVELS[:3])
    def test_a_fixed_bound_at_every_trial(self, level):
        for error in largest_errors(Fixed((100,), level), range(1, 101)):
            assert error > 2 * level

    def test_a_fixed_bound_at_a_few_looks(self):
        looks = geometric_looks(10, 300)
        for error in largest_errors(Fixed(looks, 0.01), looks):
            assert error > 2 * 0.01

    @pytest.mark.parametrize("level", LEVELS[:3])
    def test_a_mixture_that_forgets_its_regret(self, monkeypatch, level):
        # What is left is the ratio to the largest likelihood, which is no martingale.
        monkeypatch.setattr(sequences, "_log_regret", lambda k, t: 0.0)
        for error in largest_errors(MixtureSequence((100,), level), range(1, 101)):
            assert error > 1.5 * level


class TestTheMartingale:
    def test_its_mean_is_one(self):
        for t in range(1, 13):
            assert sum(math.comb(t, k) * krichevsky_trofimov(k, t) for k in range(t + 1)) == 1

    def test_its_logarithm_is_what_the_bounds_are_compared_with(self):
        p = Fraction(3, 7)
        for t in range(1, 13):
            for k in range(t + 1):
                ratio = krichevsky_trofimov(k, t) / (p**k * (1 - p) ** (t - k))
                assert float(log_martingale(k, t, p)) == pytest.approx(math.log(ratio), abs=1e-12)


def krichevsky_trofimov(k, t):
    """Return the probability that the mixture gives one path with k successes in t trials."""
    odd = math.prod(range(1, 2 * k, 2)) * math.prod(range(1, 2 * (t - k), 2))
    return Fraction(odd, 2**t * math.factorial(t))


def log_martingale(k, t, p):
    """Return log M_t(p) by its definition, for the very float or fraction p, in 60 digits."""
    with mpmath.workdps(60):
        p = mpmath.mpf(p.numerator) / p.denominator if isinstance(p, Fraction) else mpmath.mpf(p)
        half = mpmath.mpf(1) / 2
        log_beta = mpmath.loggamma(k + half) + mpmath.loggamma(t - k + half) - mpmath.loggamma(t + 1)
        successes = k * mpmath.log(p) if k else 0
        failures = (t - k) * mpmath.log(1 - p) if t > k else 0
        return log_beta - mpmath.log(mpmath.pi) - successes - failures


class TestAgainstMpmath:
    @pytest.mark.parametrize("t", [1, 2, 10, 63, 64, 65, 130, 10_000, 1_000_000, 10_000_000])
    @pytest.mark.parametrize("level", [1e-100, 0.001, 1 - 1e-15])
    def test_a_mixture_is_safe_and_tight(self, t, level):
        sequence = MixtureSequence((t,), level)
        threshold = -mpmath.log(level)
        for k in sorted({1, 2, t // 100, t // 2, t - t // 50, t - 1, t} & set(range(1, t + 1))):
            # Less than 0 would be unsafe, and 1e-6 wastes a relative 1e-6 of the level.
            assert 0 <= log_martingale(k, t, sequence.lower(k, t)) - threshold < 1e-6
            with mpmath.workdps(60):
                complement = 1 - mpmath.mpf(sequence.upper(t - k, t))
            assert log_martingale(k, t, complement) - threshold >= 0

    @pytest.mark.parametrize(
        ("k", "t", "expected"), [(1, 1, 0.0005), (9785, 10_000, 0.970709), (9900, 10_000, 0.984387), (0, 7, 0.0)]
    )
    def test_vectors(self, k, t, expected):
        assert MixtureSequence((10_000,), 0.001).lower(k, t) == pytest.approx(expected, abs=1.1e-6)


def sequences_at(t, level, share=0.5):
    early = () if t == 1 else (t // 2,)
    return SpendingSequence((*early, t), level, share), MixtureSequence((*early, t), level)


class TestProperties:
    @given(votes, levels)
    def test_the_bounds_enclose_the_frequency(self, counts, level):
        k, t = counts
        for sequence in sequences_at(t, level):
            assert 0 <= sequence.lower(k, t) <= k / t <= sequence.upper(k, t) <= 1
            assert sequence.lower(0, t) == 0
            assert sequence.upper(t, t) == 1
            assert sequence.lower(t, t) < 1
            assert sequence.upper(0, t) > 0

    @given(votes, levels)
    def test_the_upper_bound_is_the_mirror_image_of_the_lower(self, counts, level):
        k, t = counts
        for sequence in sequences_at(t, level):
            assert sequence.upper(k, t) == pytest.approx(1 - sequence.lower(t - k, t), abs=1e-15)

    @given(votes, levels)
    def test_more_successes_raise_both_bounds(self, counts, level):
        k, t = counts
        for sequence in sequences_at(t + 1, level):
            assert sequence.lower(k + 1, t + 1) >= sequence.lower(k, t + 1)
            assert sequence.upper(k + 1, t + 1) >= sequence.upper(k, t + 1)

    @given(votes, levels)
    def test_any_look_costs_something(self, counts, level):
        k, t = counts
        for sequence in sequences_at(t + 1, level):
            assert sequence.lower(k, t + 1) <= clopper_pearson_lower(k, t + 1, level)
            assert sequence.upper(k, t + 1) >= clopper_pearson_upper(k, t + 1, level)

    @given(votes, levels, st.floats(0.01, 0.99))
    def test_one_look_is_the_fixed_bound_bit_for_bit(self, counts, level, share):
        k, t = counts
        sequence = SpendingSequence((t,), level, share)
        assert sequence.levels == (level,)
        assert sequence.lower(k, t) == clopper_pearson_lower(k, t, level)
        assert sequence.upper(k, t) == clopper_pearson_upper(k, t, level)

    @given(schedules, levels, st.floats(1e-6, 1 - 1e-6))
    def test_the_levels_of_the_looks_add_up_to_no_more_than_the_level(self, looks, level, share):
        sequence = SpendingSequence(looks, level, share)
        assert level * (1 - 1e-9) < sum(map(Fraction, sequence.levels)) <= Fraction(level)
        if len(looks) > 1:
            assert sequence.levels[-1] == pytest.approx(level * share)
            assert len(set(sequence.levels[:-1])) == 1

    @given(schedules.flatmap(lambda looks: st.tuples(st.just(looks), st.sampled_from(looks))), st.data())
    def test_a_bound_depends_on_its_look_alone(self, schedule, data):
        looks, t = schedule
        k = data.draw(st.integers(0, t))
        assert MixtureSequence(looks, 0.01).lower(k, t) == MixtureSequence((3000,), 0.01).lower(k, t)
        sequence = SpendingSequence(looks, 0.01)
        assert sequence.lower(k, t) == clopper_pearson_lower(k, t, sequence.levels[looks.index(t)])


class TestGeometricLooks:
    @given(st.integers(1, 10**7), st.integers(1, 10**7), st.floats(1.001, 1e9))
    def test_they_ascend_from_the_first_to_the_cap(self, first, cap, ratio):
        looks = geometric_looks(first, cap, ratio)
        assert looks[0] == min(first, cap)
        assert looks[-1] == cap
        assert all(one < following for one, following in pairwise(looks))
        for one, following in pairwise(looks[:-1]):
            assert following == max(one + 1, math.ceil(one * ratio))
        if len(looks) > 2:
            assert looks[-2] * math.sqrt(ratio) <= cap  # the last step is no waste
        if len(looks) > 1:
            assert cap < (looks[-2] * ratio + 1) * math.sqrt(ratio) + 1  # nor is a look missing

    def test_a_cap_moves_no_look_but_the_last(self):
        assert geometric_looks(50, 10_000)[:6] == geometric_looks(50, 1000)[:6] == (50, 63, 79, 99, 124, 155)

    def test_a_short_last_step_is_merged(self):
        assert geometric_looks(100, 230, 2.0) == (100, 230)
        assert geometric_looks(100, 290, 2.0) == (100, 200, 290)
        assert geometric_looks(100, 200, 2.0) == (100, 200)
        assert geometric_looks(1, 5, 1.0000000000000002) == (1, 2, 3, 4, 5)

    @pytest.mark.parametrize("ratio", [1.0, 0.5, 0.0, -2.0, float("inf"), float("nan")])
    def test_ratios_that_do_not_grow(self, ratio):
        with pytest.raises(ValueError, match=r"ratio must be (larger than 1|positive and finite), got"):
            geometric_looks(1, 10, ratio)

    def test_looks_that_are_no_counts(self):
        with pytest.raises(ValueError, match="first must be at least 1, got 0"):
            geometric_looks(0, 10)
        with pytest.raises(TypeError, match=r"cap must be an integer, got 10\.0"):
            geometric_looks(1, 10.0)


@pytest.mark.parametrize("kind", [SpendingSequence, MixtureSequence])
class TestRefusals:
    @pytest.mark.parametrize(
        ("looks", "message"),
        [
            ((), "looks must name at least one number of trials, got none"),
            ((10, 10), "looks must be strictly ascending, got 10 after 10"),
            ((10, 20, 15), "looks must be strictly ascending, got 15 after 20"),
            ((0, 10), "each look must be at least 1, got 0"),
            ((10, 10_000_001), r"looks must lie in \[1, 10000000\], got 10000001"),
        ],
    )
    def test_schedules(self, kind, looks, message):
        with pytest.raises(ValueError, match=message):
            kind(looks, 0.01)

    def test_looks_that_are_no_integers(self, kind):
        with pytest.raises(TypeError, match=r"each look must be an integer, got 20\.0 of type float"):
            kind((10, 20.0), 0.01)

    @pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 1e-101, float("nan")])
    def test_levels(self, kind, level):
        with pytest.raises(ValueError, match=r"level .*must"):
            kind((10,), level)

    @pytest.mark.parametrize("bound", ["lower", "upper"])
    def test_counts(self, kind, bound):
        bound = getattr(kind((10, 20), 0.01), bound)
        with pytest.raises(ValueError, match="successes must lie between 0 and trials, got successes 11 of trials 10"):
            bound(11, 10)
        with pytest.raises(ValueError, match="successes must be at least 0, got -1"):
            bound(-1, 10)
        with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
            bound(0, 0)
        with pytest.raises(TypeError, match=r"successes must be an integer, got 3\.0"):
            bound(3.0, 10)
        with pytest.raises(ValueError, match=r"trials must .*got 21"):
            bound(3, 21)
        assert bound(np.int64(3), np.int64(10)) == bound(3, 10)
        assert type(bound(np.int64(3), np.int64(10))) is float


class TestSpendingRefusals:
    def test_a_number_of_trials_that_is_no_look(self):
        with pytest.raises(ValueError, match="one of the looks fixed in advance, 10, 20, got 15"):
            SpendingSequence((10, 20), 0.01).lower(3, 15)
        with pytest.raises(ValueError, match=r"19, 20, \.\.\., got 31"):
            SpendingSequence(range(1, 31), 0.01).lower(3, 31)

    @pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
    def test_shares(self, share):
        with pytest.raises(ValueError, match="final_share must"):
            SpendingSequence((10, 20), 0.01, share)

    def test_a_level_that_is_too_thin_when_spread(self):
        with pytest.raises(ValueError, match=r"spread over 3 looks leaves one of them 2\.5e-101"):
            SpendingSequence((10, 20, 30), 1e-100)

    def test_a_share_that_leaves_nothing(self):
        with pytest.raises(ValueError, match="spread over 2 looks leaves one of them"):
            SpendingSequence((10, 20), 1e-90, 1 - 1e-16)


def test_representations_name_what_they_are_made_of():
    assert repr(MixtureSequence((10, 20), 0.01)) == "MixtureSequence(looks=(10, 20), level=0.01)"
    assert repr(SpendingSequence((10, 20), 0.5)) == "SpendingSequence(looks=(10, 20), level=0.5, levels=(0.25, 0.25))"
