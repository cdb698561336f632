"""Radii that bounds on two competing class probabilities buy under Gaussian noise.

A bound from above on the rival is worth as much as one from below on the winner. Both functions take
bounds that need to hold for one pair of classes only: see docs/theory.md, "One adversary at a time".
"""

from math import inf, nextafter

from scipy.special import ndtri

from dualrs.certificates._arguments import integer, positive, probability

# scipy's normal quantile is within a relative 1e-15 of mpmath's on [1e-300, 1); sums and products round too.
_ROUNDING = 1e-14


def margin_radius(winner_lower: float, rival_upper: float, sigma: float) -> float:
    """Bound an l2 ball around the input inside which one class stays more probable than another.

    If the winner has probability at least `winner_lower` under noise N(0, sigma^2 I) around x and the rival
    at most `rival_upper`, then the winner is strictly more probable than the rival around every x' with
    `||x' - x|| < radius`, where `radius = sigma / 2 (Phi^-1(p_winner) - Phi^-1(p_rival))` (Cohen et al. 2019,
    Theorem 1). As the two exclude each other, `1 - winner_lower` bounds the rival as well; so the radius is
    never below `gaussian_radius(winner_lower, sigma)` by more than rounding. It is rounded down.

    Args:
        winner_lower: Lower bound on the winner's probability, in [0, 1).
        rival_upper: Upper bound on the rival's probability, in (0, 1].
        sigma: Standard deviation of the noise, positive and finite, in the units of the input.

    Returns:
        The radius in the units of the input; 0 if the bounds do not tell the two apart.

    Raises:
        TypeError: If an argument is not a real number.
        ValueError: If an argument is outside of its range.

    Examples:
        >>> round(margin_radius(0.9, 0.1, 0.5), 6), round(margin_radius(0.9, 1.0, 0.5), 6)
        (0.640776, 0.640776)
        >>> round(margin_radius(0.4, 0.2, 1.0), 6)  # although no class has the majority
        0.294137
    """
    p, q, sigma = _winner(winner_lower), _rival("rival_upper", rival_upper), positive("sigma", sigma)
    q = min(q, nextafter(1.0 - p, 1.0))
    if p <= q:
        return 0.0
    return _rounded_down(sigma / 2, float(ndtri(p)), float(ndtri(q)))


def exclusion_radius(top_lower: float, candidate_upper: float, candidates: int, sigma: float) -> float:
    """Bound an l2 ball around the input inside which the variance estimator does not choose a candidate.

    Two reasons, of which the better counts. Another candidate stays more probable: `margin_radius`. Or the
    candidate's probability stays below `1 / candidates`, so that some other one has more: within
    `sigma (Phi^-1(1 / candidates) - Phi^-1(candidate_upper))` (docs/theory.md, Theorems 3 and 4). The
    second reason asks for no clear winner. The radius is rounded down.

    Args:
        top_lower: Lower bound on the probability of one other candidate, in [0, 1); 0 if there is none.
        candidate_upper: Upper bound on the probability that a vote is for the candidate or for none at
            all, in (0, 1].
        candidates: How many candidates the estimator chooses from, at least 2.
        sigma: Noise level of the estimator, positive and finite, in the units of the input.

    Returns:
        The radius in the units of the input; 0 if neither reason applies.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range.

    Examples:
        >>> round(exclusion_radius(0.9, 0.02, 3, 1.0), 4)  # by the margin, (1.2816 + 2.0537) / 2
        1.6677
        >>> round(exclusion_radius(0.5, 0.02, 3, 1.0), 4)  # by being rare; the margin alone gives 1.0269
        1.623
    """
    count, sigma = integer("candidates", candidates, 2), positive("sigma", sigma)
    q = _rival("candidate_upper", candidate_upper)
    rare = _rounded_down(sigma, float(ndtri(1 / count)), float(ndtri(q))) if q * count < 1 else 0.0
    return max(margin_radius(top_lower, q, sigma), rare)


def _rounded_down(scale: float, high: float, low: float) -> float:
    radius = scale * (high - low - _ROUNDING * (1.0 + abs(high) + abs(low))) if high > -inf else 0.0
    return max(0.0, radius)


def _winner(value: float) -> float:
    p = probability("winner_lower", value)
    if p >= 1:
        raise ValueError(
            f"winner_lower must lie in [0, 1), got {value}: finitely many votes never bound a probability by 1, and "
            "the radius would be infinite"
        )
    return p


def _rival(name: str, value: float) -> float:
    p = probability(name, value)
    if p <= 0:
        raise ValueError(
            f"{name} must lie in (0, 1], got {value}: finitely many votes never bound a probability by 0, and the "
            "radius would be infinite"
        )
    return p
