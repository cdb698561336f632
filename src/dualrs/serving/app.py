"""The HTTP interface: paths, what they take, and what they answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from importlib import resources
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

import dualrs
from dualrs.models import InputSpec
from dualrs.serving.access import GONE, BodyTooLargeError, BodyTooSlowError, Gate, Tokens, problem
from dualrs.serving.desk import BusyError, ClosedError, InputError
from dualrs.serving.documents import requests_of, responses_of
from dualrs.serving.inputs import input_of, read_input
from dualrs.serving.messages import (
    Answer,
    Answers,
    AttackOptions,
    CertifyOptions,
    Health,
    ModelInfo,
    PredictOptions,
    RequestError,
    Sample,
)
from dualrs.serving.service import Event, Service
from dualrs.serving.ticket import Ending

_Options = TypeVar("_Options", PredictOptions, CertifyOptions, AttackOptions)
_Asking = TypeVar("_Asking", PredictOptions, CertifyOptions)

_MOST_FIELDS = 64
_STREAM = "text/event-stream"


def make_app(service: Service, *, tokens: Tokens | None = None, hosts: Sequence[str] = ()) -> Gate:
    """The service as an ASGI application, behind a gate.

    Args:
        service: what answers; its desk is opened and closed with the application.
        tokens: who may ask; None for this machine alone.
        hosts: see `dualrs.serving.access.Gate`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.desk.open)
        try:
            yield
        finally:
            await asyncio.to_thread(service.desk.close)

    app = FastAPI(
        title="dualrs",
        version=dualrs.__version__,
        description="Classifications with proofs that no small ℓ2 perturbation changes them.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    _add_problems(app)
    _add_questions(app, service)
    _add_facts(app, service)
    page = resources.files("dualrs.serving") / "page"
    app.mount("/", StaticFiles(directory=str(page), html=True), name="page")
    return Gate(app, tokens=tokens, hosts=hosts, limits=service.limits, metrics=service.metrics)


def _add_questions(app: FastAPI, service: Service) -> None:
    """The paths by which the model is asked."""
    assert service.model.input is not None  # the desk insists
    spec: InputSpec = service.model.input
    limits = service.limits
    refusals = responses_of(400, 408, 413, 415, 422, 429, 503)

    async def questions(request: Request, kind: type[_Options], most: int) -> tuple[list[Tensor], _Options]:
        service.desk.refuse_more_than(1)
        inputs, given = await _read(request, most)
        try:
            options = kind.model_validate(given)
            decode = partial(_decode, spec=spec, fit=options.fit, most_pixels=limits.pixels)
            return [await asyncio.to_thread(decode, each) for each in inputs], options
        except ValidationError as error:
            raise RequestError(_what_is_wrong(error.errors(include_url=False))) from None
        except ValueError as error:
            raise RequestError(str(error)) from None

    async def answer(request: Request, kind: type[_Asking], most: int = 1) -> list[Answer]:
        arrived = time.monotonic()
        xs, options = await questions(request, kind, most)
        if isinstance(options, CertifyOptions) and options.stream:
            raise RequestError("a batch cannot be streamed")
        tickets = [service.ticket(x, options, arrived) for x in xs]
        outcomes = await service.outcomes(tickets, lambda: _gone(request))
        name = request.state.request_id
        return [service.answer(*pair, name, options) for pair in zip(tickets, outcomes, strict=True)]

    @app.post(
        "/v1/predict",
        response_model=Answer,
        responses=refusals,
        openapi_extra=requests_of(PredictOptions, spec),
        summary="The label, right with probability 1 − α, or an abstention",
    )
    async def predict(request: Request) -> Answer:
        return (await answer(request, PredictOptions))[0]

    @app.post(
        "/v1/predict/batch",
        response_model=Answers,
        responses=refusals,
        openapi_extra=requests_of(PredictOptions, spec, most=limits.inputs),
        summary="The labels of several inputs, or abstentions; α holds for each",
    )
    async def predict_batch(request: Request) -> Answers:
        return Answers(answers=await answer(request, PredictOptions, limits.inputs))

    @app.post(
        "/v1/certify",
        response_model=Answer,
        responses={200: {"content": {_STREAM: {"schema": {"type": "string"}}}}, **refusals},
        openapi_extra=requests_of(CertifyOptions, spec),
        summary="The label and a radius within which no perturbation changes it, or an abstention",
        description="With `stream`, server-sent events as votes come in: `begin` (the request's id), `votes`, "
        "`certificate` (each one holds, so one may stop at any), and last `answer` or `problem`.",
    )
    async def certify(request: Request) -> Answer | Response:
        arrived = time.monotonic()
        (x,), options = await questions(request, CertifyOptions, 1)
        ticket = service.ticket(x, options, arrived)
        name = request.state.request_id
        if options.stream:
            events = service.stream(ticket, name, options)
            first = await anext(events)  # a service that has no room says so by its status
            return StreamingResponse(_told(first, events), media_type=_STREAM)
        (outcome,) = await service.outcomes([ticket], lambda: _gone(request))
        return service.answer(ticket, outcome, name, options)

    @app.post(
        "/v1/certify/batch",
        response_model=Answers,
        responses=refusals,
        openapi_extra=requests_of(CertifyOptions, spec, most=limits.inputs),
        summary="Labels and radii of several inputs; α holds for each",
    )
    async def certify_batch(request: Request) -> Answers:
        return Answers(answers=await answer(request, CertifyOptions, limits.inputs))

    @app.post(
        "/v1/attack",
        response_class=Response,
        responses={200: {"content": {_STREAM: {"schema": {"type": "string"}}}}, **refusals},
        openapi_extra=requests_of(AttackOptions, spec),
        summary="Tries to break an answer inside its certified ball, and beyond",
        description="Server-sent events: `attempt` for every point that is tried, `end`, or `problem`. Nothing is "
        "proved by attempts that fail.",
    )
    async def attack(request: Request) -> Response:
        arrived = time.monotonic()
        (x,), options = await questions(request, AttackOptions, 1)
        events = service.attack(x, options, arrived)
        return StreamingResponse(_told(await anext(events), events), media_type=_STREAM)

    @app.post(
        "/v1/requests/{name}/stop",
        status_code=202,
        response_model=Health,
        responses=responses_of(404),
        summary="Ends a stream: what is proved by now becomes its answer",
    )
    async def stop(name: str) -> Health:
        if name not in service.streams:
            raise RequestError("there is no such stream, or it has ended", 404)
        service.streams[name].end(Ending.CLIENT)
        return Health(status="ok")


def _add_facts(app: FastAPI, service: Service) -> None:
    """The paths that tell about the service."""

    @app.get("/v1/model", response_model=ModelInfo, responses=responses_of(), summary="What is served, and the limits")
    async def model() -> ModelInfo:
        return service.info()

    @app.get("/v1/samples", response_model=list[Sample], responses=responses_of(), summary="Inputs to try")
    async def samples() -> list[Sample]:
        return service.samples

    @app.get(
        "/v1/samples/{index}",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **responses_of(404, 422)},
        summary="One of them, as a PNG file",
    )
    async def sample(index: int) -> Response:
        return Response(await asyncio.to_thread(service.sample, index), media_type="image/png")

    @app.get("/healthz", response_model=Health, responses=responses_of(), summary="Whether the process is alive")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", response_model=Health, responses=responses_of(503), summary="Whether requests are taken")
    async def readyz() -> Health:
        if not service.desk.ready:
            raise ClosedError("the service is ending")
        return Health(status="ready")

    @app.get("/metrics", response_class=Response, responses=responses_of(), summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_problems(app: FastAPI) -> None:
    """What errors look like to a client."""

    def refuse(status: int) -> Callable[[Request, Exception], Response]:
        return lambda request, error: problem(request.scope, status, str(error))

    app.add_exception_handler(ClosedError, refuse(503))
    app.add_exception_handler(InputError, refuse(500))
    for slow in (BodyTooLargeError, BodyTooSlowError):
        app.add_exception_handler(
            slow,
            lambda request, error: problem(request.scope, error.status, str(error), close=True),
        )

    @app.exception_handler(RequestError)
    def _(request: Request, error: RequestError) -> Response:
        return problem(request.scope, error.status, str(error))

    @app.exception_handler(BusyError)
    def _(request: Request, error: BusyError) -> Response:
        return problem(request.scope, 429, str(error), headers={"Retry-After": str(error.retry_after)})

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> Response:
        return problem(request.scope, 422, _what_is_wrong(error.errors()))

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> Response:
        return problem(request.scope, error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(ConnectionResetError)
    def _(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)  # nobody reads it; the log does


async def _read(request: Request, most: int) -> tuple[list[Any], dict[str, Any]]:
    """The inputs of a request, as bytes of files or as numbers, and its options."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=most, max_fields=_MOST_FIELDS) as form:
            return await _read_form(form)
    if kind != "application/json":
        raise RequestError(f"send application/json or multipart/form-data, not {kind[:100]!r}", 415)
    try:
        given = from_json(await request.body(), allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"the body is no JSON: {error}", 400) from None
    name = "input" if most == 1 else "inputs"
    if not isinstance(given, dict) or name not in given:
        raise RequestError(f"the body must be an object with {name!r}, numbers in nested lists")
    inputs = given.pop(name)
    inputs = [inputs] if most == 1 else inputs
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= most:
        raise RequestError(f"{name!r} must hold 1 to {most} inputs")
    return inputs, given


async def _read_form(form: FormData) -> tuple[list[bytes], dict[str, Any]]:
    files = form.getlist("image")
    if not files or not all(isinstance(file, UploadFile) for file in files):
        raise RequestError("the form must have a file named 'image'")
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == "image":
            continue
        if isinstance(value, UploadFile):
            raise RequestError(f"{name[:100]!r} must be no file")
        if name == "compare":
            given.setdefault(name, []).append(value)
        elif name in given:
            raise RequestError(f"{name[:100]!r} is given twice")
        else:
            given[name] = value
    return [await file.read() for file in files if isinstance(file, UploadFile)], given


def _decode(given: Any, *, spec: InputSpec, fit: Literal["exact", "resize"], most_pixels: int) -> Tensor:
    if isinstance(given, bytes):
        return read_input(given, spec, fit=fit, most_pixels=most_pixels)
    return input_of(given, spec)


def _what_is_wrong(errors: Sequence[Any]) -> str:
    found = [(".".join(str(part) for part in each["loc"]), each["msg"]) for each in errors]
    return "; ".join(f"{where[:100]}: {what}" if where else what for where, what in found[:5])


async def _told(first: Event, events: AsyncGenerator[Event]) -> AsyncIterator[str]:
    """Events as they go over the wire; an error on the way is the last of them."""
    async with aclosing(events):
        yield _wire(first)
        try:
            async for event in events:
                yield _wire(event)
        except (BusyError, ClosedError, InputError, RequestError) as error:
            yield _wire(Event("problem", {"detail": str(error)}))


def _wire(event: Event) -> str:
    return f"event: {event.name}\ndata: {json.dumps(event.data, allow_nan=False)}\n\n"


async def _gone(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
