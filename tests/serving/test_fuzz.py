"""Hostile requests: none may have the service fail, tell what it should not, or certify without a level."""

import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from dualrs.serving import Limits

pytestmark = pytest.mark.slow

LEAKS = re.compile(r"Traceback|File \"|site-packages|\.py\b|/root|/home|/tmp|0x[0-9a-f]{8}")
HOSTILE = 10_000
LIMITS = Limits(n=1000, seconds=2.0, body=200_000, pixels=10_000, inputs=4)


def test_the_document_holds_under_schemathesis(serve, tmp_path):
    server = serve(limits=LIMITS, allow_seed=True)
    script = Path(sys.executable).with_name("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", "40", "--seed", "1", "--phases", "examples,coverage,fuzzing"]
    done = subprocess.run(
        [script, "run", f"{server.url}/openapi.json", *options, "--suppress-health-check", "all", "--no-color"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def seeds():
    """Good requests, from which bad ones are made."""
    x = [[[round(0.1 * (i + j) % 1, 2) for j in range(4)] for i in range(4)]]
    file = BytesIO()
    Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).save(file, "PNG")
    yield "/v1/certify", "application/json", json.dumps({"input": x, "n": 100, "alpha": 0.01, "mode": "full"}).encode()
    yield "/v1/certify", "application/json", json.dumps({"input": x, "n": 50, "rule": "min", "stream": True}).encode()
    yield "/v1/predict/batch", "application/json", json.dumps({"inputs": [x, x], "n": 100}).encode()
    yield "/v1/attack", "application/json", json.dumps({"input": x, "label": 1, "radius": 0.0, "n": 20}).encode()
    for path in ("/v1/predict", "/v1/certify"):
        parts = (
            b'name="image"; filename="a.png"\r\n\r\n' + file.getvalue(),
            b'name="n"\r\n\r\n100',
            b'name="alpha"\r\n\r\n.01',
        )
        body = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--x--\r\n"
        yield path, "multipart/form-data; boundary=x", body


TOKENS = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"1e-400",
    b"{}",
    b"[]",
    b'""',
    b"9" * 400,
    b'"\\ud800"',
    b"\xff\xfe",
    b"\0",
    b"../../etc/passwd",
    b"[" * 500,
    b"\r\n--x\r\n",
    b'"alpha":0,',
    b'"seed":1,',
    b'"deadline":1e-9,',
    b'"n":0,',
    b"'",
    b'"alpha":0.9999999999999999999,',
    b'"target":1e308,',
    b'"tolerance":1e308,',
    b'filename="',
    b"%00",
    b"\xe2\x80\xae",
)


def mutated(body, rng):
    body = bytearray(body)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(len(body) + 1))
        match rng.integers(5):
            case 0:
                body[at : at + int(rng.integers(1, 9))] = b""
            case 1:
                body[at:at] = TOKENS[rng.integers(len(TOKENS))]
            case 2:
                body[at : at + int(rng.integers(1, 9))] = TOKENS[rng.integers(len(TOKENS))]
            case 3:
                body[at : at + 1] = bytes([rng.integers(256)])
            case _:
                body = body[:at]
    return bytes(body)


# A file in a form that ends too soon is closed by the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
def test_ten_thousand_hostile_bodies(serve, caplog):
    server, rng, statuses = serve(limits=LIMITS), np.random.default_rng(0), {}
    known = list(seeds())
    with httpx.Client(base_url=server.url, timeout=60) as client, caplog.at_level("INFO"):
        for path, kind, body in known:
            assert client.post(path, content=body, headers={"content-type": kind}).status_code == 200
        for number in range(HOSTILE):
            path, kind, body = known[number % len(known)]
            response = client.post(path, content=mutated(body, rng), headers={"content-type": kind})
            status = response.status_code
            statuses[status] = statuses.get(status, 0) + 1
            assert status in (200, 400, 403, 413, 415, 422, 429), (status, response.text)
            assert not LEAKS.search(response.text), response.text
            if status == 200 and response.headers["content-type"] == "application/json":
                answers = response.json().get("answers", [response.json()])
                assert all(0 < answer["alpha"] < 1 for answer in answers)
        assert client.get("/readyz").status_code == 200
    assert statuses[200] < HOSTILE / 2  # most were bad indeed
    told = " ".join(
        str(record.__dict__)
        for record in caplog.records
        if record.name == "dualrs.serving" and record.levelname != "INFO"
    )
    assert "unexpected" not in told


PATHS = (
    "/../pyproject.toml", "/..%2f..%2fpyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "/v1/samples/-1", "/v1/samples/x",
    "/v1/samples/99999999999999999999999", "/v1/requests/../stop", "/static/../../app.py", "/main.js%00.html",
    "/\\..\\", "/v1/model/" + "a" * 5000, "/v1/certify?" + "a=b&" * 500, "/.git/config", "/__init__.py",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_hostile_paths(client, path):
    for method in ("GET", "POST", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PATCH", "FOO"):
        response = client.request(method, path)
        assert response.status_code in (400, 404, 405, 415, 422), (method, response.status_code)
        assert not LEAKS.search(response.text.replace(path, ""))
        assert "root:" not in response.text
        assert "[project]" not in response.text
