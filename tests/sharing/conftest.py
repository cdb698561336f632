"""A local Hub: a small HTTP server with the few paths of the Hugging Face Hub that a model's files need."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
import torch

from dualrs import DualSmoothedClassifier, SmoothedClassifier
from dualrs.models import InputSpec, NetworkSpec

TOKEN = "hf_secret"


class Hub:
    """Repositories with branches and commits; every request is noted."""

    def __init__(self):
        self.repos, self.commits, self.private, self.requests = {}, {}, set(), []
        hub = self

        class Handler(_Handler):
            at = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def commit(self, repo, files, branch="main", private=False):
        """Adds files, given by their content, to a branch; gives the commit."""
        branches = self.repos.setdefault(repo, {})
        content = {**self.commits.get(branches.get(branch), {}), **files}
        named = json.dumps([repo, branch, sorted((name, hashlib.sha1(c).hexdigest()) for name, c in content.items())])
        commit = hashlib.sha1(named.encode()).hexdigest()
        self.commits[commit], branches[branch] = content, commit
        if private:
            self.private.add(repo)
        return commit

    def commit_folder(self, repo, folder, **changes):
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return self.commit(repo, {**files, **changes})

    def fetched(self):
        """The files that were asked for."""
        return {path.rpartition("/")[2] for method, path in self.requests if method == "GET" and "/resolve/" in path}


class _Handler(BaseHTTPRequestHandler):
    at: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self._note()
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, revision, file = found[1], unquote(found[2]), unquote(found[3])
            commit = self._commit_of(repo, revision)
            if commit is None:
                return
            if file not in self.at.commits[commit]:
                self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
                return
            content = self.at.commits[commit][file]
            self._send(200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}, content)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            commit = self._commit_of(found[1], unquote(found[2] or "main"))
            if commit is not None:
                siblings = [{"rfilename": name} for name in self.at.commits[commit]]
                self._json({"id": found[1], "sha": commit, "siblings": siblings})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/discussions/1", path):
            self._json(
                {
                    "title": "a pull request",
                    "num": 1,
                    "createdAt": "2026-01-01T00:00:00.000Z",
                    "status": "open",
                    "repo": {"name": found[1], "type": "model"},
                    "isPullRequest": True,
                    "changes": {"base": "refs/heads/main"},
                    "filesWithConflicts": [],
                    "events": [],
                }
            )
        else:
            self._send(404)

    def do_POST(self):
        path, content = self._note(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            assert json.loads(content)["content"].startswith("---\nlibrary_name: dualrs\n")
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401)
        elif path == "/api/repos/create":
            asked = json.loads(content)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if repo in self.at.repos:
                self._json({"url": f"{self.at.url}/{repo}", "error": "it exists"}, 409)
                return
            self.at.commit(repo, {".gitattributes": b""}, private=asked.get("visibility") == "private")
            self._json({"url": f"{self.at.url}/{repo}", "name": repo, "id": repo})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            branches = self.at.repos[found[1]]
            branches.setdefault(unquote(found[2]), branches["main"])
            self._json({})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/discussions", path):
            assert json.loads(content)["pullRequest"]
            branches = self.at.repos[found[1]]
            branches["refs/pr/1"] = branches["main"]
            self._json({"num": 1})
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/.+", path):
            files = [file["path"] for file in json.loads(content)["files"]]
            self._json({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            lines = [json.loads(line) for line in content.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            branch = unquote(found[2])
            if "create_pr=1" in self.path:  # as releases of huggingface_hub before 2 ask for a pull request
                branch, self.at.repos[found[1]]["refs/pr/1"] = "refs/pr/1", self.at.repos[found[1]][branch]
            commit = self.at.commit(found[1], files, branch)
            address = {"commitUrl": f"{self.at.url}/{found[1]}/commit/{commit}", "commitOid": commit}
            self._json({**address, "pullRequestUrl": f"{self.at.url}/{found[1]}/discussions/1"})
        else:
            self._send(404)

    def _note(self):
        path = urlsplit(self.path).path
        self.at.requests.append((self.command, path))
        return path

    def _commit_of(self, repo, revision):
        """The commit; None when it was answered that there is none."""
        allowed = repo not in self.at.private or self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo not in self.at.repos or not allowed:
            self._send(404 if allowed else 401, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = self.at.repos[repo].get(revision, revision)
        if commit not in self.at.commits:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return commit

    def _json(self, content, status=200):
        self._send(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send(self, status, headers=None, content=b""):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A fresh Hub, which huggingface_hub takes for the only one, with a cache of its own and nobody logged in."""
    fake = Hub()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    yield fake
    fake.close()


def network(outputs, seed):
    """A network that nobody trained."""
    torch.manual_seed(seed)
    return NetworkSpec(width=2).build(num_classes=outputs, mean=[0.3], std=[0.3]).eval()


@pytest.fixture(scope="session")
def networks():
    return network


@pytest.fixture(scope="session")
def dual():
    """A dual model of the smallest networks; two experts share a base classifier."""
    shared = network(3, 0)
    model = DualSmoothedClassifier(network(2, 1), 1.0, {0.25: shared, 0.5: shared}, 3, backend="torch")
    model.input, model.classes = InputSpec((1, 8, 8)), ("cat", "dog|wolf", "ship <b>⚓")
    return model


@pytest.fixture(scope="session")
def single():
    model = SmoothedClassifier(network(3, 2), 0.5, 3, backend="torch")
    model.input = InputSpec((1, 8, 8))
    return model


@pytest.fixture
def token():
    return TOKEN


@pytest.fixture
def image():
    return torch.rand((1, 8, 8), generator=torch.Generator().manual_seed(0))
