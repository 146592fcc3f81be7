"""The client on the real control plane and on the one that unit tests of the CLI use: same calls, same facts."""

import base64
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from nearcast.client import ControlClient, Target
from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unauthenticated
from nearcast.registry.keys import load_or_create_signer
from nearcast.registry.release_list import new_releases_root, new_targets, online_key_of, propose
from nearcast.resources.release import File, ReleaseManifest, Signature, Tensor, encode_release
from unit.cli.fake_control import TOKEN, URL, FakeControl

SITE = {
    "apiVersion": "nearcast.dev/v1alpha1",
    "kind": "Site",
    "metadata": {"name": "frankfurt"},
    "spec": {"country": "DE"},
}
WEIGHTS = b"w" * 2_500_000
DIGEST = f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A control plane in a process of its own."""
    folder = tmp_path_factory.mktemp("control")
    command = [sys.executable, "-m", "nearcast.control", "--data-dir", str(folder), "--publish-interval-s", "0.1"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 60
            while not (folder / "control.json").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            url = json.loads((folder / "control.json").read_text())["url"]
            token, authority = (folder / "admin.token").read_text().strip(), (folder / "ca.pem").read_text()
            yield Target(url=url, token=token, ca_pem=authority)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(params=["fake", "real"])
def client(request: pytest.FixtureRequest) -> Iterator[ControlClient]:
    if request.param == "real":
        with ControlClient(request.getfixturevalue("real")) as found:
            for document in found.resources("sites"):
                found.delete("sites", document["metadata"]["name"])
            yield found
        return
    with ControlClient(Target(url=URL, token=TOKEN), transport=httpx.MockTransport(FakeControl().handle)) as found:
        yield found


def test_apply_creates_updates_and_leaves_alone(client: ControlClient) -> None:
    changed = SITE | {"spec": {"country": "AT"}}
    assert [(item.kind, item.name, item.action) for item in client.apply([SITE], dry_run=True)] == [
        ("Site", "frankfurt", "created")
    ]
    assert client.resources("sites") == []
    assert [item.action for item in client.apply([SITE])] == ["created"]
    assert [item.action for item in client.apply([SITE])] == ["unchanged"]
    [updated] = client.apply([changed])
    assert updated.action == "updated"
    assert any(line.startswith("+") for line in updated.diff.splitlines())
    assert [document["metadata"]["name"] for document in client.resources("sites")] == ["frankfurt"]
    assert [entry["action"] for entry in client.revisions("sites", "frankfurt")][-2:] == ["put", "put"]


def test_a_resource_is_read_with_its_revision_and_deleted_by_it(client: ControlClient) -> None:
    client.apply([SITE])
    before = client.resource("sites", "frankfurt")
    assert before.document["spec"] == SITE["spec"]
    assert before.revision
    client.apply([SITE | {"spec": {"country": "AT"}}])
    with pytest.raises(Conflict):
        client.delete("sites", "frankfurt", revision=before.revision)
    client.delete("sites", "frankfurt", revision=client.resource("sites", "frankfurt").revision)
    for call in (client.resource, client.delete):
        with pytest.raises(NotFound):
            call("sites", "frankfurt")


def test_a_blob_is_sent_once_and_checked(client: ControlClient, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    (tmp_path / "other").write_bytes(b"x" + WEIGHTS[1:])
    sent: list[int] = []
    assert not client.has_blob(DIGEST)
    with pytest.raises(IntegrityError):
        client.put_blob(DIGEST, tmp_path / "other")
    assert not client.has_blob(DIGEST)
    client.put_blob(DIGEST, tmp_path / "weights", progress=sent.append)
    assert client.has_blob(DIGEST)
    assert sum(sent) == len(WEIGHTS)
    client.put_blob(DIGEST, tmp_path / "weights")


def test_without_a_token_nothing_opens(client: ControlClient) -> None:
    stranger = ControlClient(
        Target(url=client.target.url, token="wrong", ca_pem=client.target.ca_pem),
        transport=httpx.MockTransport(FakeControl().handle) if client.target.url == URL else None,
    )
    with stranger, pytest.raises(Unauthenticated):
        stranger.resources("sites")


def test_a_join_token_is_for_a_site_that_exists(client: ControlClient) -> None:
    with pytest.raises(NotFound):
        client.join_token("nowhere")


# --- only the real one


@pytest.fixture
def control(real: Target) -> Iterator[ControlClient]:
    with ControlClient(real) as found:
        yield found


def test_the_fleet_at_a_glance(control: ControlClient) -> None:
    control.apply([SITE])
    status = control.status()
    assert status.control.url == control.target.url
    assert [(site.name, site.country, site.ready) for site in status.sites] == [("frankfurt", "DE", False)]
    assert {condition.type for condition in status.sites[0].conditions} >= {"Connected", "GatewayReady"}
    assert control.is_ready()
    assert control.nodes() == []


def test_a_manifest_that_is_refused_changes_nothing(control: ControlClient) -> None:
    with pytest.raises(InvalidInput, match="contry"):
        control.apply([SITE | {"metadata": {"name": "b"}}, SITE | {"spec": {"contry": "DE"}}])
    assert "b" not in {document["metadata"]["name"] for document in control.resources("sites")}


def test_releases_from_the_root_to_the_second_push(control: ControlClient, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    root_signer, releaser = (load_or_create_signer(tmp_path / name) for name in ("root", "releaser"))
    online = online_key_of(base64.b64decode(control.trust().plans_root or ""))
    root = new_releases_root(
        root_signers=[root_signer], releaser_keys=[releaser.public_key], online_key=online, now=now
    )
    with pytest.raises(NotFound):
        control.releases_targets()
    control.start_releases(root, new_targets(releaser, now=now))
    assert base64.b64decode(control.trust().releases_root or "") == root
    (tmp_path / "weights").write_bytes(WEIGHTS)
    control.put_blob(DIGEST, tmp_path / "weights")
    tensor = Tensor(name="x", datatype="FP32", shape=(-1, 2))
    manifest = ReleaseManifest(
        model="m",
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="model.onnx",
        files=(File(path="model.onnx", digest=DIGEST, size_bytes=len(WEIGHTS)),),
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        created_at="2026-11-20T10:00:00Z",
    )
    before = control.releases_targets()
    proposed = propose(root, before.data, manifest, releaser, now=now)
    with pytest.raises(Conflict):
        control.add_release(proposed, encode_release(manifest), expected_version=before.version + 7)
    stranger = load_or_create_signer(tmp_path / "stranger")
    with pytest.raises((IntegrityError, InvalidInput)):
        control.add_release(
            propose(root, before.data, manifest, stranger, now=now),
            encode_release(manifest),
            expected_version=before.version,
        )
    control.add_release(proposed, encode_release(manifest), expected_version=before.version)
    [entry] = control.releases()
    assert (entry.model, entry.version, entry.manifest) == ("m", "1", manifest)
    assert control.releases_targets().version == before.version + 1
