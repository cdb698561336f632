"""Radii that a lower bound on a class probability buys under Gaussian noise, and the way back."""

from typing import overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from dualrs.certificates._arguments import as_given, real_array
from dualrs.certificates.binomial import clopper_pearson_lower

# scipy's normal quantile is within a relative 4e-16 of mpmath for p in (1/2, 1); the product rounds once.
_ROUND_DOWN = 1.0 - 1e-15


@overload
def gaussian_radius(probability_lower: float, sigma: float) -> float: ...
@overload
def gaussian_radius(probability_lower: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]: ...
def gaussian_radius(probability_lower: ArrayLike, sigma: ArrayLike) -> float | NDArray[np.float64]:
    """Bound an l2 ball around the input inside which the smoothed classifier keeps its class.

    If the class has probability at least `probability_lower` under noise N(0, sigma^2 I) around x, then
    it stays the most likely class around every x' with `||x' - x|| < radius`, where
    `radius = sigma * Phi^-1(probability_lower)` if that probability exceeds 1/2 and 0 otherwise
    (Cohen et al. 2019, Theorem 1 with p_B = 1 - p_A). The result is rounded down.

    Args:
        probability_lower: Lower bound(s) on the class probability, in [0, 1).
        sigma: Standard deviation(s) of the noise, positive and finite, in the units of the input.

    Returns:
        The radius in the units of the input, at least 0. The arguments broadcast; a float if both are
        scalars, else an array.

    Raises:
        TypeError: Where an argument is not a real number.
        ValueError: Where a value is outside of its range. A probability of 1 would mean an infinite
            radius, which no finite number of votes supports.

    Examples:
        >>> round(gaussian_radius(0.9, 0.5), 6)
        0.640776
        >>> gaussian_radius([0.2, 0.5, 0.9], 1.0).round(4)
        array([0.    , 0.    , 1.2816])
    """
    p, s = real_array("probability_lower", probability_lower), _sigma(sigma)
    if not ((p >= 0) & (p < 1)).all():
        raise ValueError(
            f"probability_lower must lie in [0, 1), got {probability_lower!r}: finitely many votes never "
            "bound a probability by 1, and the radius would be infinite"
        )
    return as_given(s * np.maximum(ndtri(np.maximum(p, 0.5)), 0.0) * _ROUND_DOWN)


@overload
def gaussian_probability(radius: float, sigma: float) -> float: ...
@overload
def gaussian_probability(radius: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]: ...
def gaussian_probability(radius: ArrayLike, sigma: ArrayLike) -> float | NDArray[np.float64]:
    """Tell which class probability a radius needs: `Phi(radius / sigma)`, the inverse of `gaussian_radius`.

    This plans how many votes to draw. It is rounded to the nearest float, so let `gaussian_radius` make
    the final claim. For radii beyond about 8.3 sigma it is 1: no finite number of votes is enough.

    Args:
        radius: Radius or radii in the units of the input, finite and at least 0.
        sigma: Standard deviation(s) of the noise, positive and finite, in the units of the input.

    Returns:
        The probability, in [1/2, 1]. The arguments broadcast; a float if both are scalars, else an array.

    Raises:
        TypeError: Where an argument is not a real number.
        ValueError: Where a value is outside of its range.

    Examples:
        >>> round(gaussian_probability(0.5, 0.5), 6)
        0.841345
        >>> gaussian_probability(0.0, 0.25)
        0.5
    """
    r, s = real_array("radius", radius), _sigma(sigma)
    if not (np.isfinite(r) & (r >= 0)).all():
        raise ValueError(f"radius must be finite and at least 0, got {radius!r}")
    return as_given(ndtr(r / s))


@overload
def max_radius(trials: int, level: float, sigma: float) -> float: ...
@overload
def max_radius(trials: ArrayLike, level: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]: ...
def max_radius(trials: ArrayLike, level: ArrayLike, sigma: ArrayLike) -> float | NDArray[np.float64]:
    """Cap every radius that `trials` votes can certify: the radius of a unanimous vote.

    That is `sigma * Phi^-1(level ** (1 / trials))`, or 0 where even a unanimous vote leaves the
    probability at 1/2 or below (Cohen et al. 2019, section 3.2.2).

    Args:
        trials: Numbers of votes, integers in [1, 10_000_000].
        level: Failure probability of the bound, one-sided, in [1e-100, 1).
        sigma: Standard deviation(s) of the noise, positive and finite, in the units of the input.

    Returns:
        The radius in the units of the input. The arguments broadcast; a float if all of them are
        scalars, else an array.

    Raises:
        TypeError: Where `trials` is not of an integer type.
        ValueError: Where a value is outside of its range.

    Examples:
        >>> round(max_radius(10_000, 0.0005, 1.0), 6)
        3.170914
        >>> max_radius(5, 0.001, 1.0)  # 0.001 ** (1 / 5) is below 1/2
        0.0
    """
    return gaussian_radius(clopper_pearson_lower(trials, trials, level), sigma)


def _sigma(sigma: ArrayLike) -> NDArray[np.float64]:
    s = real_array("sigma", sigma)
    if not (np.isfinite(s) & (s > 0)).all():
        raise ValueError(f"sigma is a standard deviation and must be positive and finite, got {sigma!r}")
    return s
