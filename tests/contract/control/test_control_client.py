"""The client that the CLI and scripts use, against the real process: they mean the same by every answer."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from nearcast.client import ControlClient, Target
from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound, Unauthenticated
from nearcast.registry.release_list import new_releases_root, new_targets, online_key_of, propose
from nearcast.resources.join import decode_token
from nearcast.resources.release import encode_release

Make = Any


@pytest.fixture
def client(started: Any) -> Iterator[ControlClient]:
    process = started().wait_until_ready()
    token = Path(process.info["admin_token_file"]).read_text().strip()
    target = Target(process.info["url"], token=token, ca_pem=Path(process.info["ca_file"]).read_text())
    with ControlClient(target) as made:
        yield made


def test_a_fleet_is_made_by_the_client(client: ControlClient, make: Make, tmp_path: Path) -> None:
    assert client.is_ready()
    now = datetime.now(UTC)
    releaser, trust = CryptoSigner.generate_ed25519(), client.trust()
    assert trust.releases_root is None
    with pytest.raises(NotFound):
        client.releases_targets()
    root = new_releases_root(
        root_signers=[CryptoSigner.generate_ed25519()],
        releaser_keys=[releaser.public_key],
        online_key=online_key_of(base64.b64decode(trust.plans_root or "")),
        now=now,
    )
    targets = new_targets(releaser, now=now)
    client.start_releases(root, targets)
    client.start_releases(root, targets)
    with pytest.raises(Conflict):
        client.start_releases(root, new_targets(releaser, now=datetime(2027, 1, 1, tzinfo=UTC)))

    manifest = make.release("m", "1")
    weights = tmp_path / "model.onnx"
    weights.write_bytes(make.weights)
    digest = manifest.files[0].digest
    assert not client.has_blob(digest)
    seen: list[int] = []
    client.put_blob(digest, weights, progress=seen.append)
    assert client.has_blob(digest)
    assert sum(seen) == len(make.weights)
    weights.write_bytes(b"other")
    with pytest.raises(IntegrityError):
        client.put_blob(digest, weights)

    held = client.releases_targets()
    proposal = propose(root, held.data, manifest, releaser, now=now)
    client.add_release(proposal, encode_release(manifest), expected_version=held.version)
    assert [item.manifest for item in client.releases()] == [manifest]

    site, deployment = make.site("fra"), make.deployment("m", "1", "fra")
    assert [item.action for item in client.apply([site, deployment], dry_run=True)] == ["created", "created"]
    assert client.resources("sites") == []
    assert [item.action for item in client.apply([deployment, site])] == ["created", "created"]
    stored = client.resource("deployments", "m")
    assert stored.revision == client.apply([deployment])[0].revision
    assert len(client.revisions("deployments", "m")) == 1
    token = decode_token(client.join_token("fra", ttl_s=60))
    assert token.releases_root_sha256 == hashlib.sha256(root).hexdigest()
    status = client.status()
    assert [(view.name, view.ready, view.gateway_url) for view in status.sites] == [("fra", False, None)]
    assert [item.type for item in status.sites[0].conditions] == ["Connected", "GatewayReady"]
    assert client.explain("m", "fra").verdict == "no_place_ready"
    assert client.nodes() == []

    with pytest.raises(Conflict):
        client.delete("deployments", "m", revision="sha256:" + "0" * 64)
    with pytest.raises(InvalidInput, match="frra"):
        client.apply([make.deployment("m", "1", "frra")])
    client.delete("deployments", "m", revision=stored.revision)
    with pytest.raises(NotFound):
        client.resource("deployments", "m")
    stranger = ControlClient(Target(client.target.url, token="nca_x", ca_pem=client.target.ca_pem))
    with stranger, pytest.raises(Unauthenticated):
        stranger.status()
