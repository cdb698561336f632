"""A small model that is quick to ask, and a server for it."""

import contextlib
import socket
import threading
import time

import httpx
import pytest
import torch
import uvicorn
from torch import nn

from dualrs import DualSmoothedClassifier
from dualrs.models import InputSpec
from dualrs.serving import Limits, Service, make_app

SHAPE = (1, 4, 4)


class Halves(nn.Module):
    """Classifies by which part of a picture is the brightest."""

    def __init__(self, parts, scale=8.0, pause=0.0):
        super().__init__()
        self.parts, self.scale, self.pause = parts, scale, pause

    def forward(self, x):
        time.sleep(self.pause)
        return self.scale * torch.stack([part.mean(1) for part in x.flatten(1).chunk(self.parts, 1)], 1)


def build(expert=None, pause=0.0, **execution):
    expert = Halves(2, pause=pause).eval() if expert is None else expert
    execution = {"backend": "torch", "batch_size": 64, **execution}
    model = DualSmoothedClassifier(
        Halves(2).eval(), sigma_e=0.5, experts={0.25: expert, 0.5: expert}, num_classes=2, **execution
    )
    model.input, model.classes = InputSpec(SHAPE), ("top", "bottom")
    return model


@pytest.fixture
def build_model():
    return build


@pytest.fixture
def image():
    x = torch.full(SHAPE, 0.3)
    x[:, :2] = 0.9
    return x


@pytest.fixture
def make_service():
    """Services whose desks are open; closed at the end."""
    opened = []

    def make(model=None, **settings):
        service = Service(build() if model is None else model, "toy", "0" * 64, **settings)
        service.desk.open()
        opened.append(service)
        return service

    yield make
    for service in opened:
        service.desk.close()


class Running:
    """A server in a thread."""

    def __init__(self, service, protocol="h11", **gate):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = uvicorn.Config(
            make_app(service, **gate),
            port=self.port,
            log_config=None,
            ws="none",
            lifespan="on",
            http=protocol,
            proxy_headers=False,
        )
        self.service, self._server = service, uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        until = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.02)

    def stop(self):
        self._server.should_exit = True
        self._thread.join(30)


@pytest.fixture
def serve():
    """Servers of services; stopped at the end."""
    running = []

    def start(model=None, *, limits=None, protocol="h11", tokens=None, hosts=(), **settings):
        service = Service(build() if model is None else model, "toy", "0" * 64, limits=limits or Limits(), **settings)
        running.append(Running(service, protocol, tokens=tokens, hosts=hosts))
        return running[-1]

    yield start
    for each in running:
        with contextlib.suppress(Exception):
            each.stop()


@pytest.fixture
def connect(serve):
    """Clients of services; closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda *model, **settings: stack.enter_context(
            httpx.Client(base_url=serve(*model, **settings).url, timeout=60)
        )


@pytest.fixture
def client(connect):
    return connect(allow_seed=True)
