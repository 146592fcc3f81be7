"""One node without a control plane: its plans and releases lie in a folder, signed by keys of the test.

The agent is the real command in a process of its own; so are its engine and its Envoy.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from securesystemslib.signer import CryptoSigner

from e2e.tiny_models import adder
from nearcast.agent.book import ProcessRecord, is_alive
from nearcast.agent.identity import Membership, load_or_make_key, signing_request
from nearcast.agent.layout import layout_of
from nearcast.control.authority import load_or_create_authority
from nearcast.registry.blobs import BlobStore, blob_path
from nearcast.registry.objects import open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.release import describe
from nearcast.registry.release_list import new_releases_root, new_targets, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan
from nearcast.resources.release import ReleaseManifest, encode_release, release_digest
from nearcast.resources.status import NodeStatus

FLEET = "test.nearcast"
SITE = SiteFacts(name="frankfurt", tier="edge", country="DE", jurisdictions=("EEA", "EU"))
NAME = "frankfurt-1"


def now() -> datetime:
    return datetime.now(UTC)


class Depot:
    """A repository in a folder, with everybody's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.scratch = folder / "scratch"
        self._online, self._releaser = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
        roots = [CryptoSigner.generate_ed25519()]
        online = self._online.public_key
        self.plans_root = new_plans_root(root_signers=roots, online_key=online, now=now())
        self.releases_root = new_releases_root(
            root_signers=roots, releaser_keys=[self._releaser.public_key], online_key=online, now=now()
        )
        objects = open_objects(str(self.folder))
        self._blobs = BlobStore(objects)
        self._releases = ReleasesRepository(objects, self._blobs, self._online, now)
        self._releases.initialise(self.releases_root, new_targets(self._releaser, now=now()))
        self._plans = PlansRepository(objects, self.plans_root, self._online, now)
        self._version = 0
        self.manifests: dict[str, ReleaseManifest] = {}

    def push(self, model: str, version: str, constant: float) -> ReleaseManifest:
        """Release a model that adds ``constant``."""
        described = describe(
            adder(self.scratch / f"{model}-{version}", constant), model=model, version=version, now=now()
        )
        for file in described.manifest.files:
            self._blobs.put(file.digest, [described.files[file.path].read_bytes()])
        targets, expected = self._releases.targets()
        manifest = described.manifest
        proposal = propose(self.releases_root, targets, manifest, self._releaser, now=now())
        self._releases.accept(proposal, encode_release(manifest), expected)
        self.manifests[f"{model}@{version}"] = manifest
        return manifest

    def plan(self, *names: str) -> SitePlan:
        """Publish a plan with these ``model@version``."""
        self._version += 1
        models = tuple(
            PlannedModel(
                model=manifest.model,
                version=manifest.version,
                release=release_digest(manifest),
                deployment=manifest.model,
            )
            for manifest in (self.manifests[name] for name in names)
        )
        catalog = tuple(sorted({manifest.model for manifest in self.manifests.values()}))
        plan = SitePlan(
            fleet=FLEET, site=SITE, version=self._version, revision=f"r{self._version}", models=models, catalog=catalog
        )
        self._plans.publish(plan)
        return plan

    def tamper(self, name: str) -> Path:
        """Flip a bit in the first blob of a release."""
        path = self.folder / blob_path(self.manifests[name].files[0].digest)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        return path


class AgentNode:
    """A data directory of a node that has joined, and the agent on it."""

    def __init__(self, folder: Path, depot: Depot) -> None:
        self.layout = layout_of(folder / "node")
        self.layout.make()
        authority = load_or_create_authority(folder / "authority", FLEET, now())
        csr = signing_request(load_or_make_key(self.layout), NAME)
        self.layout.certificate.write_text(authority.issue_node(csr, SITE.name, NAME, now()).pem)
        self.layout.authority.write_text(authority.pem)
        self.layout.releases_root.write_bytes(depot.releases_root)
        self.layout.plans_root.write_bytes(depot.plans_root)
        membership = Membership(
            fleet=FLEET,
            site=SITE.name,
            node=NAME,
            control="",
            repository=depot.folder.as_uri(),
            ca_sha256=authority.sha256,
            releases_root_sha256=hashlib.sha256(depot.releases_root).hexdigest(),
            plans_root_sha256=hashlib.sha256(depot.plans_root).hexdigest(),
        )
        self.layout.node.write_bytes(msgspec.json.encode(membership))
        self._log = (folder / "agent.log").open("ab")
        self.log_file = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    # --- the process ---

    def start(self, *options: str) -> None:
        """Start the agent."""
        command = [sys.executable, "-m", "nearcast.agent", "--data-dir", str(self.layout.data_dir)]
        self.process = subprocess.Popen(
            [*command, "--poll-s", "0.2", "--status-s", "1", *options], stdout=self._log, stderr=self._log
        )

    def kill_agent(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def clean_up(self) -> None:
        """Nothing of this node runs afterwards."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
            if self.process.poll() is None:
                self.kill_agent()
        for record in self.records().values():
            if is_alive(record):
                os.kill(record.pid, signal.SIGKILL)
        self._log.close()

    def records(self) -> dict[str, ProcessRecord]:
        """The processes in run.json."""
        try:
            return msgspec.json.decode(self.layout.processes.read_bytes(), type=dict[str, ProcessRecord])
        except FileNotFoundError:
            return {}

    def pid(self, name: str) -> int:
        return self.records()[name].pid

    # --- what it says ---

    def status(self) -> NodeStatus | None:
        try:
            return msgspec.json.decode(self.layout.status.read_bytes(), type=NodeStatus)
        except FileNotFoundError:
            return None

    def until(self, what: str, holds: Callable[[NodeStatus], object], timeout_s: float = 40.0) -> NodeStatus:
        """Wait until the status says so."""
        deadline = time.monotonic() + timeout_s
        status = None
        while time.monotonic() < deadline:
            status = self.status()
            if status is not None and holds(status):
                return status
            assert self.process is None or self.process.poll() is None, self.story(f"the agent ended: {what}")
            time.sleep(0.05)
        raise AssertionError(self.story(f"not within {timeout_s} s: {what}; status {status}"))

    def ready(self, *names: str, timeout_s: float = 40.0) -> NodeStatus:
        """Wait until exactly these ``model@version`` are ready, and nothing else is here."""

        def holds(status: NodeStatus) -> bool:
            found = {f"{item.model}@{item.version}": item.state for item in status.models}
            return status.gateway.ready and found == dict.fromkeys(names, "ready")

        return self.until(f"{names} ready", holds, timeout_s)

    def story(self, what: str) -> str:
        """A failure, with the end of the logs."""
        tails = []
        for path in (self.log_file, self.layout.engine_log, self.layout.gateway_log):
            if path.exists():
                tails += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-25:]]
        return "\n".join([what, *tails])

    # --- asking ---

    @property
    def url(self) -> str:
        status = self.status()
        assert status is not None
        return status.gateway.url

    def answers(self, model: str) -> bool:
        """Whether ``model`` is answered now."""
        return httpx.post(f"{self.url}/v2/models/{model}/infer", json=BODY, timeout=10.0).status_code == 200

    def ask(self, model: str, timeout_s: float = 10.0) -> tuple[str, float]:
        """``model@version`` that answered, and what it added."""
        return answer_of(httpx.post(f"{self.url}/v2/models/{model}/infer", json=BODY, timeout=timeout_s))


BODY: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.0, 0.0, 0.0, 0.0]}]}


def answer_of(answer: httpx.Response) -> tuple[str, float]:
    assert answer.status_code == 200, (answer.status_code, answer.text)
    return answer.headers["x-nearcast-model"], json.loads(answer.text)["outputs"][0]["data"][0]


class Traffic:
    """Requests one after another from a few threads; every answer is kept."""

    def __init__(self, url: str, model: str, threads: int = 3) -> None:
        self._url = f"{url}/v2/models/{model}/infer"
        self._ended = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def _ask(self) -> None:
        with httpx.Client(timeout=30.0) as client:
            while not self._ended.is_set():
                try:
                    answer = client.post(self._url, json=BODY)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answers.append(answer.headers["x-nearcast-model"])
                else:
                    self.failures.append(f"{answer.status_code} {answer.text[:200]}")

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(40)


@contextlib.contextmanager
def agent_node(folder: Path, depot: Depot) -> Iterator[AgentNode]:
    """A node that is cleaned up whatever happens."""
    node = AgentNode(folder, depot)
    try:
        yield node
    finally:
        node.clean_up()
