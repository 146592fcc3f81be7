"""A control plane in memory, as its contract says. `tests/contract/test_client_control.py` holds it to the real one."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

URL = "https://control.test"
TOKEN = "admin-token"
PLURALS = {"Site": "sites", "Model": "models", "Deployment": "deployments", "Policy": "policies"}


@dataclass(slots=True)
class FakeControl:
    """Answers as the control plane's contract says. ``resources`` is (plural, name) -> document."""

    resources: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    explanation: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    root: bytes = b""
    roots: list[bytes] = field(default_factory=list)
    targets: bytes = b""
    releases: list[dict[str, Any]] = field(default_factory=list)
    history: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    before_release: Callable[[], None] | None = None
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

    def handle(self, request: httpx.Request) -> httpx.Response:  # noqa: PLR0912 - one case per path
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
            case ["v1", "resources", plural, name, "revisions"]:
                return httpx.Response(200, json={"items": self.history.get((plural, name), [])})
            case ["v1", "nodes"]:
                return httpx.Response(200, json={"items": self.nodes})
            case ["v1", "nodes", site, node] if request.method == "DELETE":
                left = [each for each in self.nodes if (each["site"], each["name"]) != (site, node)]
                if left == self.nodes:
                    return error(404, "not_found", f"there is no node {site}/{node}")
                self.nodes = left
                return httpx.Response(204)
            case ["v1", "sites", site, "join-tokens"]:
                if ("sites", site) not in self.resources:
                    return error(404, "not_found", "no such site")
                return httpx.Response(201, json={"token": f"ncj_{site}"})
            case ["v1", "blobs", digest]:
                return self._blob(request.method, digest, body)
            case ["v1", "trust"]:
                root = base64.b64encode(self.root).decode() if self.root else None
                return httpx.Response(200, json={"fleet": "f.test", "ca_pem": "", "releases_root": root})
            case ["v1", "releases", "roots"]:
                roots = self.roots or ([self.root] if self.root else [])
                return httpx.Response(200, json={"items": [base64.b64encode(root).decode() for root in roots]})
            case ["v1", "releases", *rest]:
                return self._releases(request.method, rest, body)
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
            if not body["dry_run"] and not same:
                self.resources[key] = document
                entry = {"at": "2026-11-20T10:00:00Z", "action": "put", "revision": "r"}
                self.history.setdefault(key, []).append(entry)
        return httpx.Response(200, json={"results": results})

    def _releases(self, method: str, rest: list[str], body: bytes) -> httpx.Response:
        if method == "GET" and not rest:
            return httpx.Response(200, json={"items": self.releases})
        if method == "GET":
            if not self.targets:
                return error(404, "not_found", "not begun")
            return httpx.Response(
                200, content=self.targets, headers={"x-nearcast-targets-version": str(self._version())}
            )
        given = json.loads(body)
        if rest == ["root"]:
            root = base64.b64decode(given["root"])
            if self.root and self.root != root:
                return error(409, "conflict", "begun with another root")
            self.root, self.targets = root, base64.b64decode(given["targets"])
            return httpx.Response(201, json={"version": 1})
        if self.before_release:
            self.before_release()
        if given["expected_version"] != self._version():
            return error(409, "conflict", "the list moved on")
        manifest = base64.b64decode(given["manifest"])
        document = json.loads(manifest)
        if missing := [file["path"] for file in document["files"] if file["digest"] not in self.blobs]:
            return error(404, "not_found", f"no blob of {missing}")
        self.targets = base64.b64decode(given["targets"])
        listed = {key: document[key] for key in ("model", "version", "created_at", "task")}
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        self.releases.append(listed | {"digest": digest, "size_bytes": 0, "manifest": document})
        return httpx.Response(201, json={"version": self._version()})

    def _version(self) -> int:
        return int(json.loads(self.targets)["signed"]["version"])

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
