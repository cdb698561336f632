"""A real server in a thread, well-behaved and not."""

import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from dualrs import SmoothedClassifier
from dualrs.models import HttpClassifier


def bright(images):
    return (images.reshape(len(images), -1).mean(axis=1) > 0.5).astype(int).tolist()


@pytest.fixture
def endpoint():
    """A server that answers with the results of functions in `answers`, one after another, then with labels."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-type"] == "application/json":
                images = np.array(json.loads(content)["inputs"], dtype=np.float32)
            else:
                images = np.load(io.BytesIO(content), allow_pickle=False)
            server.seen.append((images, dict(self.headers)))
            status, body, *headers = server.answers.pop(0)(images) if server.answers else (200, bright(images))
            if status is None:  # hang up
                self.close_connection = True
                return
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/predict"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def classifier(endpoint):
    classifier = HttpClassifier(endpoint.url, 3, retries=2, pause=0.01, timeout=5.0)
    yield classifier
    classifier.close()


BATCH = torch.stack([torch.full((3, 4, 4), value) for value in (0.2, 0.9, 0.6)])


@pytest.mark.parametrize("encoding", ["npy", "json"])
@pytest.mark.parametrize("form", [lambda labels: labels, lambda labels: {"labels": labels, "version": 2}])
def test_labels_become_logits(encoding, form, endpoint):
    endpoint.answers.append(lambda images: (200, form(bright(images))))
    classifier = HttpClassifier(endpoint.url, 3, encoding=encoding, headers={"Authorization": "Bearer x"})
    assert classifier(BATCH).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    ((images, headers),) = endpoint.seen
    assert np.array_equal(images, BATCH.numpy())
    assert images.dtype == np.float32
    assert headers["Authorization"] == "Bearer x"
    classifier.close()


def test_a_black_box_is_certified_as_the_same_function_here_is(endpoint):
    def here(batch):
        return torch.nn.functional.one_hot(torch.tensor(bright(batch.numpy())), 3).float()

    classifier, x = HttpClassifier(endpoint.url, 3), torch.full((3, 4, 4), 0.6)
    there = SmoothedClassifier(classifier, 0.25, 3, batch_size=64).certify(x, n=300)
    assert there == SmoothedClassifier(here, 0.25, 3, batch_size=64).certify(x, n=300)
    assert there.label == 1
    classifier.close()


@pytest.mark.parametrize("trouble", [(503, "busy"), (429, "slow down"), (500, "oops"), (None, "")])
def test_it_tries_again_when_the_server_is_in_trouble(trouble, endpoint, classifier):
    endpoint.answers += [lambda _: trouble, lambda _: trouble]
    assert classifier(BATCH).argmax(1).tolist() == [0, 1, 1]
    assert len(endpoint.seen) == 3


def test_it_gives_up_after_so_many_attempts(endpoint, classifier):
    endpoint.answers += [lambda _: (503, {"error": "no workers"})] * 5
    with pytest.raises(OSError, match=r"gave no labels in 3 attempts; the last ended with status 503: .*no workers"):
        classifier(BATCH)
    assert len(endpoint.seen) == 3


def test_it_waits_longer_each_time_and_as_long_as_it_is_told(endpoint):
    endpoint.answers += [lambda _: (503, ""), lambda _: (503, ""), lambda _: (429, "", ("retry-after", "1"))]
    classifier, started = HttpClassifier(endpoint.url, 3, retries=3, pause=0.1), time.perf_counter()
    classifier(BATCH)
    assert 1.3 <= time.perf_counter() - started < 10
    classifier.close()


def test_a_server_that_does_not_answer_in_time_is_an_error(endpoint):
    endpoint.answers.append(lambda _: time.sleep(1) or (200, []))
    classifier = HttpClassifier(endpoint.url, 3, retries=0, timeout=0.1)
    with pytest.raises(OSError, match="gave no labels in 1 attempts; the last ended with ReadTimeout"):
        classifier(BATCH)
    classifier.close()


def test_nobody_there_is_an_error():
    classifier = HttpClassifier("http://127.0.0.1:9/predict", 3, retries=1, pause=0.0)
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/predict gave no labels in 2 attempts.*ConnectError"):
        classifier(BATCH)
    classifier.close()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, [0, 1]), "was sent 3 images and gave 2 labels"),
        ((200, [0, 3, 1]), "gave label 3; with num_classes=3 labels go from 0 to 2"),
        ((200, [0, -1, 1]), "gave label -1"),
        ((200, [0.0, 1.0, 2.0]), "must answer with a list of whole numbers"),
        ((200, [True, False, True]), "must answer with a list of whole numbers"),
        ((200, ["cat", "dog", "cat"]), "list of whole numbers, or one as 'labels'; it gave .*cat"),
        ((200, {"classes": [0, 1, 2]}), "list of whole numbers, or one as 'labels'"),
        ((200, b"<html>hello</html>"), "must answer in JSON; it gave '<html>hello"),
        ((404, b"no such page"), r"refused \(3, 3, 4, 4\) npy with status 404: no such page"),
        ((422, b"x" * 500), "status 422: x{120}…"),
    ],
)
def test_answers_that_are_no_labels_are_refused_at_once(answer, message, endpoint, classifier):
    endpoint.answers.append(lambda _: answer)
    with pytest.raises(ValueError, match=message):
        classifier(BATCH)
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "wrong", [{"num_classes": 1}, {"encoding": "xml"}, {"retries": -1}, {"timeout": 0}, {"pause": -1.0}]
)
def test_impossible_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="num_classes must be at least 2, encoding one of"):
        HttpClassifier("http://localhost", **{"num_classes": 3, **wrong})
