"""What clients send and get: validated, and described in the service's OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dualrs.serving.limits import Limits
from dualrs.serving.ticket import Asked
from dualrs.smoothing import STOPPING

ATTEMPTS = 16
"""The most attempts on one input."""

Rule = Literal["routed", "min", "adaptive", "cohen"]


class RequestError(ValueError):
    """What is asked cannot be read, makes no sense, or is more than is allowed; `status` is that of HTTP."""

    def __init__(self, detail: str, status: int = 422) -> None:
        super().__init__(detail)
        self.status = status


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    n: Annotated[int, Field(ge=1, description="The most estimation samples of each model.")] = 10_000
    n0: Annotated[int, Field(ge=1, description="Selection samples of each stage.")] = 100
    alpha: Annotated[
        float, Field(ge=1e-9, lt=1, description="Failure probability α of the certificate, over the noise.")
    ] = 0.001
    deadline: Annotated[
        float | None, Field(gt=0, description="Seconds after which what is proved by then is the answer.")
    ] = None
    seed: Annotated[
        int | None,
        Field(ge=0, lt=2**63, description="Of the noise; a secret one if absent. Only where the operator allows it."),
    ] = None
    fit: Annotated[
        Literal["exact", "resize"],
        Field(description="Whether an image of another size is refused, or brought to the model's."),
    ] = "exact"
    keep_input: Annotated[bool, Field(description="Whether the audit record is to hold the input.")] = False

    def refuse_more_than(self, limits: Limits) -> None:
        """Raises RequestError where more is asked for than the operator allows."""
        for name in ("n", "n0"):
            if getattr(self, name) > limits.n:
                raise RequestError(f"{name} must be at most {limits.n} here; got {getattr(self, name)}")


class PredictOptions(_Options):
    """How a label is to be predicted."""

    def asked(self, default: str) -> Asked:
        """The same, for the engine: a prediction is a certificate that stops as soon as any radius is proved."""
        return Asked((default,), {"n0": self.n0, "n": self.n, "alpha": self.alpha, "target": 0.0}, anytime=True)


class CertifyOptions(_Options):
    """How an input is to be certified."""

    mode: Annotated[
        Literal["anytime", "full"],
        Field(
            description="anytime: bounds that hold whenever one looks, so that sampling may end at any moment. full: "
            "one look after all samples, for a slightly larger radius, and an abstention if the time is up before."
        ),
    ] = "anytime"
    rule: Annotated[
        Rule | None, Field(description="How it is certified; the one with the largest radii if absent.")
    ] = None
    compare: Annotated[
        list[Rule], Field(max_length=3, description="Other rules to certify by, on the same votes.")
    ] = []
    tolerance: Annotated[
        float, Field(ge=0, description="Stop where the remaining samples would hardly raise the radius by more.")
    ] = 0.0
    target: Annotated[
        float | None, Field(ge=0, description="Stop as soon as it is decided whether the radius exceeds this.")
    ] = None
    stream: Annotated[bool, Field(description="Whether to answer with server-sent events as votes come in.")] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "full" and (self.tolerance or self.target is not None):
            raise ValueError("mode full takes all samples, so neither tolerance nor target can be given with it")
        if self.rule not in (None, *STOPPING) and (self.tolerance or self.target is not None):
            raise ValueError(f"rule {self.rule} takes a fixed number of samples: no tolerance or target with it")
        if len({self.rule, *self.compare}) < 1 + len(self.compare):
            raise ValueError("a rule can be asked for once")
        return self

    def asked(self, default: str) -> Asked:
        """The same, for the engine."""
        options: dict[str, Any] = {"n0": self.n0, "n": self.n, "alpha": self.alpha}
        if self.mode == "anytime":
            options |= {"tolerance": self.tolerance, "target": self.target}
        first = self.rule or default
        others = tuple(rule for rule in self.compare if rule != first)
        return Asked((first, *others), options, anytime=self.mode == "anytime")


class AttackOptions(_Options):
    """Which answer is to be broken."""

    label: Annotated[int, Field(ge=0, description="The answer that is attacked.")]
    radius: Annotated[float, Field(ge=0, le=100, description="Within which it is certified.")] = 0.0

    def asked(self, default: str) -> Asked:
        """How each attempt is decided: by prediction, with α divided between them."""
        options = {"n0": self.n0, "n": self.n, "alpha": self.alpha / ATTEMPTS, "target": 0.0}
        return Asked((default,), options, anytime=True)


class Attempt(BaseModel):
    """A point that was tried, and the answer there."""

    aim: Annotated[str, Field(description="What it goes for.")]
    radius: Annotated[float, Field(description="Of the ball in which it was looked for.")]
    norm: Annotated[float, Field(description="Its ℓ2 distance from the input, at most.")]
    certified: Annotated[bool, Field(description="Whether the certificate covers it.")]
    label: Annotated[int | None, Field(description="The answer there; null where it abstains.")]
    name: str | None
    broken: Annotated[bool, Field(description="Certified, and another answer was decided.")]
    input: Annotated[str, Field(description="The point: float32, little-endian, base64.")]


class Answer(BaseModel):
    """What the model says of an input, and what anyone needs to check it."""

    label: Annotated[int | None, Field(description="The class; null where the model abstains.")]
    name: Annotated[str | None, Field(description="Of the class, if known.")]
    radius: Annotated[float, Field(description="No ℓ2 perturbation shorter than this changes the label.")]
    sigma: Annotated[float | None, Field(description="The noise level that was chosen.")]
    abstained: bool
    alpha: Annotated[float, Field(description="The certificate is wrong with at most this probability.")]
    samples: Annotated[int, Field(description="Votes that were drawn.")]
    ended: Annotated[
        Literal["complete", "deadline", "client", "shutdown"], Field(description="Why sampling came to its end.")
    ]
    seconds: Annotated[float, Field(description="From the request's arrival.")]
    record: Annotated[
        dict[str, Any], Field(description="The audit record: certificates with all votes, seed, digests, versions.")
    ]


class Answers(BaseModel):
    """The answers for a batch, in its order."""

    answers: list[Answer]


class Problem(BaseModel):
    """What is wrong with a request, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: str


class Health(BaseModel):
    """Whether the service is up, or takes requests."""

    status: Literal["ok", "ready", "ending"]


class Sample(BaseModel):
    """An input that the page offers."""

    index: int
    label: Annotated[int, Field(description="Its class.")]
    name: str | None


class ModelInfo(BaseModel):
    """What is served."""

    name: str
    digest: Annotated[str | None, Field(description="SHA-256 of the bundle.")]
    dual: Annotated[bool, Field(description="Whether the noise level is chosen for each input.")]
    sigmas: list[float]
    experts: list[str]
    sigma_e: float | None
    classes: list[str] | None
    num_classes: int
    shape: list[int]
    range: list[float]
    rules: list[str]
    functions: Annotated[dict[str, Any], Field(description="What the certificates are about.")]
    limits: dict[str, float]
    seed_allowed: bool
    attack: Annotated[bool, Field(description="Whether /v1/attack is offered.")]
    version: str
