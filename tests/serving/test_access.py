import asyncio
import base64
import json

import pytest
from starlette.responses import PlainTextResponse

from dualrs.serving import Limits, Tokens, hash_of, new_token
from dualrs.serving.access import SECURITY_HEADERS, BodyTooLargeError, BodyTooSlowError, Gate, is_loopback
from dualrs.serving.metrics import Metrics

SECRET = new_token()


def tokens():
    return Tokens({"alice": hash_of(SECRET), "bob": hash_of(new_token())})


async def echo(scope, receive, send):
    """Answers with the length of the body."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await PlainTextResponse(str(length))(scope, receive, send)


def ask(app=echo, *, path="/", method="POST", peer="127.0.0.1", body=(b"",), ends=True, gate=None, **headers):
    """The status, headers and body with which a gate answers."""
    given = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "client": (peer, 1234),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value is not None],
    }
    pieces, sent = list(body), []

    async def receive():
        if not pieces:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces) or not ends}

    async def send(message):
        sent.append(message)

    settings = {"tokens": None, "hosts": (), "limits": Limits(), **(gate or {})}
    gated = Gate(app, metrics=Metrics(dict, int), **settings)
    asyncio.run(gated(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, content


def test_this_machine_is_served_under_its_own_names():
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.0.0.1"):
        assert ask(host=host, body=[b"abc", b"de"])[0] == 200
    assert ask(host="model.example:80", gate={"hosts": ("model.example",)})[0] == 200
    assert ask(peer="::1")[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:8000", "[::2]"])
def test_other_names_are_refused_for_a_page_elsewhere_may_have_them_lead_here(host):
    assert ask(host=host)[0] == 421


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/v1/certify", "/openapi.json", "/main.js", "/no"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "DELETE"])
def test_without_a_token_another_address_gets_401_always(path, method):
    for gate in ({}, {"tokens": tokens()}):
        for host in ("localhost", "evil.example"):
            status, headers, content = ask(path=path, method=method, peer="10.1.2.3", host=host, gate=gate)
            assert status == 401
            assert headers["www-authenticate"].startswith("Bearer")
            assert b"token" in content or method == "HEAD"


def test_with_tokens_this_machine_needs_one_too():
    assert ask(gate={"tokens": tokens()})[0] == 401


def basic(password):
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize("given", [f"Bearer {SECRET}", f"bearer  {SECRET}", basic(SECRET)])
def test_a_token_opens_from_anywhere_under_any_name(given):
    assert ask(authorization=given, peer="10.1.2.3", host="model.example", gate={"tokens": tokens()})[0] == 200


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Token {SECRET}",
        SECRET,
        basic("no"),
        "Basic !!!",
        "Basic " + base64.b64encode(b"\xff\xfe").decode(),
        f"Bearer {hash_of(SECRET)}",
    ],
)
def test_anything_else_does_not(given):
    assert ask(authorization=given, gate={"tokens": tokens()})[0] == 401


def test_requests_from_other_sites_are_refused():
    assert ask(sec_fetch_site="cross-site")[0] == 403
    assert ask(sec_fetch_site="same-site", authorization=f"Bearer {SECRET}", gate={"tokens": tokens()})[0] == 403
    assert ask(sec_fetch_site="same-origin")[0] == 200


def test_large_bodies_are_refused_before_they_are_read_and_while_they_are():
    gate = {"limits": Limits(body=10)}
    assert ask(content_length="11", gate=gate)[0] == 413
    assert ask(body=[b"x" * 10], gate=gate)[0] == 200

    async def reading(scope, receive, send):
        with pytest.raises(BodyTooLargeError):
            await echo(scope, receive, send)
        await PlainTextResponse("stopped")(scope, receive, send)

    assert ask(reading, body=[b"x" * 6, b"x" * 6], gate=gate)[2] == b"stopped"


def test_slow_bodies_end():
    async def reading(scope, receive, send):
        await receive()
        with pytest.raises(BodyTooSlowError):
            await receive()
        await PlainTextResponse("stopped")(scope, receive, send)

    assert ask(reading, body=[b"a"], ends=False, gate={"limits": Limits(body_seconds=0.1)})[2] == b"stopped"


def test_every_response_has_the_headers_of_a_safe_page():
    for arguments in ({}, {"host": "evil.example"}, {"peer": "10.0.0.1"}):
        _, headers, _ = ask(**arguments)
        assert headers.items() >= {name.lower(): value for name, value in SECURITY_HEADERS.items()}.items()
        assert len(headers["x-request-id"]) == 16


def test_an_unexpected_error_tells_nothing(caplog):
    async def fails(scope, receive, send):
        raise KeyError("/root/secret path")

    with caplog.at_level("INFO", logger="dualrs.serving"):
        status, headers, content = ask(fails)
    assert status == 500
    assert json.loads(content)["request_id"] == headers["x-request-id"]
    told = content.decode() + "".join(
        str(record.__dict__) for record in caplog.records if record.name == "dualrs.serving"
    )
    assert "secret" not in told.replace("secrets", "")
    assert any("KeyError < " in str(getattr(record, "error", "")) for record in caplog.records)


def test_the_log_has_no_token(caplog):
    with caplog.at_level("INFO", logger="dualrs.serving"):
        ask(authorization=f"Bearer {SECRET}", gate={"tokens": tokens()})
    (record,) = caplog.records
    assert record.holder == "alice"
    assert SECRET not in str(record.__dict__)


def test_web_sockets_are_closed():
    sent = []

    async def send(message):
        sent.append(message)

    gate = Gate(echo, tokens=None, hosts=(), limits=Limits(), metrics=Metrics(dict, int))
    asyncio.run(gate({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_tokens_are_read_from_a_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\nalice {hash_of(SECRET)}  # until May\n\nbob {hash_of('b')}\n")
    known = Tokens.read(path)
    assert known.holder(SECRET) == "alice"
    assert known.holder("b") == "bob"
    assert known.holder("") is None


@pytest.mark.parametrize(
    "content", ["", "# nobody", "alice", "alice x y", f"a {hash_of('a')}\na {hash_of('b')}", f"alice {SECRET}"]
)
def test_what_is_no_file_of_tokens_is_refused(tmp_path, content):
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ValueError, match="token"):
        Tokens.read(path)


def test_tokens_differ_and_are_long():
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 43


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback(host, own):
    assert is_loopback(host) is own
