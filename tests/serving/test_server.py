import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import torch

import dualrs
from dualrs.models import InputSpec, Recipe, build_network
from dualrs.serving import Limits, Service, hash_of, new_token, serve
from dualrs.serving.server import JsonLines, _protocol

COMMAND = [sys.executable, "-m", "dualrs.cli", "serve"]


@pytest.fixture
def bundle(tmp_path):
    """A saved model."""
    torch.manual_seed(0)
    arguments = {"width": 4, "mean": [0.5], "std": [0.2]}
    networks = [build_network(Recipe("resnet9", {"num_classes": k, **arguments})).eval() for k in (2, 3)]
    model = dualrs.DualSmoothedClassifier(
        networks[0], sigma_e=0.5, experts={0.25: networks[1], 0.5: networks[1]}, num_classes=3
    )
    model.input = InputSpec((1, 12, 12))
    return model.save(tmp_path / "bundle")


@pytest.fixture
def started(bundle, tmp_path):
    """A process that serves, and its address; ended at the end."""
    processes = []

    @contextlib.contextmanager
    def start(*options):
        log = tmp_path / f"log-{len(processes)}"
        with log.open("wb") as file:
            process = subprocess.Popen([*COMMAND, str(bundle), "--port", "0", *options], stderr=file)
        processes.append(process)
        address, until = None, time.monotonic() + 120
        while address is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            address = next((line["address"] for line in lines if "address" in line), None)
        yield process, address, log

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_server_answers_what_is_under_way_when_it_is_told_to_end(started):
    with started("--grace", "1") as (process, address, log):
        x = torch.rand(1, 12, 12).tolist()
        answers = []

        def ask():
            body = {"input": x, "n": 100_000, "alpha": 1e-6}
            answers.append(httpx.post(f"{address}/v1/certify", json=body, timeout=60).json())

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(30) == 0
    assert [answer["ended"] for answer in answers] == ["shutdown"] * 4
    assert all(answer["samples"] for answer in answers)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [200] * 4
    assert os.fspath(log.parent) not in log.read_text()


@pytest.mark.slow
def test_a_server_with_tokens_and_records(started, tmp_path, bundle):
    secret, tokens, records = new_token(), tmp_path / "tokens", tmp_path / "records.jsonl"
    tokens.write_text(f"alice {hash_of(secret)}\n")
    options = ("--host", "0.0.0.0", "--tokens", str(tokens), "--records", str(records), "--keep-inputs")
    with started(*options, "--arithmetic", "exact") as (_, address, _):
        port = address.rpartition(":")[2]
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/healthz").status_code == 401
        assert httpx.get(f"{url}/").status_code == 401
        body = {"input": (torch.arange(144).view(1, 12, 12) / 255).tolist(), "n": 500}
        headers = {"Authorization": f"Bearer {secret}"}
        answer = httpx.post(f"{url}/v1/certify", json=body, headers=headers, timeout=60).json()
        assert httpx.get(f"{url}/", headers=headers).text.startswith("<!doctype html>")
    kept = json.loads(records.read_text())
    assert kept == answer["record"]
    # As a stranger to the process would check it.
    record = tmp_path / "answer.json"
    record.write_text(json.dumps(answer))
    command = [sys.executable, "-m", "dualrs.cli", "verify", str(record), "--model", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the same certificate" in done.stdout
    answer["record"]["certificates"]["routed"]["radius"] *= 0.99
    record.write_text(json.dumps(answer["record"]))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 3


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_no_other_address_without_tokens(host, build_model):
    with pytest.raises(ValueError, match="tokens are needed"):
        serve(Service(build_model(), "toy"), host=host)


def test_who_says_nothing_or_speaks_slowly_is_not_waited_for(serve):
    server = serve(protocol=_protocol(0.5), limits=Limits(body_seconds=0.5))
    head = b"POST /v1/certify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
    for said in (b"", b"GET / HT", head, head + b"\r\n{"):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(10)
            connection.sendall(said)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))  # until the service hangs up
        assert answer.startswith(b"HTTP/1.1 408") if b"{" in said else answer == b""
    with socket.create_connection(("127.0.0.1", server.port)) as dripping, pytest.raises(OSError):  # noqa: PT011
        drip(dripping, (head + b"\r\n").decode() * 10)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def drip(connection, text):
    for letter in text:
        connection.sendall(letter.encode())
        time.sleep(0.05)


def test_a_connection_may_be_used_again_after_a_while(serve):
    with httpx.Client(base_url=serve(protocol=_protocol(0.3)).url) as client:
        for _ in range(3):
            assert client.get("/healthz").status_code == 200
            time.sleep(0.1)


def test_the_log_is_json_without_tracebacks():
    import logging

    try:
        raise ValueError("/secret/path")
    except ValueError:
        record = logging.LogRecord("dualrs", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    record.request = "abc"
    line = json.loads(JsonLines().format(record))
    assert line == {"time": line["time"], "level": "error", "event": "failed", "error": "ValueError", "request": "abc"}
