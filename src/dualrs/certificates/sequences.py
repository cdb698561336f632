"""Confidence sequences: bounds on one success probability that may be looked at while trials are still drawn.

A bound of fixed length loses its guarantee where the data decide when to stop. The two kinds here keep it:
`SpendingSequence` divides its level among looks that are fixed in advance, and ends nearly as tight as the
fixed bound; `MixtureSequence` may be looked at after every trial, and pays for that at each of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from math import ceil, exp, fsum, lgamma, log, log1p, nextafter, pi, sqrt
from typing import Literal, TypeAlias, get_args

from dualrs.certificates._arguments import failure_probability, integer, positive
from dualrs.certificates.binomial import clopper_pearson_lower

# What the bounds of `binomial` accept; the mixture was compared with mpmath in the same range.
_SMALLEST_LEVEL = 1e-100
_LARGEST_TRIALS = 10_000_000

# The log of the mixture martingale is a sum whose terms are each right to a few units in the last place. A
# probability is excluded only where the sum clears its threshold by a thousand times that.
_SLACK = 1e-12
_UNIT = 2.0**-53

# The asymptotic series below are cut after three terms, with an error under 1e-16 from here on.
_SERIES = 64


class ConfidenceSequence(ABC):
    """Bound one success probability at every look, all looks together wrong with probability at most `level`.

    For every p, the probability that `lower` exceeds p at any look is at most `level`, and so is the
    probability that `upper` falls below p at any look; both together fail with at most twice that. So the
    bound at the look where one stops is right with probability at least `1 - level`, whatever rule stops:
    it may use these trials, other data or the clock, but must not know trials that are still to come.

    A bound is a function of the counts at its look alone, and not the best one so far: who knows the
    counts can recompute it.

    Args:
        looks: Numbers of trials, strictly ascending integers in [1, 10_000_000]; the last is the cap.
        level: Failure probability of each of the two bounds, one-sided, in [1e-100, 1).

    Raises:
        TypeError: If a look is not an integer or `level` not a real number.
        ValueError: If there is no look, if they do not ascend, or if a value is outside of its range.
    """

    def __init__(self, looks: Iterable[int], level: float) -> None:
        self._looks = _checked_looks(looks)
        self._level = failure_probability("level", level)
        if self._level < _SMALLEST_LEVEL:
            raise ValueError(f"level must be at least {_SMALLEST_LEVEL:g}, got {level!r}")

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of trials after which to look, ascending; the last is the cap."""
        return self._looks

    @property
    def level(self) -> float:
        """The probability that `lower` fails at any look, and the probability that `upper` does."""
        return self._level

    def lower(self, successes: int, trials: int) -> float:
        """Lie at or below the true success probability at all looks, with probability at least `1 - level`.

        Args:
            successes: Integer k with 0 <= k <= t: the successes among all trials so far.
            trials: Integer t, the number of trials so far; the sequence must allow a look at it.

        Returns:
            The bound, in [0, 1); 0 for k = 0.

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If `successes` is outside of its range, or `trials` is no look of this sequence.
        """
        k, t = _checked_counts(successes, trials)
        self._check_look(t)
        return self._lower(k, t)

    def upper(self, successes: int, trials: int) -> float:
        """Lie at or above the true success probability at all looks, with probability at least `1 - level`.

        One minus the lower bound on the probability of failure, rounded up.

        Args:
            successes: Integer k with 0 <= k <= t: the successes among all trials so far.
            trials: Integer t, the number of trials so far; the sequence must allow a look at it.

        Returns:
            The bound, in (0, 1]; 1 for k = t.

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If `successes` is outside of its range, or `trials` is no look of this sequence.
        """
        k, t = _checked_counts(successes, trials)
        self._check_look(t)
        return nextafter(1.0 - self._lower(t - k, t), 1.0)

    @abstractmethod
    def _check_look(self, trials: int) -> None:
        """Refuse a number of trials, at least 1, at which this sequence gives no bound."""

    @abstractmethod
    def _lower(self, k: int, t: int) -> float:
        """Return the lower bound for checked counts."""


class SpendingSequence(ConfidenceSequence):
    """Bound one success probability at looks fixed in advance, all together wrong with probability <= `level`.

    The bound at look j is that of Clopper and Pearson at a level a_j of its own, and the a_j add up to at
    most `level`: by the union bound all looks hold together. The cap has `final_share` of the level, the
    earlier looks have equal parts of the rest. With one look it is the fixed bound at the full level, bit for bit.

    This is the better one where the looks are few and known, the more so where the cap is often reached or
    its bound matters, as for a certified radius: with the default share, the cap costs what halving the
    level costs. Looks are wasted where even a unanimous vote of so few trials could not decide.

    Equal parts were compared, by exact sums over all paths, with parts that shrink or grow with j. With
    level 0.001, cap 10_000 and 14 looks from 50, shrinking parts save some 15 trials where the answer is
    clear, and cost up to a fifth more where it is close; growing ones do the opposite.

    Args:
        looks: Numbers of trials, strictly ascending integers in [1, 10_000_000]; the last is the cap.
        level: Failure probability of each of the two bounds, one-sided, in [1e-100, 1).
        final_share: Part of the level kept for the cap, in (0, 1). Of no effect with one look.

    Raises:
        TypeError: If a look is not an integer, or `level` or `final_share` not a real number.
        ValueError: If there is no look, if they do not ascend, if a value is outside of its range, or if
            the level of one look would be below 1e-100.

    Examples:
        >>> sequence = SpendingSequence((100, 1000, 10_000), 0.001)
        >>> sequence.levels
        (0.00025, 0.00025, 0.0005)
        >>> round(sequence.lower(9785, 10_000), 6)  # at half the level
        0.973305
        >>> round(sequence.upper(0, 100), 6)  # 1 - 0.00025 ** (1 / 100)
        0.079594
        >>> sequence.lower(50, 50)
        Traceback (most recent call last):
            ...
        ValueError: trials must be one of the looks fixed in advance, 100, 1000, 10000, got 50
    """

    def __init__(self, looks: Iterable[int], level: float, final_share: float = 0.5) -> None:
        super().__init__(looks, level)
        share = positive("final_share", final_share)
        if share >= 1:
            raise ValueError(
                f"final_share must lie strictly in (0, 1), got {final_share!r}: the earlier looks need some"
            )
        levels = _spread(self._level, len(self._looks), share)
        if min(levels) < _SMALLEST_LEVEL:
            raise ValueError(
                f"level {level!r} spread over {len(levels)} looks leaves one of them {min(levels):g}, and a bound "
                f"needs at least {_SMALLEST_LEVEL:g}: use a larger level or fewer looks"
            )
        self._levels = dict(zip(self._looks, levels, strict=True))

    @property
    def levels(self) -> tuple[float, ...]:
        """The level of each look; they add up to at most `level`."""
        return tuple(self._levels.values())

    def _check_look(self, trials: int) -> None:
        if trials not in self._levels:
            shown = ", ".join(map(str, self._looks[:20])) + (", ..." if len(self._looks) > 20 else "")
            raise ValueError(f"trials must be one of the looks fixed in advance, {shown}, got {trials}")

    def _lower(self, k: int, t: int) -> float:
        return clopper_pearson_lower(k, t, self._levels[t])

    def __repr__(self) -> str:
        return f"SpendingSequence(looks={self._looks}, level={self._level:g}, levels={self.levels})"


class MixtureSequence(ConfidenceSequence):
    """Bound one success probability after every trial, all together wrong with probability at most `level`.

    For k successes in t trials, `M_t(p) = B(k + 1/2, t - k + 1/2) / (B(1/2, 1/2) p^k (1 - p)^(t - k))` is
    the likelihood under the prior Beta(1/2, 1/2) of Krichevsky and Trofimov (1981), divided by that under
    p. It is a martingale of mean 1 if p is true, so it ever reaches `1 / level` with probability at most
    `level` (Ville 1939; Robbins 1970, whose mixtures these are). The bounds are the ends of
    `{p : M_t(p) < 1 / level}`, an interval around k / t because log M is convex in p; even both together
    fail with at most `level`. They are computed from below resp. above, and a p is excluded only where
    log M clears its threshold by more than a thousand times the error of floating point.

    This is the better one where the looks cannot be fixed in advance, or are as frequent as the trials. At
    the same few looks `SpendingSequence` decides earlier and ends tighter.

    Args:
        looks: Numbers of trials after which one plans to look, strictly ascending integers in
            [1, 10_000_000]. Only the last, the cap, binds: any number of trials up to it may be looked at.
        level: Failure probability of each of the two bounds, in [1e-100, 1).

    Raises:
        TypeError: If a look is not an integer or `level` not a real number.
        ValueError: If there is no look, if they do not ascend, or if a value is outside of its range.

    Examples:
        >>> sequence = MixtureSequence((10_000,), 0.001)
        >>> round(sequence.lower(9785, 10_000), 6)
        0.970709
        >>> round(sequence.lower(1, 1), 6)  # M_1(p) = 1 / 2p reaches 1000 at p = 1 / 2000
        0.0005
        >>> sequence.lower(0, 50), sequence.upper(50, 50)
        (0.0, 1.0)
    """

    def _check_look(self, trials: int) -> None:
        if trials > self._looks[-1]:
            raise ValueError(f"trials must lie between 1 and the cap of {self._looks[-1]}, got {trials}")

    def _lower(self, k: int, t: int) -> float:
        if k == 0:
            return 0.0
        failures = t - k
        q = k / t
        # log M is the divergence t KL(q || p) less the regret, so p is excluded where the divergence exceeds this.
        threshold = _log_regret(k, t) - log(self._level)
        bound = 0.0  # always valid
        # The divergence is at least k log(q / p) - k, and at least t (q - p)^2 / 2 q: neither start passes the end.
        candidate = max(q * exp(-1.0 - threshold / k), q - sqrt(2.0 * q * threshold / t)) * (1.0 - 1e-9)
        while bound < candidate < q:
            # Relative to q' = fl(k / t), the sum is the divergence up to the square of the rounding of q'.
            apart = q - candidate
            of_successes = -k * (log1p(-apart / q) if candidate > q / 2 else log(candidate / q))
            of_failures = -failures * log1p(apart / (1.0 - q)) if failures else 0.0
            slope = t * apart / (candidate * (1.0 - candidate))
            # The second part is what neighbouring floats differ by: close to 1 they are far apart.
            slack = _SLACK * (1.0 + threshold + of_successes - of_failures) + 8.0 * _UNIT * candidate * slope
            excess = of_successes + of_failures - threshold
            if not excess > slack:
                break
            bound = candidate
            # Newton's method in log(p / (1 - p)), in which the divergence is convex with slope t (p - q): it
            # approaches the end from below. Aiming at twice the slack, rounding does not take it beyond the slack.
            odds = bound / (1.0 - bound) * exp((excess - 2.0 * slack) / (t * apart))
            candidate = odds / (1.0 + odds)
        return bound

    def __repr__(self) -> str:
        return f"MixtureSequence(looks={self._looks}, level={self._level:g})"


SequenceName: TypeAlias = Literal["spending", "mixture"]
"""The kinds of confidence sequence, by name."""


def make_sequence(
    name: SequenceName, looks: Iterable[int], level: float, final_share: float = 0.5
) -> ConfidenceSequence:
    """Make a `SpendingSequence` ("spending") or a `MixtureSequence` ("mixture"), which has no final share.

    Raises:
        TypeError: If a look is not an integer or `level` not a real number.
        ValueError: If there is no sequence of that name, or an argument is outside of its range.
    """
    if name == "spending":
        return SpendingSequence(looks, level, final_share)
    if name == "mixture":
        return MixtureSequence(looks, level)
    raise ValueError(f"sequence must be one of {', '.join(get_args(SequenceName))}, got {name!r}")


def geometric_looks(first: int, cap: int, ratio: float = 1.25) -> tuple[int, ...]:
    """Return looks that grow by `ratio`, so that a decision comes at most about that factor too late.

    They start at `first`, or at `cap` if that is less, each is the one before times `ratio`, rounded up, and
    the last is `cap`. A look from which it is less than half a step (a factor of the root of `ratio`)
    to the cap is left out, unless it is the first. All but the last do not depend on the cap.

    Args:
        first: The first look, an integer of at least 1.
        cap: The last look, an integer of at least 1.
        ratio: Finite, larger than 1.

    Returns:
        Strictly ascending integers.

    Raises:
        TypeError: If `first` or `cap` is not an integer or `ratio` not a real number.
        ValueError: If a value is outside of its range.

    Examples:
        >>> geometric_looks(50, 1000)
        (50, 63, 79, 99, 124, 155, 194, 243, 304, 380, 475, 594, 743, 1000)
        >>> geometric_looks(100, 50)
        (50,)
    """
    first, cap = integer("first", first, 1), integer("cap", cap, 1)
    growth = positive("ratio", ratio)
    if growth <= 1:
        raise ValueError(f"ratio must be larger than 1, got {ratio!r}: the looks ascend")
    looks = [min(first, cap)]
    while looks[-1] < cap:
        # A ratio close to 1 can round to no step.
        following = max(looks[-1] + 1, ceil(min(looks[-1] * growth, cap)))
        looks.append(following if following * sqrt(growth) <= cap else cap)
    return tuple(looks)


def _checked_looks(looks: Iterable[int]) -> tuple[int, ...]:
    checked = tuple(integer("each look", look, 1) for look in looks)
    if not checked:
        raise ValueError("looks must name at least one number of trials, got none")
    for one, following in pairwise(checked):
        if one >= following:
            raise ValueError(f"looks must be strictly ascending, got {following} after {one}")
    if checked[-1] > _LARGEST_TRIALS:
        raise ValueError(f"looks must lie in [1, {_LARGEST_TRIALS}], got {checked[-1]}")
    return checked


def _checked_counts(successes: int, trials: int) -> tuple[int, int]:
    t = integer("trials", trials, 1)
    k = integer("successes", successes, 0)
    if k > t:
        raise ValueError(f"successes must lie between 0 and trials, got successes {k} of trials {t}")
    return k, t


def _spread(level: float, looks: int, final_share: float) -> tuple[float, ...]:
    """Divide `level` among the looks so that the exact sum of the floats is at most `level`."""
    if looks == 1:
        return (level,)
    final = level * final_share
    early = (level - final) / (looks - 1)
    # fsum rounds once, so its sign is exact.
    while fsum((*[early] * (looks - 1), final, -level)) > 0:
        early = nextafter(early, 0.0)
    return (*[early] * (looks - 1), final)


def _log_regret(k: int, t: int) -> float:
    """Return the log of the largest likelihood over that of the mixture, both of k >= 1 successes in t trials.

    That is `-log B(k + 1/2, t - k + 1/2) + log B(1/2, 1/2) - t H(k / t)`, with the entropy H. Its terms grow
    with t and cancel but for some units, so Stirling's main terms are cancelled here by hand, and what is
    added are the rests of the three gamma functions.
    """
    return 0.5 * log(0.5 * pi * t) + _stirling_rest(t) - _half_stirling_rest(k) - _half_stirling_rest(t - k)


def _stirling_rest(n: int) -> float:
    """Return `log Gamma(n + 1) - (n log n - n + log(2 pi n) / 2)` (Abramowitz and Stegun 1964, 6.1.41)."""
    if n < _SERIES:
        return lgamma(n + 1.0) - (n * log(n) - n + 0.5 * log(2.0 * pi * n))
    return (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * n * n)) / (n * n)) / n


def _half_stirling_rest(n: int) -> float:
    """Return `log Gamma(n + 1/2) - (n log n - n + log(2 pi) / 2)`, by 6.1.41 and the duplication formula 6.1.18."""
    if n < _SERIES:
        return lgamma(n + 0.5) - ((n * log(n) - n if n else 0.0) + 0.5 * log(2.0 * pi))
    return (-1.0 / 24.0 + (7.0 / 2880.0 - 31.0 / (40320.0 * n * n)) / (n * n)) / n
