"""Everything that a node keeps on its own disk, changed while it was down: not believed at boot, told, and healed."""

import json

import msgspec
import pytest
from tuf.api.metadata import Root

from nearcast.agent.states import Fetched, FetchFailed
from nearcast.registry.mirror import Kept
from nearcast.resources.release import encode_release, release_digest
from scenario.attacked_node import Node, assert_recovers
from scenario.attacks import KINDS, resigned
from scenario.registry_world import World

DISK = ["roots", "timestamp", "snapshot", "targets", "plan"]


def changed(kept: Kept, part: str, how: str) -> Kept:
    """A copy in which one part is not what was verified."""
    value = getattr(kept, part)
    data = value[0] if part == "roots" else value or b""
    kind = {"roots": Root, **KINDS}.get(part)
    other = {
        "arbitrary": b"\x00not what was here",
        "bit": bytes([*data[:-9], data[-9] ^ 1, *data[-8:]]),
        "resigned": resigned(kind, data) if kind else encode_plan_for_sin(data),
        "other part": kept.snapshot if part != "snapshot" else kept.timestamp,
        "empty": b"",
    }[how]
    return msgspec.structs.replace(kept, **{part: (other,) if part == "roots" else other})


def encode_plan_for_sin(data: bytes) -> bytes:
    document = json.loads(data)
    document["site"]["name"] = "sin"
    return json.dumps(document).encode()


@pytest.mark.parametrize("how", ["arbitrary", "bit", "resigned", "other part", "empty"])
@pytest.mark.parametrize("part", DISK)
def test_a_changed_plan_on_disk(node: Node, part: str, how: str) -> None:
    """Not believed at boot; told, also while there is no uplink; healed by the next poll that reaches somebody."""
    world = node.world
    file = world.folder / "trust" / "plan.json"
    kept = msgspec.json.decode(file.read_bytes(), type=Kept)
    file.write_bytes(msgspec.json.encode(changed(kept, part, how)))
    world.mirror.down = True
    reborn = Node(world, world.node())
    stored = reborn.puller.stored_plan()
    assert stored is not None
    reborn.take(stored)
    reborn.poll()
    ((about, reason, message),) = reborn.told()
    assert (about, reason) == ("PlanTrusted", "TrustRefused"), message
    assert "no route to host" in message
    world.mirror.down = False
    assert_recovers(reborn)


@pytest.mark.parametrize("part", ["roots", "timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("how", ["arbitrary", "bit", "resigned", "empty"])
def test_changed_releases_on_disk(node: Node, part: str, how: str) -> None:
    world = node.world
    assert isinstance(node.obtain(), Fetched)
    file = world.folder / "trust" / "releases.json"
    kept = msgspec.json.decode(file.read_bytes(), type=Kept)
    file.write_bytes(msgspec.json.encode(changed(kept, part, how)))
    assert_damage_is_told_and_healed(world, "TrustRefused")


def test_a_changed_manifest_on_disk(node: Node) -> None:
    world = node.world
    assert isinstance(node.obtain(), Fetched)
    digits = release_digest(world.manifest("2")).removeprefix("sha256:")
    file = world.folder / "trust" / "manifests" / f"{digits}.json"
    file.write_bytes(encode_release(world.manifest("2", b"malware")))
    assert_damage_is_told_and_healed(world, "TrustRefused")


@pytest.mark.parametrize("where", ["file", "file and blob", "one file more", "link", "nothing"])
def test_changed_files_on_disk(node: Node, where: str) -> None:
    """Healed from the node's own blobs where those are whole, told where they are not and nobody can be reached."""
    world = node.world
    assert isinstance(node.obtain(), Fetched)
    folder = world.folder / "models" / release_digest(world.manifest("2")).removeprefix("sha256:")
    file = folder / "model.onnx"
    if where == "one file more":
        (folder / "extra.so").write_bytes(b"malware")
    else:
        file.unlink()
    if where.startswith("file"):
        file.write_bytes(b"malware")
    elif where == "link":
        (world.folder / "elsewhere").write_bytes(b"weights")
        file.symlink_to(world.folder / "elsewhere")
    if where == "file and blob":
        (blob,) = [path for path in (world.folder / "models" / ".blobs").iterdir() if path.read_bytes() == b"weights"]
        blob.chmod(0o644)
        blob.write_bytes(b"malware")
        assert_damage_is_told_and_healed(world, "DigestMismatch")
    world.mirror.down = True
    assert isinstance(Node(world, world.node()).obtain(), Fetched)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert file.read_bytes() == b"weights"
    assert not file.is_symlink()


def assert_damage_is_told_and_healed(world: World, reason: str) -> None:
    world.mirror.down = True
    reborn = Node(world, world.node())
    outcome = reborn.obtain()
    assert isinstance(outcome, FetchFailed)
    ((about, found, message),) = reborn.told()
    assert (about, found) == ("m@2", reason), message
    assert "no route to host" in message
    world.mirror.down = False
    assert_recovers(reborn)
