"""The server: an address, a protocol that waits for nobody for ever, and an end at which everybody is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dualrs.serving.access import Tokens, is_loopback
from dualrs.serving.app import make_app
from dualrs.serving.service import Service

_log = logging.getLogger("dualrs.serving")

_KEEP_ALIVE = 15
_LARGEST_HEAD = 16 * 1024


def serve(
    service: Service,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: Tokens | None = None,
    names: Sequence[str] = (),
    certificate: tuple[Path, Path] | None = None,
) -> None:
    """Serves until the process is told to end (SIGTERM, Ctrl-C); what is under way then is answered.

    Args:
        service: what answers.
        host: the address to listen on.
        port: the port; 0 takes a free one, which the log tells.
        tokens: who may ask; needed for any address but this machine's own.
        names: other names of this machine that may be asked for without tokens.
        certificate: files of a TLS certificate and its key; None speaks plain HTTP.

    Raises:
        ValueError: an address that others can reach, without tokens.
    """
    if tokens is None and not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines, so tokens are needed: make one with dualrs token NAME, and "
            "give the file with --tokens"
        )
    config = uvicorn.Config(
        make_app(service, tokens=tokens, hosts=names),
        host=host,
        port=port,
        http=_protocol(service.limits.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # or anyone could say to be from this machine
        server_header=False,
        limit_concurrency=service.limits.connections,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(service.limits.grace) + 5,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        ssl_certfile=None if certificate is None else str(certificate[0]),
        ssl_keyfile=None if certificate is None else str(certificate[1]),
    )
    with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
        _Server(config, service).run()


class _Server(uvicorn.Server):
    """Tells the service as soon as the process is told to end, while its clients still wait."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        scheme = "https" if self.config.is_ssl else "http"
        for listening in (each for server in self.servers for each in server.sockets):
            host, port, *_ = listening.getsockname()
            address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
            _log.info("serving", extra={"address": address, "model": self._service.name})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.desk.drain()
        super().handle_exit(sig, frame)


def _protocol(seconds: float) -> type[H11Protocol]:
    """HTTP that ends connections whose next request has not arrived in so many seconds since its first byte."""

    class Impatient(H11Protocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._patience = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._calm()  # a request has begun
            elif self._patience is None:
                self._patience = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._calm()
            super().connection_lost(exc)

        def _calm(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Impatient


class JsonLines(logging.Formatter):
    """Formats log records as JSON, a line each: time, level, event, and what the record adds."""

    _OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        """One line, without tracebacks, which have paths."""
        extra = {name: value for name, value in record.__dict__.items() if name not in self._OWN}
        error = {} if not record.exc_info or record.exc_info[0] is None else {"error": record.exc_info[0].__name__}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps(
            {"time": time, "level": record.levelname.lower(), "event": record.getMessage(), **error, **extra},
            default=str,
        )


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sends the log of the service, and of the server under it, to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("dualrs.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
