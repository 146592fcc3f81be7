"""A mirror that does what attackers do, and keys in the wrong hands.

Each attack ends in an IntegrityError that names it, and leaves what the node believed before untouched.
"""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile, Targets

from nearcast.errors import IntegrityError, NotFound, Unavailable
from nearcast.registry.client import TrustedRepository
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.release_list import new_releases_root, propose
from nearcast.registry.repository import SignedFolder
from nearcast.registry.trust import Lifetimes, next_root, signed_bytes
from nearcast.resources.plan import SiteFacts, encode_plan
from nearcast.resources.release import encode_release, release_digest
from nearcast.resources.revision import digest_of
from scenario.registry_world import BEGIN, NoNetwork, Settled, World, assert_nothing_changed


def test_rollback(settled: Settled) -> None:
    world, node, _ = settled
    old = world.copy_of_store()
    node.poll_plan()
    world.plans.publish(world.plan(7))
    node.poll_plan()
    world.mirror.objects = old
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()
    assert node.verified_plan() == world.plan(7)


@pytest.mark.parametrize("speaks_etag", [True, False])
def test_freeze(settled: Settled, speaks_etag: bool) -> None:
    world, node, _ = settled
    world.mirror.speaks_etag = speaks_etag
    newest = node.poll_plan()
    world.mirror.objects = world.copy_of_store()
    world.now += timedelta(days=6)
    assert node.poll_plan() is None
    world.now += timedelta(days=2)
    with pytest.raises(IntegrityError, match="freeze"):
        node.poll_plan()
    with pytest.raises(IntegrityError, match="freeze"):
        node.refresh_releases()
    assert node.verified_plan() == newest
    world.plans.renew(world.now)
    world.mirror.objects = world.store
    assert node.poll_plan() is None


def test_a_clock_that_is_set_back_does_not_revive_what_has_expired(settled: Settled) -> None:
    world, node, _ = settled
    world.now += timedelta(days=20)
    world.plans.renew(world.now)  # but nobody hears of newer releases: the mirror holds them back
    assert node.poll_plan() is not None
    second = release_digest(world.manifest("2"))
    with pytest.raises(IntegrityError, match="freeze"):
        node.release("m", "2", second)
    world.now = BEGIN + timedelta(days=1)
    with pytest.raises(IntegrityError, match="freeze"):
        node.release("m", "2", second)
    with pytest.raises(IntegrityError, match="freeze"):
        world.node().release("m", "2", second)


def test_mix_and_match_of_honest_files(settled: Settled) -> None:
    world, node, plan = settled
    snapshot = world.store.read("plans/fra/metadata/5.snapshot.json") or b""
    world.mirror.forge("plans/fra/metadata/6.snapshot.json", snapshot)
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.poll_plan()
    world.mirror.forged.clear()
    targets = world.store.read("plans/fra/metadata/5.targets.json") or b""
    world.mirror.forge("plans/fra/metadata/6.targets.json", targets)
    with pytest.raises(IntegrityError, match="changed bytes"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


def test_metadata_of_another_site_neither_deceives_nor_poisons(settled: Settled) -> None:
    world, node, plan = settled
    for version in range(50, 60):
        world.plans.publish(world.plan(version, site="sin"))
    world.mirror.moved = ("plans/fra/", "plans/sin/")
    with pytest.raises(IntegrityError, match="wrong site"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("change", [{"fleet": "evil"}, {"site": SiteFacts(name="sin", tier="edge", country="SG")}])
def test_a_signed_plan_for_somebody_else(settled: Settled, change: dict[str, object]) -> None:
    world, node, _ = settled
    document = json.loads(encode_plan(world.plan(9)))
    if "fleet" in change:
        document["fleet"] = "evil"
    else:
        document["site"]["name"] = "sin"
    sign_target(world, "fra.json", json.dumps(document).encode())
    with pytest.raises(IntegrityError, match="wrong site"):
        node.poll_plan()


def test_an_older_plan_under_newer_metadata(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    sign_target(world, "fra.json", encode_plan(world.plan(4)))
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()


def test_another_plan_under_the_same_version(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    sign_target(world, "fra.json", encode_plan(world.plan(6)))
    with pytest.raises(IntegrityError, match="rollback"):
        node.poll_plan()


def test_a_signed_plan_of_an_unknown_form(settled: Settled) -> None:
    world, node, _ = settled
    sign_target(world, "fra.json", b'{"schema": "something/else"}')
    with pytest.raises(IntegrityError, match="not a plan that we understand"):
        node.poll_plan()


def sign_target(world: World, path: str, data: bytes) -> None:
    """What a stolen online key can do: sign any target of the plans."""
    folder = SignedFolder(world.store, "plans/fra", world.online, world.clock, Lifetimes())
    target = TargetFile.from_data(path, data, ["sha256"])
    world.store.replace(f"plans/fra/targets/{target.hashes['sha256']}.{path}", data)
    version = folder.free_targets_version(7)
    targets = Targets(version=version, expires=world.now + timedelta(days=9), targets={path: target})
    folder.publish(signed_bytes(targets, [world.online]), version, folder.current(), minimum=version)


FILES = {
    "root": "plans/fra/metadata/2.root.json",
    "timestamp": "plans/fra/metadata/timestamp.json",
    "snapshot": "plans/fra/metadata/6.snapshot.json",
    "targets": "plans/fra/metadata/6.targets.json",
    "plan": "plans/fra/targets/{sha}.fra.json",
}


def path_of(world: World, file: str) -> str:
    plan = encode_plan(world.plans.latest("fra") or world.plan(0))
    return FILES[file].format(sha=digest_of(plan).removeprefix("sha256:"))


@pytest.mark.parametrize("file", list(FILES))
@pytest.mark.parametrize(
    "bytes_",
    [b"", b"\x00", b"null", b"[]", b"{}", b'{"signed": {}, "signatures": []}', b"[" * 10_000, b"\xff\xfe" * 500],
    ids=["empty", "nul", "null", "list", "object", "no-type", "deep", "not-utf8"],
)
def test_arbitrary_bytes(settled: Settled, file: str, bytes_: bytes) -> None:
    world, node, plan = settled
    world.mirror.forge(path_of(world, file), bytes_)
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.97])
def test_one_changed_byte(settled: Settled, file: str, where: float) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    data = bytearray(world.store.read(path) or b"")
    data[int(len(data) * where)] ^= 0x01
    world.mirror.forge(path, bytes(data))
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
def test_truncated(settled: Settled, file: str) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    data = world.store.read(path) or b""
    world.mirror.forge(path, data[: len(data) // 2])
    with pytest.raises(IntegrityError):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", list(FILES))
def test_endless_data(settled: Settled, file: str) -> None:
    world, node, plan = settled
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            assert sent < 1 << 24, "nobody stops reading"
            yield b"a" * (1 << 16)

    world.mirror.forged[path_of(world, file)] = endless
    with pytest.raises(IntegrityError, match="endless data"):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


@pytest.mark.parametrize("file", [name for name in FILES if name != "root"])
def test_missing_files_mean_wait(settled: Settled, file: str) -> None:
    world, node, plan = settled
    path = path_of(world, file)
    pinned = world.copy_of_store()
    pinned.delete(path)
    world.mirror.objects = pinned
    with pytest.raises(Unavailable):
        node.poll_plan()
    assert_nothing_changed(world, node, plan)


def test_no_network_keeps_everything(settled: Settled) -> None:
    world, node, plan = settled
    world.mirror.down = True
    with pytest.raises(Unavailable):
        node.poll_plan()
    with pytest.raises(Unavailable):
        node.release("m", "2", release_digest(world.manifest("2")))
    assert node.verified_plan() == plan


def test_a_plan_can_only_choose_among_releases(settled: Settled) -> None:
    world, node, _ = settled
    forged = world.manifest("3", b"malware")
    world.store.replace(
        f"releases/targets/m/{release_digest(forged).removeprefix('sha256:')}.3.json", encode_release(forged)
    )
    with pytest.raises(IntegrityError, match="unsigned release"):
        node.release("m", "3", release_digest(forged))
    other = world.manifest("2", b"other weights")
    with pytest.raises(IntegrityError, match="wrong release"):
        node.release("m", "2", release_digest(other))


def test_a_stolen_online_key_cannot_release(settled: Settled) -> None:
    world, node, _ = settled
    forged = world.manifest("3", b"malware")
    root = new_releases_root(
        root_signers=[world.online],
        releaser_keys=[world.online.public_key],
        online_key=world.online.public_key,
        now=world.now,
    )
    targets, version = world.releases.targets()
    signed = json.loads(targets)
    data = encode_release(forged)
    target = TargetFile.from_data("m/3.json", data, ["sha256"])
    listing = Targets(version=version + 1, expires=world.now + timedelta(days=9), targets={"m/3.json": target})
    assert signed["signed"]["version"] == version
    folder = SignedFolder(world.store, "releases", world.online, world.clock, Lifetimes())
    folder.publish(signed_bytes(listing, [world.online]), version + 1, folder.current())
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.release("m", "3", release_digest(forged))
    world.mirror.forge("releases/metadata/2.root.json", root)
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.release("m", "3", release_digest(forged))


def test_a_changed_manifest(settled: Settled) -> None:
    world, node, _ = settled
    digest = release_digest(world.manifest("2"))
    path = f"releases/targets/m/{digest.removeprefix('sha256:')}.2.json"
    world.mirror.forge(path, encode_release(world.manifest("2", b"malware")))
    with pytest.raises(IntegrityError, match=r"changed bytes|endless"):
        node.release("m", "2", digest)
    with pytest.raises(NotFound):
        node.verified_release("m", "2", digest)


def test_a_foreign_root_at_the_join(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = new_plans_root(root_signers=[evil], online_key=evil.public_key, now=world.now)
    with pytest.raises(IntegrityError, match="foreign root"):
        TrustedRepository(
            world.folder / "other",
            fleet="acme",
            site="fra",
            fetch=world.mirror,
            now=world.clock,
            plans_root=root,
            plans_root_sha256=digest_of(world.plans_root),
            releases_root=world.releases_root,
            releases_root_sha256=digest_of(world.releases_root),
        )


def test_a_new_online_key_replaces_a_stolen_one(settled: Settled) -> None:
    world, node, _ = settled
    node.poll_plan()
    stolen, world.online = world.online, CryptoSigner.generate_ed25519()
    later = next_root(
        world.plans_root,
        [world.root_keys],
        now=world.now,
        lifetime=timedelta(days=3650),
        targets_keys=[world.online.public_key],
        online_key=world.online.public_key,
    )
    world.plans = PlansRepository(world.store, world.plans_root, world.online, world.clock, later_roots=[later])
    assert world.plans.latest("fra") is not None
    assert world.plans.renew(world.now) == ("fra",)
    assert node.poll_plan() is None
    before = node.verified_plan()
    folder = SignedFolder(world.store, "plans/fra", stolen, world.clock, Lifetimes())
    current = folder.current()
    assert current is not None
    folder.sign_timestamp(current)
    with pytest.raises(IntegrityError, match="wrong signature"):
        node.poll_plan()
    assert world.node(fetch=NoNetwork()).verified_plan() == before
    with pytest.raises(IntegrityError, match="does not let our online key"):
        PlansRepository(world.store, world.plans_root, stolen, world.clock, later_roots=[later])


def test_another_releaser_joins_by_a_new_root(settled: Settled) -> None:
    world, node, _ = settled
    second = CryptoSigner.generate_ed25519()
    root = next_root(
        world.releases_root,
        [world.root_keys],
        now=world.now,
        lifetime=timedelta(days=3650),
        targets_keys=[world.releaser.public_key, second.public_key],
    )
    world.releases.change_keys(root, world.releases.targets()[0])
    world.releases.change_keys(root, world.releases.targets()[0])
    manifest = world.manifest("3")
    targets, version = world.releases.targets()
    with pytest.raises(IntegrityError, match="none of the releasers"):
        propose(world.releases_root, targets, manifest, second, now=world.now)
    proposal = propose(root, targets, manifest, second, now=world.now)
    world.releases.accept(proposal, encode_release(manifest), version)
    assert node.release("m", "3", release_digest(manifest)) == manifest


def test_a_root_that_nobody_before_has_signed_is_refused(world: World) -> None:
    evil = CryptoSigner.generate_ed25519()
    root = next_root(
        world.releases_root,
        [evil],
        now=world.now,
        lifetime=timedelta(days=9),
        targets_keys=[evil.public_key],
    )
    with pytest.raises(IntegrityError):
        world.releases.change_keys(root, world.releases.targets()[0])
