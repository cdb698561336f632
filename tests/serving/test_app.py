import json
import re
import threading
import time
from io import BytesIO

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from dualrs import SmoothedClassifier
from dualrs.models import InputSpec
from dualrs.serving import Limits, RecordFile, verify


def png(x):
    file = BytesIO()
    Image.fromarray((255 * x[0]).round().to(torch.uint8).numpy()).save(file, "PNG")
    return file.getvalue()


def image_of(x):
    """What the service makes of the file."""
    return (255 * x).round() / 255


def events_of(response):
    name = None
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_certificates_are_those_of_the_model_for_the_seed_on_record(client, build_model, image):
    answer = client.post("/v1/certify", files={"image": png(image)}, data={"n": 500, "mode": "full"}).json()
    offline = build_model().certify(image_of(image), n=500, seed=int(answer["record"]["seed"]))
    assert answer["record"]["certificates"]["routed"] == offline.to_dict()
    assert (answer["label"], answer["name"], answer["radius"]) == (0, "top", offline.radius)
    assert answer["ended"] == "complete"
    assert verify(answer["record"], build_model(), image_of(image)).verified


def test_every_request_has_a_seed_of_its_own(client, image):
    seeds = {client.post("/v1/predict", json={"input": image.tolist()}).json()["record"]["seed"] for _ in range(5)}
    assert len(seeds) == 5
    assert min(map(int, seeds)) > 2**100  # one in two hundred million has a smaller one


def test_numbers_and_files_are_the_same_input(client, image):
    x = image_of(image)
    file = BytesIO()
    np.save(file, x.numpy())
    answers = [
        client.post("/v1/certify", json={"input": x.tolist(), "n": 300, "seed": 7}),
        client.post("/v1/certify", files={"image": png(image)}, data={"n": 300, "seed": 7}),
        client.post("/v1/certify", files={"image": file.getvalue()}, data={"n": 300, "seed": 7}),
    ]
    first, *others = [answer.json()["record"]["certificates"] for answer in answers]
    assert all(other == first for other in others)


def test_a_prediction_stops_as_soon_as_it_is_decided(client, image):
    answer = client.post("/v1/predict", json={"input": image.tolist(), "n": 10_000}).json()
    assert answer["label"] == 0
    assert answer["samples"] < 2000


def test_batches(client, build_model, image):
    xs = [image, 1 - image]
    answers = client.post("/v1/certify/batch", json={"inputs": [x.tolist() for x in xs], "n": 300}).json()["answers"]
    assert [answer["label"] for answer in answers] == [0, 1]
    for x, answer in zip(xs, answers, strict=True):
        assert verify(answer["record"], build_model(), x).verified
    files = [("image", png(x)) for x in xs]
    answers = client.post("/v1/predict/batch", files=files, data={"n": 300}).json()["answers"]
    assert [answer["label"] for answer in answers] == [0, 1]


def test_every_event_of_a_stream_is_a_certificate_that_holds(client, build_model, image):
    body = {"input": image.tolist(), "n": 20_000, "stream": True, "compare": ["min"], "keep_input": True}
    with client.stream("POST", "/v1/certify", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = list(events_of(response))
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("begin", "answer")
    answer = events[-1][1]
    assert answer["record"]["certificates"].keys() == {"routed", "min"}
    shown = []
    build_model().certify(
        image, n=20_000, seed=int(answer["record"]["seed"]), watch=lambda seen: bool(shown.append(seen))
    )
    told = [data for name, data in events if name == "certificate" and data["rule"] == "routed"]
    assert told
    for data in told:
        assert {name: data[name] for name in ("label", "radius", "stages")} in [
            {name: each.to_dict()[name] for name in ("label", "radius", "stages")} for each in shown
        ]
    assert all("seed" not in data for name, data in events[:-1])
    votes = [data["votes"] for name, data in events if name == "votes"][-1]
    assert [sum(each["counts"]) for each in votes] == [20_100, 20_100]  # the two rules read the same ones
    assert verify(answer["record"], build_model(), image).verified


def test_a_client_may_stop_a_stream_and_has_what_is_proved_by_then(connect, build_model, image):
    client = connect(build_model(pause=0.005))
    body = {"input": image.tolist(), "n": 100_000, "stream": True}
    with client.stream("POST", "/v1/certify", json=body) as response:
        events = events_of(response)
        name, begun = next(events)
        assert name == "begin"
        while next(events)[0] != "certificate":
            pass
        assert httpx.post(f"{client.base_url}/v1/requests/{begun['request']}/stop").status_code == 202
        *_, (name, answer) = events
    assert (name, answer["ended"]) == ("answer", "client")
    assert answer["samples"] < 100_000
    assert verify(answer["record"], build_model(), image).verified
    assert client.post(f"/v1/requests/{begun['request']}/stop").status_code == 404


def test_a_client_that_goes_ends_its_sampling(serve, build_model, image):
    server = serve(build_model(pause=0.01))
    body = {"input": image.tolist(), "n": 100_000, "mode": "full"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/certify", json=body, timeout=0.3)
    with httpx.Client(base_url=server.url) as client:
        with client.stream("POST", "/v1/certify", json={**body, "mode": "anytime", "stream": True}) as response:
            next(events_of(response))
        until = time.monotonic() + 10
        while server.service.desk.under_way:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert not server.service.streams
        assert client.get("/readyz").status_code == 200


def test_at_the_deadline_what_is_proved_by_then_is_answered(connect, build_model, image):
    client = connect(build_model(pause=0.01))
    started = time.monotonic()
    answer = client.post("/v1/certify", json={"input": image.tolist(), "n": 100_000, "deadline": 0.3}).json()
    assert time.monotonic() - started < 5
    assert answer["ended"] == "deadline"
    assert verify(answer["record"], build_model(), image).verified
    full = client.post("/v1/certify", json={"input": image.tolist(), "n": 100_000, "deadline": 0.1, "mode": "full"})
    assert full.json()["abstained"]
    assert verify(full.json()["record"], build_model(), image).verified


def test_who_comes_to_a_full_service_is_told_when_to_come_back(serve, build_model, image):
    server = serve(build_model(pause=0.01), limits=Limits(active=1, waiting=1, seconds=1))
    body = {"input": image.tolist(), "n": 100_000}
    statuses = []

    def ask():
        response = httpx.post(f"{server.url}/v1/certify", json=body, timeout=60)
        statuses.append(response.status_code)
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            assert response.headers["content-type"] == "application/problem+json"

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 2


PROBLEMS = {
    "no body": ({"content": b""}, 415),
    "no JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    "not a number": ({"content": b'{"input": NaN}', "headers": {"content-type": "application/json"}}, 400),
    "deep": ({"content": b'{"input":' + b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
    "a list": ({"json": []}, 422),
    "no input": ({"json": {"n": 100}}, 422),
    "another shape": ({"json": {"input": [1.0]}}, 422),
    "out of range": ({"json": {"input": [[[2.0] * 4] * 4]}}, 422),
    "unknown option": ({"json": {"input": [[[0.5] * 4] * 4], "samples": 5}}, 422),
    "n too large": ({"json": {"input": [[[0.5] * 4] * 4], "n": 100_001}}, 422),
    "n too small for α": ({"json": {"input": [[[0.5] * 4] * 4], "n": 5}}, 422),
    "α of 1": ({"json": {"input": [[[0.5] * 4] * 4], "alpha": 1.0}}, 422),
    "α of 0": ({"json": {"input": [[[0.5] * 4] * 4], "alpha": 0}}, 422),
    "no such rule": ({"json": {"input": [[[0.5] * 4] * 4], "rule": "cohen"}}, 422),
    "a target in full mode": ({"json": {"input": [[[0.5] * 4] * 4], "mode": "full", "target": 0.1}}, 422),
    "a negative deadline": ({"json": {"input": [[[0.5] * 4] * 4], "deadline": -1}}, 422),
    "XML": ({"content": b"<a/>", "headers": {"content-type": "application/xml"}}, 415),
    "a form without a file": ({"data": {"n": "5"}, "files": {"other": b"x"}}, 422),
    "a form with a broken file": ({"files": {"image": b"GIF89a no"}}, 422),
    "two files": ({"files": [("image", b"x"), ("image", b"y")]}, 400),
    "a form that is cut": (
        {
            "content": b"--x\r\nContent-Disposition: form-data",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
        (400, 422),
    ),
    "a form without boundary": ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400),
}


@pytest.mark.parametrize("what", PROBLEMS)
@pytest.mark.parametrize("path", ["/v1/certify"])
def test_problems_are_told(client, path, what):
    arguments, status = PROBLEMS[what]
    response = client.post(path, **arguments)
    assert response.status_code in (status if isinstance(status, tuple) else (status,)), response.text
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert not re.search(r"\.py|/\w+/", problem["detail"].replace("/form-data", ""))


def test_seeds_are_only_for_those_who_are_allowed(connect, image):
    client = connect()
    assert client.post("/v1/certify", json={"input": image.tolist(), "seed": 1}).status_code == 403
    assert not client.get("/v1/model").json()["seed_allowed"]


def test_facts(client):
    about = client.get("/v1/model").json()
    assert about["sigmas"] == [0.25, 0.5]
    assert about["classes"] == ["top", "bottom"]
    assert about["rules"] == ["routed", "min"]
    assert about["functions"]["estimator"]["batch_size"] == 64
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/predict", json={"input": [[[0.9] * 4] * 2 + [[0.1] * 4] * 2]})
    metrics = client.get("/metrics").text
    assert 'dualrs_certificates_total{abstained="false",ended="complete",rule="routed"} 1.0' in metrics
    assert 'dualrs_requests_total{method="POST",route="/v1/predict",status="200"} 1.0' in metrics
    assert 'dualrs_votes_total{model="estimator"}' in metrics


def test_the_document_describes_what_there_is(client):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/certify", "/v1/predict", "/v1/certify/batch", "/v1/model", "/healthz"}
    body = document["paths"]["/v1/certify"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "multipart/form-data"}
    assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_an_attack_inside_and_outside(client, image):
    answer = client.post("/v1/certify", json={"input": image.tolist(), "n": 2000}).json()
    body = {"input": image.tolist(), "label": 0, "radius": answer["radius"], "n": 2000}
    with client.stream("POST", "/v1/attack", json=body) as response:
        events = list(events_of(response))
    assert (events[0][0], events[-1][0]) == ("begin", "end")
    attempts = [data for name, data in events if name == "attempt"]
    inside = [attempt for attempt in attempts if attempt["certified"]]
    assert inside
    assert all(attempt["norm"] < answer["radius"] for attempt in inside)
    assert not any(attempt["broken"] for attempt in attempts)
    assert any(attempt["label"] == 1 for attempt in attempts)


def test_an_attack_on_no_class_and_one_that_is_not_offered(client, serve, image):
    body = {"input": image.tolist(), "label": 2, "radius": 0.1}
    assert client.post("/v1/attack", json=body).status_code == 422
    quiet = serve(attack_offered=False)
    assert httpx.post(f"{quiet.url}/v1/attack", json={**body, "label": 0}).status_code == 403


def test_records_are_kept_before_the_answer_is_given(serve, tmp_path, build_model, image):
    path = tmp_path / "records" / "audit.jsonl"
    server = serve(records=RecordFile(path), keep_inputs=True)
    answers = [
        httpx.post(f"{server.url}/v1/certify", json={"input": image.tolist(), "n": 300}).json() for _ in range(3)
    ]
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [answer["record"] for answer in answers]
    assert path.stat().st_mode & 0o077 == 0
    assert kept[0]["input"]["values"]


def test_one_noise_level(connect, image):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    model = SmoothedClassifier(module, 0.25, 3, backend="torch", batch_size=64)
    model.input = InputSpec((1, 4, 4))
    client = connect(model)
    assert client.get("/v1/model").json()["rules"] == ["adaptive", "cohen"]
    body = {"input": image.tolist(), "n": 1000, "compare": ["cohen"]}
    answer = client.post("/v1/certify", json=body).json()
    assert answer["record"]["certificates"].keys() == {"adaptive", "cohen"}
    assert verify(answer["record"], model, image).verified
    attack = {"input": image.tolist(), "label": answer["label"] or 0, "radius": answer["radius"]}
    assert "event: end" in client.post("/v1/attack", json=attack).text
