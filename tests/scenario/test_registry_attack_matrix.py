"""Every position of both repositories, on the wire, with every attack that fits it.

One row is one attack on one file. Whatever the row, four things hold: it is refused by its type (attack, role, file);
what ran keeps running; the node's status says so, in a condition or at the model; and the node recovers by itself.
"""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from nearcast.errors import Unavailable
from nearcast.registry.artifacts import ArtifactStore
from nearcast.registry.refused import Attack, TrustRefused
from nearcast.registry.release_list import new_releases_root, new_targets, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.repository import SignedFolder
from nearcast.registry.trust import Lifetimes, signed_bytes
from nearcast.resources.release import release_digest
from nearcast.resources.revision import digest_of
from scenario.attacked_node import Node, assert_recovers
from scenario.attacks import PLACES, ROWS, A, Row, newest, older
from scenario.registry_world import NoNetwork, World


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_on_the_wire(node: Node, row: Row) -> None:
    world = node.world
    path = newest(world, row.repository)[row.role]
    if row.tamper is older and row.role == "timestamp":
        node.trusted.poll_plan()
        world.plans.publish(world.plan(8, world.manifest("2")))
        node.trusted.poll_plan()
    world.mirror.forge(path, row.tamper(world, row.repository, row.role, world.store.read(path) or b""))
    before = node.trusted.verified_plan()
    refused = refusal_of(node, row)
    assert refused.attack in row.attacks, refused.message
    assert refused.role == row.role, refused.message
    assert refused.file in {path, world.manifest("2").files[0].path}
    attack(node, row)
    assert_told(node, row, refused)
    assert node.trusted.verified_plan() == before
    assert world.node(fetch=NoNetwork()).verified_plan() == before
    assert_recovers(node)


def attack(node: Node, row: Row) -> None:
    """Ask for what the attacked file vouches for, as an agent does."""
    if row.repository == "plans/fra":
        node.poll()
    else:
        node.obtain()


def refusal_of(node: Node, row: Row) -> TrustRefused:
    """The refusal itself, by its type."""

    def ask() -> None:
        if row.repository == "plans/fra":
            node.trusted.poll_plan()
        else:
            manifest = node.trusted.release("m", "2", release_digest(node.world.manifest("2")))
            ArtifactStore(node.world.folder / "models").ensure(manifest, node.world.mirror)

    with pytest.raises(TrustRefused) as caught:
        ask()
    return caught.value


def assert_told(node: Node, row: Row, refused: TrustRefused) -> None:
    (found,) = node.told()
    about, reason, message = found
    if row.repository == "plans/fra":
        assert (about, reason) == ("PlanTrusted", "TrustRefused")
    else:
        assert about == "m@2"
        assert reason == ("DigestMismatch" if row.role in {"manifest", "blob"} else "TrustRefused")
    assert refused.role in message
    assert refused.attack in message
    assert refused.file in message


# --- whole repositories ----------------------------------------------------------------------------------------------


def test_a_rollback_of_the_releases(node: Node) -> None:
    world, path = node.world, "releases/metadata/timestamp.json"
    node.trusted.refresh_releases()
    world.mirror.forge(path, world.before[path])
    with pytest.raises(TrustRefused) as caught:
        node.trusted.refresh_releases()
    assert (caught.value.attack, caught.value.role, caught.value.file) == (A.ROLLBACK, "timestamp", path)
    assert_recovers(node)


@pytest.mark.parametrize(
    ("repository", "days", "roles"),
    [("plans/fra", 8, {"timestamp"}), ("releases", 8, {"timestamp"}), ("plans/fra", 31, {"timestamp", "snapshot"})],
)
def test_a_freeze(node: Node, repository: str, days: int, roles: set[str]) -> None:
    """A mirror that stands still: what it holds was true, and is out of date."""
    world = node.world
    world.mirror.objects = world.copy_of_store()
    world.now += timedelta(days=days)
    row = Row(repository, "timestamp", older, frozenset())
    refused = refusal_of(node, row)
    assert refused.attack is A.FREEZE
    assert refused.role in roles
    attack(node, row)
    assert_told(node, row, refused)
    world.plans.renew(world.now)
    world.releases.renew(world.now)
    assert_recovers(node)


@pytest.mark.parametrize(
    ("moved", "repository", "attacks"),
    [
        (("plans/fra/", "plans/sin/"), "plans/fra", {A.WRONG_SITE, A.ROLLBACK}),
        (("plans/fra/", "releases/"), "plans/fra", {A.SIGNATURE, A.ROLLBACK}),
        (("releases/", "plans/sin/"), "releases", {A.SIGNATURE, A.ROLLBACK}),
    ],
)
def test_another_repository_in_the_place_of_this_one(
    node: Node, moved: tuple[str, str], repository: str, attacks: set[Attack]
) -> None:
    """All of it honest, signed, and fresh: but of another site, or with another purpose."""
    world = node.world
    for version in range(50, 60):
        world.plans.publish(world.plan(version, site="sin"))
        world.push(str(version))
    world.mirror.moved = moved
    row = Row(repository, "targets", older, frozenset(attacks))
    refused = refusal_of(node, row)
    assert refused.attack in attacks
    attack(node, row)
    assert_told(node, row, refused)
    assert_recovers(node)


@pytest.mark.parametrize(("repository", "role"), [*PLACES, ("plans/fra", "root"), ("releases", "root")])
def test_endless_data(node: Node, repository: str, role: str) -> None:
    world = node.world
    path = newest(world, repository)[role]
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            assert sent < 1 << 24, "nobody stops reading"
            yield b"a" * (1 << 16)

    world.mirror.forged[path] = endless
    row = Row(repository, role, older, frozenset({A.ENDLESS}))
    refused = refusal_of(node, row)
    assert (refused.attack, refused.role) == (A.ENDLESS, role)
    attack(node, row)
    assert_told(node, row, refused)
    assert_recovers(node)


@pytest.mark.parametrize(("repository", "role"), PLACES)
def test_slow_data_is_given_up_and_told(node: Node, repository: str, role: str) -> None:
    """The answer never gets done: `fetch` gives it up (its contract test shows it), and the status names the file."""
    world = node.world
    path = newest(world, repository)[role]

    def trickle() -> Iterator[bytes]:
        yield b"{"
        raise Unavailable(f"{path} comes too slowly: 1 bytes in 21 s")

    world.mirror.forged[path] = trickle
    row = Row(repository, role, older, frozenset())
    attack(node, row)
    ((_, reason, message),) = node.told()
    assert reason == "Unreachable"
    assert path in message
    assert "too slowly" in message
    assert_recovers(node)


def test_fewer_signatures_than_the_threshold(world: World) -> None:
    """Two releasers must sign; one of them alone, with the help of a stolen control plane, releases nothing."""
    people = [CryptoSigner.generate_ed25519() for _ in range(2)]
    root = new_releases_root(
        root_signers=people,
        releaser_keys=[one.public_key for one in people],
        online_key=world.online.public_key,
        now=world.now,
        threshold=2,
    )
    for path in [*world.store.paths("releases")]:
        world.store.delete(path)
    world.releases = ReleasesRepository(world.store, world.blobs, world.online, world.clock)
    world.releases.initialise(root, new_targets(*people, now=world.now))
    world.releases_root = root
    trusted = world.node(folder="two")
    manifest = world.manifest("1")
    listed, version = world.releases.targets()
    alone = Metadata[Targets].from_bytes(propose(root, listed, manifest, people[0], now=world.now))
    folder = SignedFolder(world.store, "releases", world.online, world.clock, Lifetimes())
    before = folder.current()
    folder.publish(alone.to_bytes(), version + 1, before)
    with pytest.raises(TrustRefused) as caught:
        trusted.release("m", "1", release_digest(manifest))
    assert (caught.value.attack, caught.value.role) == (A.SIGNATURE, "targets")


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"unknown":' + b"[" * 100_000,
        b'{"version":' + b"9" * 5_000 + b"}",
        b"\xff" * 64,
        b'"\\ud800"',
        b"null",
        b'{"fleet":"\xbb"}',
    ],
    ids=["lists", "objects", "skipped", "digits", "not-utf8", "surrogate", "null", "not-utf8-inside"],
)
def test_a_plan_made_to_break_a_parser_signed_with_a_stolen_online_key(node: Node, data: bytes) -> None:
    """Signed, of the right length and hash."""
    world = node.world
    listed = Metadata[Targets].from_bytes(world.store.read(newest(world, "plans/fra")["targets"]) or b"").signed
    target = listed.targets["fra.json"]
    target.length, target.hashes = len(data), {"sha256": digest_of(data).removeprefix("sha256:")}
    world.store.replace(f"plans/fra/targets/{target.hashes['sha256']}.fra.json", data)
    folder = SignedFolder(world.store, "plans/fra", world.online, world.clock, Lifetimes())
    listed.version = folder.free_targets_version(listed.version + 1)
    folder.publish(signed_bytes(listed, [world.online]), listed.version, folder.current(), minimum=listed.version)
    node.poll()
    ((about, reason, message),) = node.told()
    assert (about, reason) == ("PlanTrusted", "TrustRefused")
    assert "not a plan that we understand" in message
    assert len(message) < 1000
