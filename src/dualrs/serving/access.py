"""Who may ask, and in what form: everything that is checked before a request reaches the service."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import http
import ipaddress
import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualrs.serving.limits import Limits
from dualrs.serving.metrics import Metrics

_log = logging.getLogger("dualrs.serving")

_TOKEN_BYTES = 32
_HASH = re.compile(r"[0-9a-f]{64}")
_WRITE_SECONDS = 30.0
_CHALLENGE = 'Bearer realm="dualrs", Basic realm="dualrs", charset="UTF-8"'

GONE = 499
"""The status that is noted of a request whose client has gone."""

UNANSWERED = 0
"""The status that is noted of a request that has no response yet."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Tokens:
    """Bearer tokens, known by their SHA-256 only. They are long and random, so that nothing slower is called for.

    Args:
        hashes: by the holder's name, 64 hexadecimal digits.

    Raises:
        ValueError: a hash is none.
    """

    def __init__(self, hashes: Mapping[str, str]) -> None:
        for holder, digest in hashes.items():
            if not _HASH.fullmatch(digest):
                raise ValueError(f"the hash of {holder!r} must be 64 hexadecimal digits, as dualrs token prints it")
        self._hashes = {holder: digest.encode() for holder, digest in hashes.items()}

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Reads a file of lines "NAME HASH"; what follows a # is a comment.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is none of these, or there is no token in it.
        """
        hashes: dict[str, str] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or words[0] in hashes:
                raise ValueError(
                    f"{path}, line {number}: wanted is NAME HASH, each name once, as dualrs token prints it"
                )
            hashes[words[0]] = words[1]
        if not hashes:
            raise ValueError(f"{path} holds no tokens")
        return cls(hashes)

    def holder(self, token: str) -> str | None:
        """Whose token this is, in a time that does not tell how much of it is right; None if nobody's."""
        digest = hash_of(token).encode()
        holders = [holder for holder, known in self._hashes.items() if hmac.compare_digest(digest, known)]
        return holders[0] if holders else None


def new_token() -> str:
    """A fresh secret token."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """Lets through what is allowed, within limits; adds headers, counts, and writes a line of the log for each request.

    Without tokens, only this machine is served, and only under its own names, so that no web page elsewhere can have a
    browser ask in its stead. With tokens, whoever has one is served, and nobody else, whatever they ask for.

    Args:
        app: what is behind the gate.
        tokens: who may ask; None for this machine alone.
        hosts: names under which this machine may be asked without tokens, beside those of the loopback.
        limits: of bodies, and of the time that they may take.
        metrics: counts requests.
    """

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens | None, hosts: Iterable[str], limits: Limits, metrics: Metrics
    ) -> None:
        self._app, self._tokens, self._limits, self._metrics = app, tokens, limits, metrics
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["request_id"] = request_id = secrets.token_hex(8)
        started, status = time.perf_counter(), UNANSWERED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            async with asyncio.timeout(_WRITE_SECONDS):  # who does not read what is sent is not waited for
                await send(message)

        holder = None
        try:
            refusal, holder = self._check(scope)
            if refusal is not None:
                await refusal(scope, receive, sending)
            else:
                await self._app(scope, _Body(receive, self._limits), sending)
        except TimeoutError:
            status = GONE  # nothing more can be sent
        except Exception as error:
            # Neither the response nor the log may tell what a message or a path in a traceback would.
            _log.error("unexpected", extra={"request": request_id, "error": _whence(error)})
            if status == UNANSWERED:
                detail = "the service failed; its log has this request's id"
                await problem(scope, 500, detail)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.answered(route, scope["method"], status, seconds)
            details = {"request": request_id, "method": scope["method"], "route": route, "status": status}
            _log.info("request", extra={**details, "seconds": round(seconds, 4), "holder": holder})

    def _check(self, scope: Scope) -> tuple[Response | None, str | None]:
        """A response that refuses, or None; and who asks, if that is known."""
        headers = Headers(scope=scope)
        holder = self._holder(headers)
        peer = (scope.get("client") or ("", 0))[0]
        if holder is None and (self._tokens is not None or not is_loopback(peer)):
            detail = "a token is needed: Authorization: Bearer TOKEN"
            return problem(scope, 401, detail, headers={"WWW-Authenticate": _CHALLENGE}, close=True), None
        host = _host_of(headers.get("host", ""))
        if self._tokens is None and not (is_loopback(host) or host in self._hosts):
            return problem(scope, 421, f"this service does not answer under the name {host[:100]!r}"), None
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return problem(scope, 403, "requests from other sites are refused"), holder
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body:
            return problem(scope, 413, str(BodyTooLargeError(self._limits.body)), close=True), holder
        return None, holder

    def _holder(self, headers: Headers) -> str | None:
        """Who has the token of a request: a bearer, or, for browsers, the password of basic authentication."""
        if self._tokens is None:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return None
        elif scheme.lower() != "bearer":
            return None
        return self._tokens.holder(given.strip())


class BodyTooLargeError(RuntimeError):
    """A body is longer than is read."""

    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"a body may have {most} bytes")


class BodyTooSlowError(RuntimeError):
    """A body takes too long to arrive."""

    status = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a body must arrive within {seconds:g} s")


class _Body:
    """Receives a body within limits; what comes after it, that the client has gone, may take any time."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._read, self._complete = 0, False
        self._until = time.monotonic() + limits.body_seconds

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlowError(self._limits.body_seconds) from None
        self._read += len(message.get("body", b""))
        if self._read > self._limits.body:
            raise BodyTooLargeError(self._limits.body)
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def problem(
    scope: Scope, status: int, detail: str, *, headers: Mapping[str, str] | None = None, close: bool = False
) -> Response:
    """A response that says what is wrong, as RFC 9457 has it; with ``close``, the connection ends with it."""
    content = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": scope["state"]["request_id"],
    }
    own = {**(headers or {}), **({"Connection": "close"} if close else {})}
    return Response(json.dumps(content), status, own, media_type="application/problem+json")


def _whence(error: Exception) -> str:
    """The kind of an error, and the functions that it came through last."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}:{frame.f_lineno}" for frame in frames[-3:]]
    return " < ".join([type(error).__name__, *reversed(names)])


def _host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header
