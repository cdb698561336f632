"""An examination of a model before long runs: how fast it votes, what it can certify, whether it can see.

Every finding says what was measured and what to do about it; nothing that is found is an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from torch import Tensor

from dualrs.certificates import (
    Certificate,
    Procedure,
    StageCounts,
    VoteRequest,
    adaptive_certify,
    expert_name,
    max_radius,
    routed_certify,
    run_procedure,
)
from dualrs.data import Dataset
from dualrs.evaluation.config import evenly_spaced
from dualrs.evaluation.metrics import confidence_interval
from dualrs.sampling import (
    Backend,
    BackendName,
    Base,
    Engine,
    Job,
    ModelStats,
    NotAFixedFunctionError,
    Precision,
    make_backend,
)
from dualrs.smoothing import CLASSIFIER, ESTIMATOR, DualSmoothedClassifier, SmoothedClassifier

Level = Literal["problem", "note", "ok"]

LABELLED = 200
"""How many labelled images accuracies are measured on."""

_ROUNDS = 4  # of either measurement of speed, in turns, so that what else the machine does slows both
_MOST_TRIALS = 10_000_000  # that bounds are computed for
_SLOW, _EMPTY, _ONE_SIGMA = 0.8, 0.8, 0.95  # where a ratio of speeds, a fill rate, a share of choices is remarked on


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
        votes_per_second: of the engine, noise included; None if the engine refuses it.
        bare_per_second: rows of a constant batch that the same backend evaluates; None likewise.
        refused: why it is not one fixed function; None if it passed the probe.
        same_bits: whether logits are bitwise equal wherever a row stands in a batch; None if refused.
    """

    name: str
    sigma: float
    backend: str
    device: str
    precision: str
    batch_size: int
    votes_per_second: float | None = None
    bare_per_second: float | None = None
    refused: str | None = None
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
class Diagnosis:
    """What `diagnose` found; figures first, then what they mean.

    Attributes:
        n, alpha, rule: what was examined for; ``smallest_n`` is the least with which anything can be certified.
        chance: 1 / number of classes.
        choices: the share of labelled images on which the estimator chose each σ, under one noise draw.
        skipped: by part, why it was not examined.
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
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Gives plain dicts, lists and numbers that `json.dumps` takes as they are."""
        return asdict(self)


def diagnose(
    model: SmoothedClassifier | DualSmoothedClassifier,
    dataset: Dataset | None,
    *,
    images: int = 8,
    n: int = 10_000,
    alpha: float = 0.001,
    seconds: float = 1.0,
) -> Diagnosis:
    """Examines a model: speed, fill rate, what n and α can certify, accuracy under noise, one fixed function.

    Args:
        model: what to examine, as it is set up to run.
        dataset: labelled images; None makes up random ones, and leaves out what needs labels.
        images: how many inputs are certified at once.
        n: the most estimation samples of each model.
        alpha: failure probability α.
        seconds: how long each speed is measured.

    Raises:
        ValueError: an argument is outside of its range, an image is no input of the model, or there is neither a
            data set nor a recorded shape of inputs.
    """
    if images < 1 or n < 1 or 10 * n > _MOST_TRIALS or not 0 < alpha < 1 or not seconds > 0:
        raise ValueError(
            f"images must be at least 1, n in [1, {_MOST_TRIALS // 10:,}], alpha in (0, 1) and seconds positive; got "
            f"images={images}, n={n}, alpha={alpha} and seconds={seconds}"
        )
    inputs = _made_up(model, images) if dataset is None else _images(model, dataset, images)
    bases = _bases(model)
    engine = model.engine()
    backends: dict[str, Backend] = {}
    reports = []
    for name, (sigma, base) in bases.items():
        refused = _probe(engine, name, sigma, inputs[0])
        stats = engine.stats.get(name, ModelStats())
        report = BaseReport(name, sigma, stats.backend, stats.device, stats.precision, stats.batch_size, refused=refused)
        if refused is None:
            backends[name] = _backend(base, stats, inputs[0].shape)
            report = _timed(report, engine, backends[name], inputs[0], seconds)
        reports.append(report)
    whole = len(backends) == len(bases)
    smallest = _smallest_n(model, alpha)
    classes = _classes(model, backends, reports, inputs[0])
    skipped = {}
    if not whole:
        skipped = dict.fromkeys(("certification", "accuracy"), "a base classifier is not one fixed function")
    if n < smallest:
        skipped["certification"] = f"n = {n:,} can certify nothing"
    if dataset is None:
        skipped["accuracy"] = "there are no labelled images; name some with --data"
    sight, choices = (), None
    if dataset is not None and whole:
        sight, choices = _sight(model, dataset, backends, reports)
    work = None if "certification" in skipped else _work(model, inputs, n, alpha, made_up=dataset is None)
    sight: tuple[Sight, ...] = ()
    choices: dict[str, float] | None = None
    if "accuracy" not in skipped and dataset is not None:
        sight, choices = _sight(model, dataset, backends, reports)
    diagnosis = Diagnosis(
        n=n,
        alpha=alpha,
        rule="adaptive" if isinstance(model, SmoothedClassifier) else "routed",
        smallest_n=smallest,
        chance=None if classes is None else 1 / classes,
        data=None if dataset is None else dataset.name,
        bases=tuple(reports),
        caps=tuple(cap for votes in (n, 10 * n) for cap in _caps(model, votes, alpha, classes or 2)),
        work=None if "certification" in skipped else _work(model, inputs, n, alpha, made_up=dataset is None),
        sight=sight,
        choices=choices,
        skipped=skipped,
    )
    found = [*_on_function(diagnosis), *_on_speed(diagnosis), *_on_work(diagnosis), *_on_caps(diagnosis)]
    found += [*_on_sight(diagnosis), *_on_choices(diagnosis)]
    found += [Finding("note", f"no {part} was measured: {reason}") for part, reason in skipped.items()]
    return replace(diagnosis, findings=tuple(sorted(found, key=lambda finding: get_args(Level).index(finding.level))))


def _bases(model: Model) -> dict[str, tuple[float, Base | Backend]]:
    if isinstance(model, SmoothedClassifier):
        return {CLASSIFIER: (model.sigma, model.base)}
    experts = {expert_name(sigma): (sigma, base) for sigma, base in model.experts.items()}
    return {ESTIMATOR: (model.sigma_e, model.estimator), **experts}


def _images(model: Model, dataset: Dataset, images: int) -> dict[int, Tensor]:
    """By position in the data set, in ascending order."""
    inputs = {}
    for position in evenly_spaced(images, len(dataset)):
        try:
            inputs[position] = model.to_input(dataset.image(position))
        except ValueError as error:
            raise ValueError(f"image {position} of {dataset.name}: {error}") from error
    if not inputs:
        raise ValueError(f"there is nothing to examine the model with: {dataset.name} has no images")
    return inputs


def _made_up(model: Model, images: int) -> dict[int, Tensor]:
    if model.input is None:
        raise ValueError("give a data set, or set the model's `input`: the shape of its inputs is not known")
    low, high = model.input.range
    # Of 256 levels, as images have: exact arithmetic takes no others.
    levels = torch.randint(256, (images, *model.input.shape), generator=torch.Generator().manual_seed(0))
    return dict(enumerate(low + (high - low) * (levels.to(torch.float64) / 255).float()))


def _ask(name: str, sigma: float, votes: int) -> Procedure:
    """A procedure that only asks: its certificate claims nothing, and records the votes."""
    counts = yield VoteRequest(name, sigma, votes)
    stage = StageCounts("votes", name, sigma, tuple(counts.tolist()), votes, None)
    return Certificate(None, 0.0, sigma, 0.5, "votes", (stage,))


def _run(model: Model, shape: torch.Size) -> None: ...


def _examine(
    engine: Engine, name: str, sigma: float, base: Base | Backend, x: Tensor, seconds: float
) -> tuple[BaseReport, Backend | None]:
    refused = None
    try:
        for _ in engine.run([Job("probe", x, {name: _ask(name, sigma, 1)})]):
            pass
    except NotAFixedFunctionError as error:
        refused = str(error)
    stats = engine.stats.get(name, ModelStats())
    report = BaseReport(name, sigma, stats.backend, stats.device, stats.precision, stats.batch_size, refused=refused)
    if refused is not None:
        return report, None
    backend = _backend(base, stats, x.shape)
    generator = torch.Generator().manual_seed(0)
    batch = x + sigma * torch.randn((stats.batch_size, *x.shape), generator=generator)
    bare, voted = _speeds(engine, backend, name, sigma, x, batch, seconds)
    same = _same_bits(backend, batch)
    return replace(report, votes_per_second=voted, bare_per_second=bare, same_bits=same), backend


def _backend(base: Base | Backend, stats: ModelStats, shape: torch.Size) -> Backend:
    """The backend that the engine asked, made once more: nothing public gives the one that it holds."""
    ways: dict[str, BackendName] = {"torch": "torch", "onnxruntime": "onnx"}
    way = "compile" if stats.backend.endswith("compiled") else ways.get(stats.backend, "auto")
    precision = cast(Precision, stats.precision if stats.precision in get_args(Precision) else "float32")
    return make_backend(
        base,
        input_shape=shape,
        batch_size=stats.batch_size,
        backend=way,
        device=stats.device or "cpu",
        precision=precision,
    )


def _speeds(
    engine: Engine, backend: Backend, name: str, sigma: float, x: Tensor, batch: Tensor, seconds: float
) -> tuple[float, float]:
    """Rows per second of the bare network, and votes per second of the engine."""
    rows = len(batch)

    def bare(batches: int) -> None:
        for _ in range(batches):
            backend.logits(batch)

    def voting(batches: int) -> None:
        for _ in engine.run([Job("speed", x, {name: _ask(name, sigma, batches * rows)})]):
            pass

    spent: dict[Callable[[int], None], float] = dict.fromkeys((bare, voting), 0.0)
    bare(1)  # the first batch pays for what is done once
    batches = max(1, round(seconds / _ROUNDS / max(_seconds(bare, 1), 1e-9)))
    for _ in range(_ROUNDS):
        for way in spent:
            spent[way] += _seconds(way, batches)
    return _ROUNDS * batches * rows / spent[bare], _ROUNDS * batches * rows / spent[voting]


def _seconds(work: Callable[[int], None], batches: int) -> float:
    started = time.perf_counter()
    work(batches)
    return time.perf_counter() - started


def _same_bits(backend: Backend, batch: Tensor) -> bool:
    """Whether rows get bitwise equal logits in other places of the batch."""
    # Copies, because a base classifier may work in place on its input, and a backend reuse the memory of its logits.
    here = backend.logits(batch.clone()).numpy().copy()
    places = {1, len(batch) // 2}
    return all(
        np.array_equal(np.roll(here, by, axis=0), backend.logits(batch.roll(by, 0)).numpy(), equal_nan=True)
        for by in places
    )


def _smallest_n(model: Model, alpha: float) -> int:
    n = next(votes for votes in count(1) if max_radius(votes, alpha, 1.0) > 0)
    while not _enough(model, n, alpha):
        n += 1
    return n


def _enough(model: Model, n: int, alpha: float) -> bool:
    try:
        model.procedure(n=n, alpha=alpha).close()
    except ValueError:
        return False
    return True


def _caps(model: Model, n: int, alpha: float, classes: int) -> Iterator[Cap]:
    enough = _enough(model, n, alpha)

    def unanimous(request: VoteRequest) -> NDArray[np.int64]:
        votes = np.zeros(choices if request.model == ESTIMATOR else classes, dtype=np.int64)
        votes[0 if request.model in {ESTIMATOR, CLASSIFIER, expert_name(far[0])} else 1] = request.count
        return votes

    sigmas = (model.sigma,) if isinstance(model, SmoothedClassifier) else model.sigmas
    choices, far = len(sigmas), sigmas
    if isinstance(model, DualSmoothedClassifier):
        # Experts of noise so large that nothing but the choice limits the radius; only the chosen one is for the label.
        far = tuple(1e3 * model.sigma_e * (1 + i) for i in range(choices))
        choosing = routed_certify(model.sigma_e, far, n=n, alpha=alpha) if enough else None
        radius = 0.0 if choosing is None else run_procedure(choosing, unanimous).radius
        yield Cap(ESTIMATOR, model.sigma_e, n, radius, max_radius(n, alpha, model.sigma_e))
    for sigma in sigmas:
        radius = run_procedure(adaptive_certify(sigma, n=n, alpha=alpha), unanimous).radius if enough else 0.0
        name = CLASSIFIER if isinstance(model, SmoothedClassifier) else expert_name(sigma)
        yield Cap(name, sigma, n, radius, max_radius(n, alpha, sigma))


def _work(model: Model, inputs: Mapping[int, Tensor], n: int, alpha: float, *, made_up: bool) -> Work:
    engine = model.engine()
    jobs = [Job(i, x, {"answer": model.procedure(n=n, alpha=alpha)}) for i, x in inputs.items()]
    started = time.perf_counter()
    certificates = [result.outcomes["answer"].certificate for result in engine.run(jobs)]
    seconds = time.perf_counter() - started
    stats = dict(sorted(engine.stats.items()))
    votes, slots = sum(each.votes for each in stats.values()), sum(each.slots for each in stats.values())
    abstained = [certificate for certificate in certificates if certificate.abstained]
    return Work(
        inputs=len(inputs),
        made_up=made_up,
        abstained=len(abstained),
        unsettled=sum(1 for certificate in abstained if certificate.classifier_radius),
        seconds_per_input=seconds / len(inputs),
        votes_per_input=votes / len(inputs),
        votes={name: each.votes / len(inputs) for name, each in stats.items()},
        fill_rate=votes / slots,
        fill_rates={name: each.fill_rate for name, each in stats.items()},
    )


def _sight(
    model: Model, dataset: Dataset, backends: Mapping[str, Backend]
) -> tuple[tuple[Sight, ...], dict[str, float] | None]:
    """How often each expert is right, and the shares of the σ that the estimator chooses."""
    bases, inputs, engine = _bases(model), _images(model, dataset, LABELLED), model.engine()
    jobs = (
        Job(i, x, {name: _ask(name, sigma, 1) for name, (sigma, _) in bases.items()}) for i, x in inputs.items()
    )
    answers: dict[str, dict[int, int | None]] = {name: {} for name in bases}
    for result in engine.run(jobs):
        for name, outcome in result.outcomes.items():
            counts = outcome.certificate.stages[0].counts
            answers[name][cast(int, result.key)] = counts.index(1) if any(counts) else None
    choices = None
    if isinstance(model, DualSmoothedClassifier):
        chosen = Counter(answers.pop(ESTIMATOR).values())
        choices = {f"{sigma:g}": chosen[i] / len(inputs) for i, sigma in enumerate(model.sigmas)}
    truth, sight = {i: dataset.label(i) for i in inputs}, []
    for name, noisy in answers.items():
        right = sum(noisy[i] == label for i, label in truth.items())
        clean = _clean(backends[name], engine.stats[name].batch_size, inputs)
        low, high = confidence_interval(right, len(inputs))
        ((answer, most),) = Counter(noisy.values()).most_common(1)
        sight.append(
            Sight(
                name=name,
                sigma=bases[name][0],
                images=len(inputs),
                clean=sum(clean[i] == label for i, label in truth.items()) / len(inputs),
                noisy=right / len(inputs),
                interval=(float(low), float(high)),
                answer=_class_name(model, answer),
                answer_share=most / len(inputs),
                invalid=sum(vote is None for vote in noisy.values()) / len(inputs),
            )
        )
    return tuple(sight), choices


def _clean(backend: Backend, rows: int, inputs: Mapping[int, Tensor]) -> dict[int, int]:
    answers: list[int] = []
    images = list(inputs.values())
    for start in range(0, len(images), rows):
        part = torch.stack(images[start : start + rows])
        batch = torch.cat([part, torch.zeros((rows - len(part), *part.shape[1:]))])  # some take one size only
        answers += backend.logits(batch)[: len(part)].argmax(dim=1).tolist()
    return dict(zip(inputs, answers, strict=True))


def _class_name(model: Model, answer: int | None) -> str:
    if answer is None:
        return "none (NaN)"
    return model.classes[answer] if model.classes else str(answer)
