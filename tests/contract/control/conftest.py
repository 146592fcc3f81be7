"""A control plane in a temporary directory, asked through its real application; nodes and releases that act on it."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from securesystemslib.signer import CryptoSigner

from nearcast.control.api.services import Services
from nearcast.control.app import create_app
from nearcast.control.controllers import Controllers
from nearcast.control.observer import Observer
from nearcast.control.plane import ControlPlane, open_control_plane
from nearcast.control.planner import Planner
from nearcast.control.settings import Settings
from nearcast.registry.release_list import new_releases_root, new_targets, online_key_of, propose
from nearcast.registry.trust import version_of
from nearcast.resources.release import File, ReleaseManifest, Signature, Tensor, encode_release
from nearcast.resources.revision import digest_of
from servers.postgresql import PostgreSQL, postgresql_server

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WEIGHTS = b"weights " * 1000
LEASE_S = 3600.0


class Fleet:
    """One control plane that can be crashed and started again, on a clock that the test moves."""

    def __init__(self, data_dir: Path, database: str | None = None, **more: Any) -> None:
        self.settings = Settings(
            data_dir=data_dir,
            publish_interval_s=0.0,
            node_timeout_s=60.0,
            fleet="fleet.test",
            database=database,
            **more,
        )
        self.now = START
        self.releaser = CryptoSigner.generate_ed25519()
        self.root_key = CryptoSigner.generate_ed25519()
        self.start()

    def start(self) -> None:
        self.plane = self.open()
        if self.plane.leader.leads:  # for as long as a test takes; no loop runs here that would renew it
            self.plane.leader.lease_s = LEASE_S
            self.plane.leader.hold()
        self.observer = Observer(self.plane)
        self.planner = Planner(self.plane, self.seconds)
        self.controllers = Controllers(self.plane, self.observer, self.planner, lambda _now: None)
        self.app = create_app(Services(self.plane, self.observer, self.planner, "https://control.test"))
        self.admin = self.settings.admin_token_file.read_text().strip()

    def open(self) -> ControlPlane:
        return open_control_plane(self.settings, lambda: self.now)

    def seconds(self) -> float:
        """The clock that never goes back."""
        return (self.now - START).total_seconds()

    def restart(self) -> None:
        self.plane.close()
        self.start()

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def call(self, method: str, path: str, *, token: str | None = None, **arguments: Any) -> httpx.Response:
        """One request; with the admin token unless another is given ('' for none)."""
        token = self.admin if token is None else token
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **arguments.pop("headers", {})}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://control.test") as client:
                return await client.request(method, path, headers=headers, **arguments)

        return asyncio.run(ask())

    def apply(self, *manifests: dict[str, Any], dry_run: bool = False) -> httpx.Response:
        return self.call("POST", "/v1/apply", json={"manifests": list(manifests), "dry_run": dry_run})

    def applied(self, *manifests: dict[str, Any]) -> None:
        answer = self.apply(*manifests)
        assert answer.status_code == 200, answer.text

    def start_releases(self) -> None:
        """As a releaser does before the first push."""
        trust = self.call("GET", "/v1/trust", token="").json()
        root = new_releases_root(
            root_signers=[self.root_key],
            releaser_keys=[self.releaser.public_key],
            online_key=online_key_of(base64.b64decode(trust["plans_root"])),
            now=self.now,
        )
        body = {"root": b64(root), "targets": b64(new_targets(self.releaser, now=self.now))}
        answer = self.call("POST", "/v1/releases/root", json=body)
        assert answer.status_code == 201, answer.text

    def proposal(self, model: str, version: str, *, releaser: CryptoSigner | None = None) -> dict[str, Any]:
        """Body of ``POST /v1/releases``."""
        root = self.plane.releases.root()
        assert root is not None
        answer = self.call("GET", "/v1/releases/targets")
        assert int(answer.headers["x-nearcast-targets-version"]) == version_of(answer.content)
        manifest = release(model, version)
        targets = propose(root, answer.content, manifest, releaser or self.releaser, now=self.now)
        return {
            "targets": b64(targets),
            "manifest": b64(encode_release(manifest)),
            "expected_version": version_of(answer.content),
        }

    def push(self, model: str, version: str) -> None:
        """As ``nearcast model push`` does."""
        digest = digest_of(WEIGHTS)
        assert self.call("PUT", f"/v1/blobs/{digest}", content=WEIGHTS).status_code == 200
        answer = self.call("POST", "/v1/releases", json=self.proposal(model, version))
        assert answer.status_code == 201, answer.text

    def token(self, site: str, **body: Any) -> str:
        answer = self.call("POST", f"/v1/sites/{site}/join-tokens", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def join(self, site: str, node: str = "n1") -> "Node":
        joined = Node(self, site, node)
        answer = joined.ask(self.token(site))
        assert answer.status_code == 200, answer.text
        joined.credential = answer.json()["credential"]
        return joined

    def condition(self, plural: str, name: str, kind: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        document = self.call("GET", f"/v1/resources/{plural}/{name}").json()
        found = {item["type"]: (item["status"], item["reason"]) for item in document["status"]["conditions"]}
        return found[kind]


class Node:
    """A node that does what an agent does, as far as the control plane can see."""

    def __init__(self, fleet: Fleet, site: str, node: str) -> None:
        self.fleet, self.site, self.node = fleet, site, node
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.credential = ""

    def csr(self) -> str:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode()

    def ask(self, token: str) -> httpx.Response:
        """Ask to join."""
        body = {"token": token, "node": self.node, "csr_pem": self.csr()}
        return self.fleet.call("POST", "/v1/join", token="", json=body)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.fleet.call("GET", path, token=self.credential, headers=headers)

    def status(self, **changes: Any) -> dict[str, Any]:
        """A status that says: gateway and engine ready."""
        return {
            "site": self.site,
            "node": self.node,
            "software": "test",
            "started_at": "2026-11-20T12:00:00Z",
            "plan_version": 0,
            "plan_revision": "",
            "routed_version": 0,
            "gateway": {"url": f"http://{self.site}.test", "peer_address": "192.0.2.1:7443", "ready": True},
            "engine": {"ready": True},
            **changes,
        }

    def report(self, **changes: Any) -> httpx.Response:
        return self.fleet.call("PUT", "/v1/nodes/self/status", token=self.credential, json=self.status(**changes))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def release(model: str, version: str) -> ReleaseManifest:
    tensor = Tensor(name="x", datatype="FP32", shape=(-1, 4))
    return ReleaseManifest(
        model=model,
        version=version,
        runtime="onnx",
        task="tensor",
        entrypoint="model.onnx",
        files=(File(path="model.onnx", digest=digest_of(WEIGHTS), size_bytes=len(WEIGHTS)),),
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        created_at="2026-11-20T12:00:00Z",
    )


def ready(model: str, version: str, state: str = "ready", **more: Any) -> dict[str, Any]:
    """A model in a node's status."""
    digest = digest_of(encode_release(release(model, version)))
    return {"model": model, "version": version, "release": digest, "state": state, **more}


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
    return {**document, "spec": spec} if spec else document


class Make:
    """What tests write: manifests and parts of them. A fixture, since test files import nothing of one another."""

    manifest = staticmethod(manifest)
    ready = staticmethod(ready)
    release = staticmethod(release)
    b64 = staticmethod(b64)
    decode = staticmethod(msgspec.json.decode)
    weights = WEIGHTS

    @staticmethod
    def site(name: str, country: str = "DE", **spec: Any) -> dict[str, Any]:
        return manifest("Site", name, country=country, **spec)

    @staticmethod
    def deployment(model: str, version: str, *sites: str, name: str = "") -> dict[str, Any]:
        placement: dict[str, Any] = {"sites": list(sites)} if sites else {"everywhere": True}
        return manifest("Deployment", name or model, model=model, version=version, placement=placement)


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with postgresql_server() as server:
        yield server


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str | None:
    """URL of an empty database; None for the file in the data directory. Suites ask for both by parameters."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def fleet_type() -> type[Fleet]:
    return Fleet


@pytest.fixture
def node_type() -> type[Node]:
    return Node


@pytest.fixture
def fleet(tmp_path: Path, database: str | None) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "control", database)
    try:
        yield made
    finally:
        made.plane.close()


class Process:
    """``python -m nearcast.control`` in a directory."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.url_file = data_dir / "control.json"
        command = [
            sys.executable,
            "-m",
            "nearcast.control",
            "--data-dir",
            str(data_dir),
            "--publish-interval-s",
            "0.05",
        ]
        self.log = data_dir.parent / f"{data_dir.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log)

    def wait_until_ready(self) -> "Process":
        deadline = time.monotonic() + 30
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text())
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                self.info = json.loads(self.url_file.read_text())
                if self.info["pid"] == self.process.pid:
                    return self
            time.sleep(0.02)

    def client(self) -> httpx.Client:
        trust = ssl.create_default_context(cafile=self.info["ca_file"])
        token = Path(self.info["admin_token_file"]).read_text().strip()
        url = f"https://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, verify=trust, headers={"authorization": f"Bearer {token}"}, timeout=60)

    @property
    def port(self) -> int:
        return int(httpx.URL(self.info["url"]).port or 0)

    def end(self, how: signal.Signals) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        return self.process.wait(30)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Starts control planes, and ends them."""
    processes: list[Process] = []

    def start(*arguments: str, directory: str = "c") -> Process:
        processes.append(Process(tmp_path / directory, *arguments))
        return processes[-1]

    yield start
    for process in processes:
        process.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One control plane for all tests of a file, ready."""
    process = Process(tmp_path_factory.mktemp("lasting") / "c")
    try:
        yield process.wait_until_ready()
    finally:
        process.end(signal.SIGKILL)
