"""What an attacker puts in the place of a file of either repository, and the types by which a node refuses it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from nearcast.registry.blobs import blob_path
from nearcast.registry.refused import Attack
from nearcast.registry.trust import signed_bytes
from nearcast.resources.plan import encode_plan
from nearcast.resources.release import encode_release, release_digest
from nearcast.resources.revision import digest_of
from scenario.registry_world import World

EVIL = CryptoSigner.generate_ed25519()
KINDS = {"timestamp": Timestamp, "snapshot": Snapshot, "targets": Targets}


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
        return resigned(Root, world.store.read(f"{repository}/metadata/1.root.json") or b"", version=2)
    return resigned(KINDS[role], data)


def no_signature(world: World, repository: str, role: str, data: bytes) -> bytes:
    document = json.loads(data)
    document["signatures"] = []
    return json.dumps(document).encode()


def resigned(kind: type, data: bytes, version: int | None = None) -> bytes:
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
