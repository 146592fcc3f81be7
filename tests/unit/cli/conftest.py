"""A control plane in memory, and a way to run the command against it without a socket."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

URL = "https://control.test"
TOKEN = "admin-token"
PLURALS = {"Site": "sites", "Model": "models", "Deployment": "deployments", "Policy": "policies"}


@dataclass(slots=True)
class FakeControl:
    """Answers as the control plane's contract says. ``resources`` is (plural, name) -> document."""

    resources: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    explanation: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    failures: list[httpx.Response | Exception] = field(default_factory=list)
    on_get: Callable[[tuple[str, str]], None] | None = None

    def put(self, kind: str, name: str, spec: dict[str, Any], **conditions: str) -> None:
        """Hold a resource; ``conditions`` is type=status."""
        self.resources[PLURALS[kind], name] = {
            "apiVersion": "nearcast.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
            "status": {
                "conditions": [
                    {
                        "type": key,
                        "status": value,
                        "reason": "Told" if value == "True" else "NotYet",
                        "message": f"{key} is {value}",
                        "lastTransitionTime": "2026-11-20T10:00:00.25Z",
                    }
                    for key, value in conditions.items()
                ]
            },
        }

    def handle(self, request: httpx.Request) -> httpx.Response:
        """One exchange."""
        path = request.url.path
        self.calls.append(f"{request.method} {path}")
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return error(401, "unauthenticated", "the token is not known")
        body = request.read()
        match path.strip("/").split("/"):
            case ["v1", "status"]:
                return httpx.Response(200, json=self.status)
            case ["v1", "route", "explain"]:
                if self.explanation.get("model") != request.url.params["model"]:
                    return error(404, "not_found", "no such model")
                return httpx.Response(200, json=self.explanation)
            case ["v1", "apply"]:
                return self._apply(json.loads(body))
            case ["v1", "resources", plural]:
                items = [document for (kind, _), document in self.resources.items() if kind == plural]
                return httpx.Response(200, json={"items": items})
            case ["v1", "resources", plural, name]:
                return self._resource(request, plural, name)
            case ["v1", "resources", _, _, "revisions"]:
                return httpx.Response(200, json={"items": []})
            case ["v1", "nodes"]:
                return httpx.Response(200, json={"items": []})
            case ["v1", "sites", site, "join-tokens"]:
                return httpx.Response(200, json={"token": f"ncj_{site}"})
            case ["v1", "blobs", digest]:
                return self._blob(request.method, digest, body)
            case _:
                return error(404, "not_found", f"no such path {path}")

    def _resource(self, request: httpx.Request, plural: str, name: str) -> httpx.Response:
        if self.on_get and request.method == "GET":
            self.on_get((plural, name))
        document = self.resources.get((plural, name))
        if document is None:
            return error(404, "not_found", f"no {plural}/{name}")
        revision = f'"{hashlib.sha256(json.dumps(document["spec"]).encode()).hexdigest()[:8]}"'
        if request.method == "DELETE":
            if request.headers.get("if-match") not in {None, revision}:
                return error(409, "conflict", "it changed meanwhile")
            del self.resources[plural, name]
            return httpx.Response(200, json={})
        return httpx.Response(200, json=document, headers={"etag": revision})

    def _apply(self, body: dict[str, Any]) -> httpx.Response:
        results = []
        for document in body["manifests"]:
            key = (PLURALS[document["kind"]], document["metadata"]["name"])
            old = self.resources.get(key)
            same = old is not None and old["spec"] == document["spec"]
            action = "unchanged" if same else "updated" if old else "created"
            diff = "" if same else "--- before\n+++ after\n-old: [1]\n+new: [2]\n"
            results.append({"kind": document["kind"], "name": key[1], "action": action, "diff": diff, "revision": "r"})
            if not body["dry_run"]:
                self.resources[key] = document
        return httpx.Response(200, json={"results": results})

    def _blob(self, method: str, digest: str, body: bytes) -> httpx.Response:
        if method == "HEAD":
            return httpx.Response(200 if digest in self.blobs else 404)
        if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
            return error(422, "integrity", "the bytes are others")
        self.blobs[digest] = body
        return httpx.Response(201, json={})


def error(status: int, code: str, message: str, **headers: str) -> httpx.Response:
    """An error in the control plane's shape."""
    body = {"error": {"code": code, "message": message, "hint": "as the server hints"}}
    return httpx.Response(status, json=body, headers={key.replace("_", "-"): value for key, value in headers.items()})


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of the command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def run(
    control: FakeControl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    """Run ``nearcast ARGUMENTS`` in this process, on the fake control plane and an empty data directory."""
    from nearcast.cli import connect
    from nearcast.cli.main import main

    monkeypatch.setattr(connect, "transport_of", lambda _target: httpx.MockTransport(control.handle))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NEARCAST_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEARCAST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NEARCAST_CONTROL", URL)
    monkeypatch.setenv("NEARCAST_TOKEN", TOKEN)

    def run_(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        return Done(int(ended.value.code or 0), said.out, said.err)

    return run_


@pytest.fixture
def encoded() -> Callable[[bytes], str]:
    return lambda data: base64.b64encode(data).decode()
