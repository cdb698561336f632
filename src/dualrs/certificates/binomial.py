"""Exact confidence bounds and tests for the success probability of a binomial.

The bounds are those of Clopper and Pearson (1934), computed from the beta quantile and then made safe
against floating-point error: what is returned covers at least as often as the exact bound.
"""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from dualrs.certificates._arguments import as_given, integer_array, real_array

# scipy's regularised incomplete beta function was compared with mpmath on random arguments in this range
# and was within a relative 1e-9. At smaller levels its quantile can be NaN (3 of 7 at 1e-300) or overshoot
# by orders of magnitude, so such arguments are refused rather than answered.
_SMALLEST_LEVEL = 1e-100
_LARGEST_TRIALS = 10_000_000

# Part of the level is left unused, so that an error of the beta function does not cost coverage. Its quantile,
# a root search, overshoots more (by up to 1e-6 of the level, for some of the largest numbers of trials) and is
# checked against it; where the small slack does not pass, the large one does.
_SLACK = 1e-8
_LARGE_SLACK = 1e-5


@overload
def clopper_pearson_lower(successes: int, trials: int, level: float) -> float: ...
@overload
def clopper_pearson_lower(successes: ArrayLike, trials: ArrayLike, level: ArrayLike) -> NDArray[np.float64]: ...
def clopper_pearson_lower(successes: ArrayLike, trials: ArrayLike, level: ArrayLike) -> float | NDArray[np.float64]:
    """Lie at or below the true success probability, with probability at least `1 - level`.

    The guarantee is for a number of trials fixed in advance. Looking at the bound repeatedly while
    drawing more voids it.

    The bound is `BetaInv(level; k, n - k + 1)` for k >= 1 and 0 for k = 0 (Clopper and Pearson 1934;
    used by Cohen et al. 2019, CERTIFY), so `level ** (1 / n)` for k = n. It covers the error of
    floating point by leaving a relative 1e-8 of `level` unused, in rare cases 1e-5.

    Args:
        successes: Integers k with 0 <= k <= n.
        trials: Integers n in [1, 10_000_000].
        level: Failure probability of the bound, one-sided, in [1e-100, 1).

    Returns:
        The bound, in [0, 1). The arguments broadcast; a float if all of them are scalars, else an array.

    Raises:
        TypeError: Where `successes` or `trials` are not of an integer type.
        ValueError: Where a value is outside of its range.

    Examples:
        >>> round(clopper_pearson_lower(9785, 10_000, 0.0005), 6)
        0.973305
        >>> round(clopper_pearson_lower(100, 100, 0.001), 6)  # 0.001 ** (1 / 100)
        0.933254
        >>> clopper_pearson_lower([0, 5, 10], 10, 0.05).round(4)
        array([0.    , 0.2224, 0.7411])
    """
    k, n, a = _checked(successes, trials, level)
    return as_given(_lower(k, n, a))


@overload
def clopper_pearson_upper(successes: int, trials: int, level: float) -> float: ...
@overload
def clopper_pearson_upper(successes: ArrayLike, trials: ArrayLike, level: ArrayLike) -> NDArray[np.float64]: ...
def clopper_pearson_upper(successes: ArrayLike, trials: ArrayLike, level: ArrayLike) -> float | NDArray[np.float64]:
    """Lie at or above the true success probability, with probability at least `1 - level`.

    The guarantee is for a number of trials fixed in advance. Looking at the bound repeatedly while
    drawing more voids it.

    The bound is `BetaInv(1 - level; k + 1, n - k)` for k < n and 1 for k = n (Clopper and Pearson 1934).
    It is computed as one minus the lower bound on the probability of failure, which is the same number,
    and rounded up.

    Args:
        successes: Integers k with 0 <= k <= n.
        trials: Integers n in [1, 10_000_000].
        level: Failure probability of the bound, one-sided, in [1e-100, 1).

    Returns:
        The bound, in (0, 1]. The arguments broadcast; a float if all of them are scalars, else an array.

    Raises:
        TypeError: Where `successes` or `trials` are not of an integer type.
        ValueError: Where a value is outside of its range.

    Examples:
        >>> round(clopper_pearson_upper(0, 100, 0.05), 6)  # 1 - 0.05 ** (1 / 100)
        0.029513
        >>> clopper_pearson_upper([0, 5, 10], 10, 0.05).round(4)
        array([0.2589, 0.7776, 1.    ])
    """
    k, n, a = _checked(successes, trials, level)
    return as_given(np.nextafter(1.0 - _lower(n - k, n, a), 1.0))


@overload
def two_sided_binomial_p_value(successes: int, trials: int) -> float: ...
@overload
def two_sided_binomial_p_value(successes: ArrayLike, trials: ArrayLike) -> NDArray[np.float64]: ...
def two_sided_binomial_p_value(successes: ArrayLike, trials: ArrayLike) -> float | NDArray[np.float64]:
    """Fall to `alpha` or below with probability at most `alpha` if the success probability is 1/2.

    The exact test of PREDICT (Cohen et al. 2019): at p = 1/2 the binomial is symmetric, so the two-sided
    p-value is `2 P[Bin(n, 1/2) <= min(k, n - k)]`, at most 1.

    Args:
        successes: Integers k with 0 <= k <= n.
        trials: Integers n in [1, 10_000_000].

    Returns:
        The p-value, in [0, 1], rounded up by a relative 1e-8. The arguments broadcast; a float if both
        are scalars, else an array.

    Raises:
        TypeError: Where an argument is not of an integer type.
        ValueError: Where a value is outside of its range.

    Examples:
        >>> round(two_sided_binomial_p_value(9, 10), 6)  # 2 (1 + 10) / 1024
        0.021484
        >>> two_sided_binomial_p_value([5, 0], 10).round(6)
        array([1.      , 0.001953])
    """
    k, n = _checked_counts(successes, trials)
    rarer = np.minimum(k, n - k)
    tail = betainc(n - rarer, rarer + 1, 0.5)  # P[Bin(n, 1/2) <= rarer]
    return as_given(np.minimum(1.0, 2.0 * tail * (1.0 + _SLACK)))


def _lower(k: NDArray[np.int64], n: NDArray[np.int64], level: NDArray[np.float64]) -> NDArray[np.float64]:
    some = np.maximum(k, 1)  # the beta distribution needs k >= 1; k = 0 is answered below
    bound = np.zeros(np.broadcast_shapes(k.shape, n.shape, level.shape))  # always valid
    for slack in (_LARGE_SLACK, _SLACK):
        candidate = betaincinv(some, n - some + 1, level * (1.0 - slack))
        # A NaN does not hold either.
        holds = betainc(some, n - some + 1, candidate) <= level * (1.0 - _SLACK / 2)
        bound = np.where((k >= 1) & holds, candidate, bound)
    return bound


def _checked(
    successes: ArrayLike, trials: ArrayLike, level: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    k, n = _checked_counts(successes, trials)
    a = real_array("level", level)
    if not ((a >= _SMALLEST_LEVEL) & (a < 1)).all():
        raise ValueError(
            f"level is the failure probability of the bound and must lie in [{_SMALLEST_LEVEL:g}, 1), got {level!r}"
        )
    return k, n, a


def _checked_counts(successes: ArrayLike, trials: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    k, n = integer_array("successes", successes), integer_array("trials", trials)
    if not ((n >= 1) & (n <= _LARGEST_TRIALS)).all():
        raise ValueError(f"trials must lie in [1, {_LARGEST_TRIALS}], got {trials!r}")
    if not ((k >= 0) & (k <= n)).all():
        raise ValueError(f"successes must lie between 0 and trials, got successes {successes!r} of trials {trials!r}")
    return k, n
