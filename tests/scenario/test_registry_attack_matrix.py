"""Every position of both repositories, on the wire and on the node's own disk, with every attack that fits it.

One row is one attack on one file. Whatever the row, four things hold: it is refused by its type (attack, role, file);
what ran keeps running; the node's status says so, in a condition or at the model; and the node recovers by itself.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import msgspec
import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from nearcast.agent.pull import Puller
from nearcast.agent.reconcile import step
from nearcast.agent.states import Fetched, FetchFailed, Key, PlanReceived, State, Tick
from nearcast.agent.status import Vitals, node_status
from nearcast.errors import Unavailable
from nearcast.planning.routes import RouteTable
from nearcast.registry.artifacts import ArtifactStore
from nearcast.registry.blobs import blob_path
from nearcast.registry.client import TrustedRepository
from nearcast.registry.mirror import Kept
from nearcast.registry.refused import Attack, TrustRefused
from nearcast.registry.release_list import new_releases_root, new_targets, propose
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.repository import SignedFolder
from nearcast.registry.trust import Lifetimes, signed_bytes
from nearcast.resources.plan import encode_plan
from nearcast.resources.release import encode_release, release_digest
from nearcast.resources.revision import digest_of
from scenario.registry_world import NoNetwork, Settled, World

EVIL = CryptoSigner.generate_ed25519()
KINDS = {"timestamp": Timestamp, "snapshot": Snapshot, "targets": Targets}
NEW = Key("m", "2")


# --- where: the files of the newest state ----------------------------------------------------------------------------


def newest(world: World, repository: str) -> dict[str, str]:
    """Role -> path of the file that a node would ask for next."""
    prefix = f"{repository}/metadata"
    top = Metadata[Timestamp].from_bytes(world.store.read(f"{prefix}/timestamp.json") or b"").signed
    number = top.snapshot_meta.version
    middle = Metadata[Snapshot].from_bytes(world.store.read(f"{prefix}/{number}.snapshot.json") or b"").signed
    listed = middle.meta["targets.json"].version
    paths = {
        "root": f"{prefix}/2.root.json",
        "timestamp": f"{prefix}/timestamp.json",
        "snapshot": f"{prefix}/{number}.snapshot.json",
        "targets": f"{prefix}/{listed}.targets.json",
    }
    if repository == "releases":
        digits = release_digest(world.manifest("2")).removeprefix("sha256:")
        return paths | {
            "manifest": f"releases/targets/m/{digits}.2.json",
            "blob": blob_path(world.manifest("2").files[0].digest),
        }
    plan = encode_plan(world.plans.latest("fra") or world.plan(0))
    return paths | {"plan": f"plans/fra/targets/{digest_of(plan).removeprefix('sha256:')}.fra.json"}


PLACES = [("plans/fra", role) for role in ("timestamp", "snapshot", "targets", "plan")] + [
    ("releases", role) for role in ("timestamp", "snapshot", "targets", "manifest", "blob")
]


# --- what: bytes that an attacker sends instead ----------------------------------------------------------------------


def arbitrary(world: World, repository: str, role: str, data: bytes) -> bytes:
    return b"\x00\xffnot what you asked for" * 3


def empty_object(world: World, repository: str, role: str, data: bytes) -> bytes:
    return b"{}"


def one_bit(world: World, repository: str, role: str, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) * 2 // 3] ^= 0x02
    return bytes(changed)


def cut_short(world: World, repository: str, role: str, data: bytes) -> bytes:
    return data[:-7]


def too_long(world: World, repository: str, role: str, data: bytes) -> bytes:
    return data + b" "


def other_role(world: World, repository: str, role: str, data: bytes) -> bytes:
    """An honest file of the same repository under another name."""
    other = {"timestamp": "snapshot", "snapshot": "timestamp", "targets": "snapshot", "root": "targets"}
    return world.store.read(newest(world, repository)[other.get(role, "targets")]) or b""


def other_repository(world: World, repository: str, role: str, data: bytes) -> bytes:
    """The honest file of the same role in the other repository."""
    other = "plans/fra" if repository == "releases" else "releases"
    stand_in = {"plan": "manifest", "manifest": "plan", "blob": "plan"}.get(role, role)
    path = newest(world, other)[stand_in] if role != "root" else f"{other}/metadata/1.root.json"
    return world.store.read(path) or b""


def older(world: World, repository: str, role: str, data: bytes) -> bytes:
    """The honest file of the same role that was true one publication ago."""
    prefix = f"{repository}/metadata"
    if role == "timestamp":
        return world.before[f"{prefix}/timestamp.json"]
    if role == "root":
        return world.store.read(f"{prefix}/1.root.json") or b""
    path = newest(world, repository)[role]
    name = path.rpartition("/")[2]
    if role in KINDS:
        number = int(name.partition(".")[0])
        return world.store.read(f"{prefix}/{number - 1}.{role}.json") or b""
    if role == "plan":
        return encode_plan(world.plan(5, world.manifest("1")))
    return encode_release(world.manifest("1"))


def another_key(world: World, repository: str, role: str, data: bytes) -> bytes:
    """Well-formed and newer, signed by a key that no root names."""
    if role == "root":
        return _resigned(Root, world.store.read(f"{repository}/metadata/1.root.json") or b"", version=2)
    return _resigned(KINDS[role], data)


def no_signature(world: World, repository: str, role: str, data: bytes) -> bytes:
    document = json.loads(data)
    document["signatures"] = []
    return json.dumps(document).encode()


def _resigned(kind: type, data: bytes, version: int | None = None) -> bytes:
    signed = Metadata[kind].from_bytes(data).signed
    signed.version = version or signed.version
    return signed_bytes(signed, [EVIL])


Tamper = Callable[[World, str, str, bytes], bytes]


@dataclass(frozen=True)
class Row:
    repository: str
    role: str
    tamper: Tamper
    attacks: frozenset[Attack]

    def __str__(self) -> str:
        return f"{self.repository.partition('/')[0]}-{self.role}-{self.tamper.__name__}"


A = Attack
ODD = {A.ARBITRARY, A.INCONSISTENT, A.CHANGED, A.SIGNATURE, A.ENDLESS}
ROWS = [
    Row(repository, role, tamper, frozenset(attacks))
    for repository in ("plans/fra", "releases")
    for role, tampers in {
        "timestamp": {
            arbitrary: {A.ARBITRARY},
            empty_object: {A.ARBITRARY},
            one_bit: {A.ARBITRARY, A.SIGNATURE},
            cut_short: {A.ARBITRARY},
            other_role: {A.INCONSISTENT, A.ENDLESS},
            older: {A.ROLLBACK},
            another_key: {A.SIGNATURE},
            no_signature: {A.SIGNATURE},
        },
        "root": {
            arbitrary: {A.ARBITRARY},
            empty_object: {A.ARBITRARY},
            other_role: {A.INCONSISTENT, A.SIGNATURE},
            other_repository: {A.ROLLBACK, A.SIGNATURE},
            older: {A.ROLLBACK},
            another_key: {A.SIGNATURE},
        },
        "snapshot": dict.fromkeys((arbitrary, empty_object, one_bit, cut_short, other_role, other_repository), ODD)
        | {older: {A.CHANGED, A.ROLLBACK}, too_long: {A.CHANGED, A.ENDLESS}}
        | {key: {A.CHANGED, A.SIGNATURE, A.ENDLESS} for key in (another_key, no_signature)},
        "targets": dict.fromkeys((arbitrary, empty_object, one_bit, cut_short, other_role), ODD)
        | {other_repository: ODD, older: {A.CHANGED}, too_long: {A.CHANGED, A.ENDLESS}}
        | {key: {A.CHANGED, A.SIGNATURE, A.ENDLESS} for key in (another_key, no_signature)},
        "plan": {key: {A.CHANGED} for key in (arbitrary, empty_object, one_bit, cut_short)}
        | {key: {A.CHANGED, A.ENDLESS} for key in (older, other_repository, too_long)},
        "manifest": {key: {A.CHANGED} for key in (arbitrary, empty_object, one_bit, cut_short)}
        | {key: {A.CHANGED, A.ENDLESS} for key in (older, other_repository, too_long)},
        "blob": {one_bit: {A.TAMPERED}, too_long: {A.ENDLESS}, other_repository: {A.ENDLESS, A.TAMPERED}},
    }.items()
    # A rollback of the releases shows only when they are looked at again: see below.
    if role not in ({"manifest", "blob"} if repository == "plans/fra" else {"plan"})
    for tamper, attacks in tampers.items()
    if (repository, role, tamper) != ("releases", "timestamp", older)
]


# --- the node, as far as a status is made of it ----------------------------------------------------------------------


class Node:
    """A node's real puller, state machine and status, without engine and gateway."""

    def __init__(self, world: World, trusted: TrustedRepository, fetch: object | None = None) -> None:
        self.world, self.trusted = world, trusted
        store = ArtifactStore(world.folder / "models", pause=lambda _seconds: None)
        self.puller = Puller(trusted, store, fetch or world.mirror)  # type: ignore[arg-type]
        self.state, self.now_s = State(who="fra/n1"), 0.0

    def take(self, event: object) -> None:
        self.now_s += 1.0
        self.state, _ = step(self.state, event, self.now_s)  # type: ignore[arg-type]

    def poll(self) -> None:
        self.take(self.puller.poll())

    def obtain(self, key: Key = NEW) -> Fetched | FetchFailed:
        self.take(PlanReceived(self.world.plan(7, self.world.manifest("2"))))
        self.now_s += 1000.0  # past every wait
        self.take(Tick())
        release = release_digest(self.world.manifest(key.version))
        outcome = self.puller.obtain(key, release, lambda _done, _all: None)
        assert outcome is not None
        self.take(outcome)
        return outcome

    def told(self) -> set[tuple[str, str, str]]:
        """(condition or model, reason, message) of everything that the status complains of."""
        vitals = Vitals("", "", "", RouteTable(models={}), None, {}, 0, (), self.now_s)
        status = node_status("fra", "n1", "test", "then", self.state, vitals)
        models = {(f"{item.model}@{item.version}", item.reason, item.message) for item in status.models if item.reason}
        return models | {(item.type, item.reason, item.message) for item in status.conditions}


@pytest.fixture
def node(settled: Settled) -> Node:
    """A node that runs plan 5 with m@1; plan 7 with m@2 instead has just been published."""
    world, trusted, plan = settled
    for name, repository in (("plan", "plans/fra"), ("releases", "releases")):
        kept = msgspec.json.decode((world.folder / "trust" / f"{name}.json").read_bytes(), type=Kept)
        world.before[f"{repository}/metadata/timestamp.json"] = kept.timestamp
    world.plans.publish(world.plan(7, world.manifest("2")))
    made = Node(world, trusted)
    made.take(PlanReceived(plan))
    return made


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


def assert_recovers(node: Node) -> None:
    node.world.mirror.forged.clear()
    node.world.mirror.moved = None
    node.world.mirror.objects = node.world.store
    node.poll()
    assert isinstance(node.obtain(), Fetched)
    assert node.told() == set()


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


# --- on the node's own disk ------------------------------------------------------------------------------------------

DISK = ["roots", "timestamp", "snapshot", "targets", "plan"]


def changed(kept: Kept, part: str, how: str) -> Kept:
    """A copy in which one part is not what was verified."""
    value = getattr(kept, part)
    data = value[0] if part == "roots" else value or b""
    kind = {"roots": Root, **KINDS}.get(part)
    other = {
        "arbitrary": b"\x00not what was here",
        "bit": bytes([*data[:-9], data[-9] ^ 1, *data[-8:]]),
        "resigned": _resigned(kind, data) if kind else encode_plan_for_sin(data),
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
