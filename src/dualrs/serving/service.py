"""What a service consists of, and how it comes to an answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from io import BytesIO
from itertools import zip_longest
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import dualrs
from dualrs.certificates import Certificate
from dualrs.data import Dataset
from dualrs.serving.breaking import Breaker
from dualrs.serving.desk import Desk
from dualrs.serving.limits import Limits
from dualrs.serving.messages import (
    Answer,
    AttackOptions,
    Attempt,
    CertifyOptions,
    ModelInfo,
    PredictOptions,
    RequestError,
    Sample,
)
from dualrs.serving.metrics import Metrics
from dualrs.serving.records import RecordFile, encoded, record_of
from dualrs.serving.ticket import Ending, Ticket
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

_LOOKED_THROUGH, _OF_EACH, _SAMPLES = 200, 2, 20
_PAUSE, _KEEP_ALIVE = 0.1, 10.0  # seconds between two events of a stream, at least and at most

Outcome = Mapping[str, Certificate]


@dataclass(frozen=True)
class Event:
    """Something that a stream tells."""

    name: str
    data: Mapping[str, Any]


@dataclass(eq=False)
class Service:
    """A model at work for many clients.

    Args:
        model: what answers; it must say what inputs it takes.
        name: of the model, as clients see it.
        digest: of its bundle, for records.
        limits: what is done at most.
        allow_seed: whether clients may give a seed. Whoever knows the noise beforehand can make an input that is
            certified wrongly, so α holds for these answers only if they do not.
        keep_inputs: whether every record holds its input.
        records: where records are written; None leaves them to the clients.
        execution: with what the model was loaded beside its device, for records (`dualrs.smoothing.Execution`).
        offered: a data set, of which the page offers a few images.
        attack_offered: whether clients may have the service look for adversarial examples, which costs it seconds.

    Raises:
        ValueError: the model does not say what inputs it takes.
    """

    model: SmoothedClassifier | DualSmoothedClassifier
    name: str
    digest: str | None = None
    limits: Limits = field(default_factory=Limits)
    allow_seed: bool = False
    keep_inputs: bool = False
    records: RecordFile | None = None
    execution: Mapping[str, Any] = field(default_factory=dict)
    offered: Dataset | None = None
    attack_offered: bool = True

    def __post_init__(self) -> None:
        self.desk = Desk(self.model, self.limits)
        self.metrics = Metrics(lambda: self.desk.stats, lambda: self.desk.under_way)
        self._breaker, self._breaking = Breaker(self.model), asyncio.Lock()
        self.streams: dict[str, Ticket] = {}
        self.noise = self.model.engine().noise.name
        single = isinstance(self.model, SmoothedClassifier)
        self.rules = ("adaptive", "cohen") if single else ("routed", "min")
        self.samples = _a_few(self.offered, self.model.classes)

    def info(self) -> ModelInfo:
        """What is served."""
        model, spec = self.model, self.model.input
        assert spec is not None
        assert model.num_classes is not None  # a bundle says so, and the desk has seen its votes
        if isinstance(model, SmoothedClassifier):
            sigmas, experts, sigma_e = [model.sigma], [], None
        else:
            sigmas, experts, sigma_e = list(model.sigmas), [expert.name for expert in model.experts], model.sigma_e
        return ModelInfo(
            name=self.name,
            digest=self.digest,
            dual=sigma_e is not None,
            sigmas=sigmas,
            experts=experts,
            sigma_e=sigma_e,
            classes=None if model.classes is None else list(model.classes),
            num_classes=model.num_classes,
            shape=list(spec.shape),
            range=list(spec.range),
            rules=list(self.rules),
            functions=dict(self.desk.functions),
            limits={name: getattr(self.limits, name) for name in ("n", "inputs", "body", "pixels", "seconds")},
            seed_allowed=self.allow_seed,
            attack=self.attack_offered,
            version=dualrs.__version__,
        )

    def sample(self, index: int) -> bytes:
        """One of the samples, as a PNG file.

        Raises:
            RequestError: there is no such sample.
        """
        if self.offered is None or index not in {sample.index for sample in self.samples}:
            raise RequestError(f"there is no sample {index}", 404)
        pixels = (255 * self.offered.image(index)).round().to(torch.uint8).permute(1, 2, 0).squeeze(2)
        file = BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "PNG")
        return file.getvalue()

    def ticket(self, x: Tensor, options: PredictOptions | CertifyOptions | AttackOptions, arrived: float) -> Ticket:
        """What a client asks of an input, with a seed that nobody knows.

        Raises:
            RequestError: more is asked for than is allowed, or than makes sense; or the model does not take the input.
        """
        options.refuse_more_than(self.limits)
        if options.seed is not None and not self.allow_seed:
            raise RequestError("this service draws its own noise; its operator does not allow seeds", 403)
        asked = options.asked(self.rules[0])
        if unknown := [rule for rule in asked.rules if rule not in self.rules]:
            raise RequestError(f"this model has no rule {unknown[0]}; it has {', '.join(self.rules)}")
        try:
            x = self.model.to_input(x)
            for rule in asked.rules:
                asked.procedure(self.model, rule, bool).close()
        except ValueError as error:
            raise RequestError(str(error)) from None
        seconds = min(options.deadline or self.limits.seconds, self.limits.seconds)
        seed = secrets.randbits(128) if options.seed is None else options.seed
        return Ticket(x, asked, seed, arrived + seconds, begun=arrived)

    async def outcomes(self, tickets: Sequence[Ticket], gone: Callable[[], Awaitable[None]]) -> list[Outcome]:
        """The certificates of tickets, by rule; at their deadline what is proved by then.

        Args:
            tickets: to be taken in, all or none.
            gone: returns when nobody waits any more.

        Raises:
            BusyError, ClosedError, InputError: see `Desk`.
            ConnectionResetError: nobody waits any more.
        """
        leaving: asyncio.Future[Any] = asyncio.ensure_future(gone())
        answering: asyncio.Future[Any] = asyncio.ensure_future(self._certify(tickets))
        try:
            await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return list(answering.result())
            raise ConnectionResetError("the client has gone")
        finally:
            for task in (leaving, answering):
                task.cancel()

    async def stream(self, ticket: Ticket, request: str, options: CertifyOptions) -> AsyncGenerator[Event]:
        """Tells what is known as votes come in; every certificate that is told holds. The answer comes last.

        Raises:
            BusyError, ClosedError, InputError: see `Desk`.
        """
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        ticket.tell = lambda: loop.call_soon_threadsafe(changed.set)
        (future,) = self.desk.admit([ticket])
        answering = asyncio.ensure_future(_in_time(ticket, future))
        answering.add_done_callback(lambda _: changed.set())
        self.streams[request] = ticket
        told: dict[str, tuple[int | None, float]] = {}
        try:
            yield Event("begin", {"request": request, "input": encoded(ticket.x), "shape": list(ticket.x.shape)})
            while not answering.done():
                try:
                    await asyncio.wait_for(changed.wait(), _KEEP_ALIVE)
                except TimeoutError:
                    yield Event("wait", {})
                    continue
                changed.clear()
                for rule, certificate in dict(ticket.latest).items():
                    claim = certificate.label, certificate.radius
                    if told.get(rule) != claim:
                        told[rule] = claim
                        yield Event("certificate", {"rule": rule, **certificate.to_dict()})
                yield Event("votes", {"votes": _votes(ticket)})
                await asyncio.sleep(_PAUSE)
            yield Event("votes", {"votes": _votes(ticket)})
            yield Event("answer", self.answer(ticket, answering.result(), request, options).model_dump())
        finally:
            ticket.end(Ending.CLIENT)
            answering.cancel()
            del self.streams[request]

    async def attack(self, x: Tensor, options: AttackOptions, arrived: float) -> AsyncGenerator[Event]:
        """Tries to break an answer, in one ball after the other, until another answer is known.

        Raises:
            RequestError: the service does not offer this, or see `ticket`.
            BusyError, ClosedError, InputError: see `Desk`.
        """
        if not self.attack_offered:
            raise RequestError("this service's operator does not offer attacks", 403)
        first = self.ticket(x, options, arrived)  # which refuses what makes no sense
        if self.model.num_classes is not None and options.label >= self.model.num_classes:
            raise RequestError(f"label must be below {self.model.num_classes}; got {options.label}")
        yield Event("begin", {"input": encoded(first.x)})
        (here,) = await self._certify([first])
        experts = [expert.name for expert in getattr(self.model, "experts", ())]
        expert = here[self.rules[0]].expert
        chosen = experts.index(expert) if expert in experts else 0
        for radius in self._breaker.radii(options.radius):
            seed = secrets.randbits(63)
            async with self._breaking:  # waiting here takes no thread from those who decode inputs
                points = await asyncio.to_thread(self._breaker.points, first.x, options.label, chosen, radius, seed)
            outcomes = await self._certify([self.ticket(point.x, options, arrived) for point in points])
            found = [outcome[self.rules[0]] for outcome in outcomes]  # without records: nobody is told the noise
            for point, certificate in zip(points, found, strict=True):
                certified = point.norm < options.radius
                attempt = Attempt(
                    aim=point.aim,
                    radius=radius,
                    norm=point.norm,
                    certified=certified,
                    label=certificate.label,
                    name=self._class(certificate.label),
                    broken=certified and certificate.label not in (None, options.label),
                    input=encoded(point.x),
                )
                yield Event("attempt", attempt.model_dump())
            if any(certificate.label not in (None, options.label) for certificate in found):
                break
        yield Event("end", {})

    async def _certify(self, tickets: Sequence[Ticket]) -> list[Outcome]:
        """The certificates of tickets that are taken in, all or none; whoever stops waiting ends their sampling."""
        futures = self.desk.admit(list(tickets))
        try:
            return await asyncio.gather(*(_in_time(*pair) for pair in zip(tickets, futures, strict=True)))
        finally:
            for ticket in tickets:
                ticket.end(Ending.CLIENT)  # where it has no answer yet

    def _class(self, label: int | None) -> str | None:
        return None if label is None or self.model.classes is None else self.model.classes[label]

    def answer(
        self, ticket: Ticket, outcome: Outcome, request: str, options: PredictOptions | CertifyOptions
    ) -> Answer:
        """The answer to a client, after its record is kept."""
        record = record_of(
            ticket,
            outcome,
            request=request,
            model={"name": self.name, "digest": self.digest, "execution": dict(self.execution)},
            functions=self.desk.functions,
            noise=self.noise,
            keep_input=self.keep_inputs or options.keep_input,
        )
        if self.records is not None:
            self.records.append(record)
        certificate = outcome[ticket.asked.rules[0]]
        for rule, each in outcome.items():
            self.metrics.certified(rule, each, record["ended"])
        return Answer(
            label=certificate.label,
            name=self._class(certificate.label),
            radius=certificate.radius,
            sigma=certificate.sigma,
            abstained=certificate.abstained,
            alpha=certificate.alpha,
            samples=certificate.samples,
            ended=record["ended"],
            seconds=round(time.monotonic() - ticket.begun, 4),
            record=record,
        )


def _a_few(data: Dataset | None, classes: Sequence[str] | None) -> list[Sample]:
    """The first images of each class, classes in turn."""
    if data is None:
        return []
    found: dict[int, list[int]] = {}
    for index in range(min(len(data), _LOOKED_THROUGH)):
        found.setdefault(data.label(index), []).append(index)
    turns = zip_longest(*(found[label][:_OF_EACH] for label in sorted(found)))
    chosen = [index for turn in turns for index in turn if index is not None][:_SAMPLES]
    return [Sample(index=i, label=data.label(i), name=classes[data.label(i)] if classes else None) for i in chosen]


async def _in_time(ticket: Ticket, future: Future[Outcome]) -> Outcome:
    """The certificates of a ticket; at its deadline what is proved by then, without waiting for the engine."""
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), max(0.0, ticket.deadline - time.monotonic()))
    except TimeoutError:
        ticket.end(Ending.DEADLINE)
        return {rule: ticket.answer(rule) for rule in ticket.asked.rules}


def _votes(ticket: Ticket) -> list[dict[str, Any]]:
    """How the votes are spread by now, of each model at its noise level."""
    most: dict[tuple[str, float], list[int]] = {}
    for (_, model, sigma), counts in dict(ticket.votes).items():
        found = counts.tolist()
        # Rules read the same votes from the first one on, so whichever has read most has read all.
        if sum(found) >= sum(most.get((model, sigma), [])):
            most[model, sigma] = found
    return [{"model": model, "sigma": sigma, "counts": counts} for (model, sigma), counts in most.items()]
