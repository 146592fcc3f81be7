"""A node without a network serves what it verified once, and notices what was changed on its disk."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from nearcast.errors import IntegrityError, Unavailable
from scenario.registry_world import NoNetwork, Settled, World


def test_boot_without_network_years_later(settled: Settled) -> None:
    world, _, plan = settled
    world.now += timedelta(days=900)
    node = world.node(fetch=NoNetwork())
    assert node.verified_plan() == plan
    named = plan.models[0]
    assert node.verified_release(named.model, named.version, named.release).version == "1"


def test_a_node_that_never_polled_has_no_plan(world: World) -> None:
    assert world.node(fetch=NoNetwork()).verified_plan() is None


def test_installing_needs_fresh_metadata_where_serving_does_not(settled: Settled) -> None:
    world, node, plan = settled
    named = plan.models[0]
    world.now += timedelta(days=30)
    world.mirror.down = True
    with pytest.raises(Unavailable):
        node.release(named.model, named.version, named.release)
    assert node.verified_release(named.model, named.version, named.release).model == "m"


def change_in(document: dict[str, object], field: str) -> None:
    """Flip one bit in the middle of a base64 field."""
    data = bytearray(base64.b64decode(str(document[field])))
    data[len(data) // 2] ^= 0x02
    document[field] = base64.b64encode(bytes(data)).decode()


@pytest.mark.parametrize("field", ["timestamp", "snapshot", "targets", "plan"])
def test_a_changed_copy_of_a_plan_is_noticed_offline_and_healed_online(settled: Settled, field: str) -> None:
    world, node, _ = settled
    file = world.folder / "trust" / "plan.json"
    document = json.loads(file.read_bytes())
    change_in(document, field)
    file.write_text(json.dumps(document))
    with pytest.raises(IntegrityError):
        world.node(fetch=NoNetwork()).verified_plan()
    assert node.poll_plan() is not None
    assert world.node(fetch=NoNetwork()).verified_plan() == world.plans.latest("fra")


@pytest.mark.parametrize(
    "damage",
    [lambda plan: b"no JSON" + plan, lambda plan: plan.replace(b'"version":', b'"version":99', 1), lambda plan: b"{}"],
    ids=["unreadable", "a higher version", "another document"],
)
def test_a_damaged_plan_keeps_no_good_one_out(settled: Settled, damage: Callable[[bytes], bytes]) -> None:
    world, node, plan = settled
    while node.poll_plan() is not None:  # up to date: nothing newer would heal it by itself
        pass
    file = world.folder / "trust" / "plan.json"
    document = json.loads(file.read_bytes())
    document["plan"] = base64.b64encode(damage(base64.b64decode(document["plan"]))).decode()
    file.write_text(json.dumps(document))
    healed = node.poll_plan()
    assert healed is not None
    assert healed == world.node(fetch=NoNetwork()).verified_plan() == world.plans.latest("fra")
    assert healed.site == plan.site


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 4096])
def test_an_unreadable_copy_is_noticed_offline_and_healed_online(settled: Settled, content: bytes) -> None:
    world, node, _ = settled
    (world.folder / "trust" / "plan.json").write_bytes(content)
    with pytest.raises(IntegrityError, match="changed on disk"):
        world.node(fetch=NoNetwork()).verified_plan()
    assert node.poll_plan() is not None


def test_a_plan_that_an_intruder_signed_with_an_own_root_is_noticed(settled: Settled) -> None:
    world, _, _ = settled
    evil = World(world.folder / "evil")
    evil.plans.publish(evil.plan(99))
    evil.node(folder="trust").poll_plan()
    forged = (world.folder / "evil" / "trust" / "plan.json").read_bytes()
    (world.folder / "trust" / "plan.json").write_bytes(forged)
    with pytest.raises(IntegrityError, match="foreign root"):
        world.node(fetch=NoNetwork()).verified_plan()


def test_a_changed_manifest_on_disk_is_noticed_offline_and_healed_online(settled: Settled) -> None:
    world, node, plan = settled
    named = plan.models[0]
    file = world.folder / "trust" / "manifests" / f"{named.release.removeprefix('sha256:')}.json"
    file.write_bytes(file.read_bytes().replace(b"model.onnx", b"other.onnx"))
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.verified_release(named.model, named.version, named.release)
    assert node.release(named.model, named.version, named.release).entrypoint == "model.onnx"
    assert node.verified_release(named.model, named.version, named.release).entrypoint == "model.onnx"
