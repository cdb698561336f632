"""What is asked of the engine, what it answered, and what follows from it.

A certification procedure is a generator: it yields a `VoteRequest`, is sent an int64 array with the
number of votes for each class, and returns a `Certificate`. It never sees the input or a network.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates._arguments import failure_probability, integer, non_negative, positive


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Ask for `count` votes of `model` on noisy copies of the input that nobody has used before.

    The answer is an int64 array of shape (num_classes,): how many copies got each class. Votes without
    a class (NaN logits) are in no entry, so the sum may be smaller than `count`, never larger.

    Args:
        model: Name of the base classifier.
        sigma: Standard deviation of the Gaussian noise in the units of the input, positive and finite.
        count: Number of votes, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range.
    """

    model: str
    sigma: float
    count: int

    def __post_init__(self) -> None:
        _store(self, "sigma", positive("sigma", self.sigma))
        _store(self, "count", integer("count", self.count, 1))


@dataclass(frozen=True, slots=True)
class StageCounts:
    """Record the raw votes of one stage, from which anyone can recompute the certificate.

    Args:
        name: The stage, such as "selection", "estimation" or "estimator/selection".
        model: Name of the base classifier that voted.
        sigma: Standard deviation of the noise in the units of the input, positive and finite.
        counts: Votes for each class.
        trials: Votes drawn. The `trials - sum(counts)` invalid ones count against every class.
        level: Failure probability of what the stage claims, in (0, 1); None if it claims nothing, as a
            selection does.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range, or more votes were counted than drawn.
    """

    name: str
    model: str
    sigma: float
    counts: tuple[int, ...]
    trials: int
    level: float | None

    def __post_init__(self) -> None:
        _store(self, "sigma", positive("sigma", self.sigma))
        _store(self, "counts", tuple(integer("every count", count, 0) for count in self.counts))
        _store(self, "trials", integer("trials", self.trials, 1))
        if self.level is not None:
            _store(self, "level", failure_probability("level", self.level))
        if not self.counts:
            raise ValueError(f"counts of stage {self.name!r} must hold one entry per class, got none")
        if sum(self.counts) > self.trials:
            raise ValueError(
                f"stage {self.name!r} counts {sum(self.counts)} votes {self.counts} but drew only "
                f"{self.trials}: every vote may be counted once"
            )

    @property
    def invalid(self) -> int:
        """Votes that named no class."""
        return self.trials - sum(self.counts)


@dataclass(frozen=True, slots=True)
class Route:
    """Record why one expert is harmless near x: it is not chosen there, or it answers the label.

    Each radius holds by itself; only their combination in the certificate holds with its full confidence.

    Args:
        sigma: Its noise level, positive and finite.
        exclusion_radius: Radius X within which the estimator does not choose it, finite and at least 0.
        agreement_radius: Radius R within which it answers the certificate's label, finite and at least 0;
            None if it was not examined.
        expert: Its name; None in records that do not say.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range.
    """

    sigma: float
    exclusion_radius: float
    agreement_radius: float | None
    expert: str | None = None

    def __post_init__(self) -> None:
        _store(self, "sigma", positive("sigma", self.sigma))
        _store(self, "exclusion_radius", non_negative("exclusion_radius", self.exclusion_radius))
        if self.agreement_radius is not None:
            _store(self, "agreement_radius", non_negative("agreement_radius", self.agreement_radius))

    @property
    def radius(self) -> float:
        """Radius within which the expert cannot change the answer."""
        return max(self.exclusion_radius, self.agreement_radius or 0.0)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Promise that every x' with `||x' - x||_2 < radius` (strictly) gets `label`, unless abstaining.

    The promise is wrong with probability at most `alpha` over the noise, for an input that was chosen
    without knowledge of the noise.

    Args:
        label: The class, at least 0; None if the procedure abstains.
        radius: Certified radius in the units of the input, finite and at least 0; 0 promises the label
            of x alone, and nothing if the procedure abstains.
        sigma: Noise level whose classifier answered; None if the choice of a classifier abstained.
        alpha: Failure probability of the whole certificate, in (0, 1).
        rule: The procedure, such as "cohen", "min" or "routed".
        stages: Raw votes of every stage, in the order in which they were drawn.
        estimator_radius: Radius within which the choice of the classifier is certified; 0 if the estimator
            abstained or claims x alone, None if there is no estimator.
        classifier_radius: Radius within which the chosen classifier is certified; 0 if it abstained or
            claims x alone, None if it was not asked or is the only stage.
        routes: One for each expert, if the radius is that of the weakest of them (rule "routed").
        expert: Name of the base classifier that answered at `sigma`; None if the choice of one abstained,
            and in records that do not say.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range, an abstention claims a radius, or the radius
            exceeds what the routes allow.
    """

    label: int | None
    radius: float
    sigma: float | None
    alpha: float
    rule: str
    stages: tuple[StageCounts, ...]
    estimator_radius: float | None = None
    classifier_radius: float | None = None
    routes: tuple[Route, ...] | None = None
    expert: str | None = None

    def __post_init__(self) -> None:
        if self.label is not None:
            _store(self, "label", integer("label", self.label, 0))
        if self.sigma is not None:
            _store(self, "sigma", positive("sigma", self.sigma))
        _store(self, "radius", non_negative("radius", self.radius))
        _store(self, "alpha", failure_probability("alpha", self.alpha))
        _store(self, "stages", tuple(self.stages))
        for name in ("estimator_radius", "classifier_radius"):
            if getattr(self, name) is not None:
                _store(self, name, non_negative(name, getattr(self, name)))
        if self.label is None and self.radius > 0:
            raise ValueError(f"an abstention certifies nothing: its radius must be 0, got {self.radius}")
        if self.routes is not None:
            _store(self, "routes", tuple(self.routes))
            if self.radius > min((route.radius for route in self.routes), default=0.0):
                raise ValueError(f"radius {self.radius} is beyond the weakest of the routes {self.routes}")

    @property
    def abstained(self) -> bool:
        """Whether the procedure declined to answer."""
        return self.label is None

    @property
    def samples(self) -> int:
        """Votes drawn in all stages together."""
        return sum(stage.trials for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dicts, lists and numbers that `json.dumps` takes as they are."""
        fields = asdict(self)
        fields["stages"] = [{**stage, "counts": list(stage["counts"])} for stage in fields["stages"]]
        fields["routes"] = None if self.routes is None else list(fields["routes"])
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild the certificate that `to_dict` wrote, checking every field again.

        Raises:
            TypeError: If a field is missing, unknown or of the wrong type.
            ValueError: If a field is outside of its range.
        """
        checked = dict(fields)
        for name, part in (("stages", StageCounts), ("routes", Route)):
            if checked.get(name) is not None:
                checked[name] = tuple(part(**value) for value in checked[name])
        return cls(**checked)

    def __str__(self) -> str:
        spent = f"α={self.alpha:g}, {self.samples} samples"
        if self.label is None:
            return f"abstained ({spent})"
        at = "" if self.sigma is None else f" at σ={self.sigma:g}"
        if self.radius == 0:
            return f"label {self.label} for this input alone{at} ({spent})"
        # Rounding to nearest would claim more than was proved for half of all radii.
        radius = Decimal(self.radius).quantize(Decimal("0.0001"), ROUND_DOWN)
        return f"label {self.label}, certified radius {radius}{at} ({spent})"


Procedure: TypeAlias = Generator[VoteRequest, NDArray[np.int64], Certificate]
"""A procedure: yields vote requests, is sent class counts, returns a certificate.

The votes it is sent must be fresh: independent given the input, and never handed to it before.
"""


def run_procedure(procedure: Procedure, answer: Callable[[VoteRequest], NDArray[np.int64]]) -> Certificate:
    """Drive `procedure` to its certificate, answering each request with `answer(request)`.

    Args:
        procedure: A procedure that was not started yet.
        answer: Returns the class counts that `VoteRequest` describes, from fresh votes.

    Returns:
        The certificate.

    Raises:
        ValueError: If the procedure refuses an answer. What `answer` raises passes through.

    Examples:
        >>> import numpy as np
        >>> from dualrs.certificates import certify
        >>> always_one = lambda request: np.array([0, request.count, 0])
        >>> print(run_procedure(certify(0.5, n0=100, n=10_000, alpha=0.001), always_one))
        label 1, certified radius 1.5992 at σ=0.5 (α=0.001, 10100 samples)
    """
    outcome = _advance(partial(next, procedure))
    while isinstance(outcome, VoteRequest):
        outcome = _advance(partial(procedure.send, answer(outcome)))
    return outcome


def _advance(step: Callable[[], VoteRequest]) -> VoteRequest | Certificate:
    # Only the procedure runs in here: a StopIteration that escapes from `answer` must not look like the end.
    try:
        return step()
    except StopIteration as finished:
        certificate: Certificate = finished.value
        return certificate


def _store(instance: object, name: str, value: object) -> None:
    # Fields are normalised to plain Python numbers, whatever numpy type came in, so that they are JSON-ready.
    object.__setattr__(instance, name, value)
