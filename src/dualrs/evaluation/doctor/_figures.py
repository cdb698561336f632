"""What a diagnosis consists of, and how its figures are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor
from typing import Any, Literal

from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

Model = SmoothedClassifier | DualSmoothedClassifier
Level = Literal["problem", "note", "ok"]


@dataclass(frozen=True)
class Finding:
    """One sentence that says what was measured and what to do, and how much it matters."""

    level: Level
    text: str


@dataclass(frozen=True)
class BaseReport:
    """How one base classifier runs.

    Attributes:
        name: by which procedures ask for it.
        sigma: at which it votes.
        backend, device, precision, batch_size: on what it runs; empty if it was refused before it ran.
        refused: why it is not one fixed function; None if it passed the probe, and None is what follows otherwise.
        outputs: how many logits it gives.
        votes_per_second: of the engine, noise included.
        bare_per_second: rows of a constant batch that the same backend evaluates.
        spread: the slowest round of either measurement by its fastest; far above 1 on a busy machine.
        same_bits: whether logits are bitwise equal wherever a row stands in a batch.
    """

    name: str
    sigma: float
    backend: str
    device: str
    precision: str
    batch_size: int
    refused: str | None = None
    outputs: int | None = None
    votes_per_second: float | None = None
    bare_per_second: float | None = None
    spread: float | None = None
    same_bits: bool | None = None

    @property
    def ratio(self) -> float | None:
        """The engine's speed by the bare network's."""
        return self.votes_per_second / self.bare_per_second if self.votes_per_second and self.bare_per_second else None


@dataclass(frozen=True)
class Cap:
    """The radius of a unanimous vote: ``radius`` by the model's own rule, ``plain`` by CERTIFY of Cohen et al. 2019.

    For the estimator it is the radius within which its choice of σ can be proved. 0 if nothing can be.
    """

    name: str
    sigma: float
    n: int
    radius: float
    plain: float


@dataclass(frozen=True)
class Work:
    """What certifying some inputs at once took, by base classifier and over all.

    Attributes:
        inputs: how many were certified.
        made_up: whether they are random images, for want of data.
        abstained: on how many the model abstained.
        unsettled: on how many of these the chosen expert did answer, but the choice of σ was not settled.
        votes_per_input: votes that were evaluated; ``votes`` splits them up.
        fill_rate: the share of evaluated rows that were asked for; ``fill_rates`` splits it up.
    """

    inputs: int
    made_up: bool
    abstained: int
    unsettled: int
    seconds_per_input: float
    votes_per_input: float
    votes: Mapping[str, float]
    fill_rate: float
    fill_rates: Mapping[str, float]


@dataclass(frozen=True)
class Sight:
    """How often an expert is right on labelled images, without noise and with one draw of its noise.

    Attributes:
        clean, noisy: shares of ``images``; ``interval`` covers the noisy one with 95 %.
        answer, answer_share: its most frequent answer under noise.
        invalid: the share of noisy images that it gave NaN logits for.
    """

    name: str
    sigma: float
    images: int
    clean: float
    noisy: float
    interval: tuple[float, float]
    answer: str
    answer_share: float
    invalid: float


@dataclass(frozen=True)
class Misfit:
    """An expert that sees much better if its inputs are changed: it seems to expect other ones.

    Attributes:
        expects: what it seems to expect.
        before, after: the shares of ``images`` that it is right on without noise, as they are and changed to that.
    """

    name: str
    expects: str
    images: int
    before: float
    after: float


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; figures first, then what they mean.

    Attributes:
        n, alpha, rule: what was examined for; ``smallest_n`` is the least with which anything can be certified.
        chance: 1 / number of classes.
        choices: the share of labelled images on which the estimator chose each σ, or each expert by σ and name where
            several share one, under one noise draw.
        skipped: by part, why it was not examined.
        misfits: experts that seem to expect other inputs than they get.
    """

    n: int
    alpha: float
    rule: str
    smallest_n: int
    chance: float | None
    data: str | None
    bases: tuple[BaseReport, ...]
    caps: tuple[Cap, ...]
    work: Work | None
    sight: tuple[Sight, ...]
    choices: Mapping[str, float] | None
    skipped: Mapping[str, str]
    misfits: tuple[Misfit, ...] = ()
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Gives plain dicts, lists and numbers that `json.dumps` takes as they are."""
        return asdict(self)


def percent(share: float, digits: int = 0) -> str:
    """Writes a share in percent."""
    return f"{100 * share:.{digits}f} %"


def floored(radius: float) -> str:
    """Writes a radius with three digits; rounding up would claim more than can be proved."""
    return f"{floor(1000 * radius) / 1000:.3f}"
