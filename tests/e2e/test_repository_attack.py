"""A repository in the wrong hands, under a real node that serves: nothing is believed, everything is answered.

One agent with its Envoy and its engine; the repository between it and its fleet is turned against it while a load runs.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.agent_node import AgentNode, Depot, Traffic, agent_node
from nearcast.resources.status import NodeStatus

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Depot, AgentNode, Path]]:
    folder = tmp_path_factory.mktemp("attack")
    depot = Depot(folder)
    depot.push("m", "1", 1.0)
    depot.push("m", "2", 2.0)
    depot.plan("m@1")
    old = folder / "old"
    shutil.copytree(depot.folder, old)
    depot.plan("m@1")
    with agent_node(folder / "node", depot) as node:
        node.start()
        node.ready("m@1")
        yield depot, node, old


def metadata(depot: Depot, pattern: str) -> Path:
    return max(
        (depot.folder / "plans" / "frankfurt" / "metadata").glob(pattern), key=lambda path: path.stat().st_mtime_ns
    )


def put(files: dict[Path, bytes]) -> None:
    """Write them, the timestamp last: it names the others."""
    for path in sorted(files, key=lambda path: path.name == "timestamp.json"):
        path.write_bytes(files[path])


def is_refused(status: NodeStatus, word: str, role: str) -> bool:
    return any(
        item.type == "PlanTrusted" and item.reason == "TrustRefused" and f"{word} ({role})" in item.message
        for item in status.conditions
    )


@pytest.mark.parametrize(
    ("attack", "word", "role"),
    [
        ("rollback", "rollback", "timestamp"),
        ("garbage", "arbitrary bytes", "timestamp"),
        ("endless", "endless data", "timestamp"),
        ("another purpose", "signature", "targets"),
    ],
)
def test_a_hostile_repository_is_told_and_costs_no_request(
    world: tuple[Depot, AgentNode, Path], attack: str, word: str, role: str
) -> None:
    depot, node, old = world
    timestamp = metadata(depot, "timestamp.json")
    honest = {path: path.read_bytes() for path in timestamp.parent.glob("*.json")}
    releases = depot.folder / "releases" / "metadata"
    forged = {
        "rollback": {timestamp: (old / timestamp.relative_to(depot.folder)).read_bytes()},
        "garbage": {timestamp: b"\x00\xff" * 100},
        "endless": {timestamp: b"a" * (4 << 20)},
        # All of it honest, fresh, and signed by the same online key: but the metadata of releases.
        "another purpose": {
            timestamp.parent / path.name: path.read_bytes()
            for path in releases.glob("*.json")
            if not path.name.endswith("root.json")
        },
    }[attack]
    with Traffic(node.url, "m") as traffic:
        put(forged)
        try:
            status = node.until(f"{attack} is told", lambda status: bool(status.conditions))
            assert is_refused(status, word, role), status.conditions
            assert {(item.version, item.state) for item in status.models} == {("1", "ready")}
        finally:
            put(honest)
        node.until("the honest repository is believed again", lambda status: not status.conditions)
    assert traffic.failures == []
    assert set(traffic.answers) == {"m@1"}


def test_a_tampered_file_is_refused_and_the_old_version_serves(world: tuple[Depot, AgentNode, Path]) -> None:
    depot, node, _ = world
    digest = depot.manifests["m@2"].files[0].digest.removeprefix("sha256:")
    (blob,) = [path for path in depot.folder.rglob(digest) if path.is_file()]
    honest = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    with Traffic(node.url, "m") as traffic:
        depot.plan("m@2")
        status = node.until(
            "the refusal", lambda status: any(item.reason == "DigestMismatch" for item in status.models)
        )
        (failed,) = [item for item in status.models if item.version == "2"]
        assert "tampered (blob)" in failed.message
        assert {item.state for item in status.models if item.version == "1"} == {"ready"}
        blob.write_bytes(honest)
        depot.plan("m@2")
        node.ready("m@2")
    assert traffic.failures == []
    assert set(traffic.answers) == {"m@1", "m@2"}
