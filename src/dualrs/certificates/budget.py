"""The accountant of the failure probability: every claim reserves its share before a vote is drawn."""

from math import fsum

from dualrs.certificates._arguments import failure_probability

# alpha / 3 three times is alpha up to the rounding of the divisions: a few units in the last place.
_ROUNDING = 1.0 + 4 * 2.0**-52


class BudgetExceededError(ValueError):
    """The claims of a certificate would together fail more often than promised."""


class FailureBudget:
    """Keep the total failure probability of all claims at or below `alpha`.

    Each claim reserves the probability with which it may be wrong. By the union bound all of them hold
    together with probability at least `1 - alpha`, however they depend on each other. A level that was
    reserved stays spent, whether or not the claim is made in the end: handing it on after looking at
    data would void the guarantee.

    Args:
        alpha: Total failure probability, in (0, 1).

    Raises:
        TypeError: If `alpha` is not a real number.
        ValueError: If `alpha` is outside of (0, 1).

    Examples:
        >>> budget = FailureBudget(0.001)
        >>> budget.spend("estimator", 0.0005)
        0.0005
        >>> budget.remaining
        0.0005
        >>> try:
        ...     budget.spend("classifier", 0.001)
        ... except BudgetExceededError as refusal:
        ...     print(refusal)
        cannot spend 0.001 on 'classifier': alpha = 0.001, 0.0005 spent (estimator: 0.0005), 0.0005 remains
    """

    def __init__(self, alpha: float) -> None:
        self._alpha = failure_probability("alpha", alpha)
        self._levels: dict[str, float] = {}

    @property
    def alpha(self) -> float:
        """The total failure probability."""
        return self._alpha

    @property
    def spent(self) -> float:
        """The failure probability reserved so far."""
        return fsum(self._levels.values())

    @property
    def remaining(self) -> float:
        """The failure probability not yet reserved, at least 0."""
        return max(0.0, fsum((self._alpha, *(-level for level in self._levels.values()))))

    @property
    def history(self) -> tuple[tuple[str, float], ...]:
        """Every claim and its level, in the order in which they were reserved."""
        return tuple(self._levels.items())

    def spend(self, name: str, level: float) -> float:
        """Reserve `level` for the claim `name`, and return it.

        Args:
            name: What is claimed; each name is given out once.
            level: Failure probability of the claim, in (0, 1).

        Returns:
            `level`, to be handed to the bound.

        Raises:
            TypeError: If `level` is not a real number.
            ValueError: If `level` is outside of (0, 1) or `name` has already spent.
            BudgetExceededError: If more than `alpha` would be spent; nothing is reserved then.
        """
        level = failure_probability("level", level)
        if name in self._levels:
            raise ValueError(
                f"{name!r} has already spent {self._levels[name]:g}: a second claim needs a name and a level of its own"
            )
        if fsum((*self._levels.values(), level)) > self._alpha * _ROUNDING:
            claims = ", ".join(f"{claim}: {share:g}" for claim, share in self._levels.items()) or "no claim yet"
            raise BudgetExceededError(
                f"cannot spend {level:g} on {name!r}: alpha = {self._alpha:g}, "
                f"{self.spent:g} spent ({claims}), {self.remaining:g} remains"
            )
        self._levels[name] = level
        return level

    def __repr__(self) -> str:
        return f"FailureBudget(alpha={self._alpha:g}, spent={self.spent:g})"
