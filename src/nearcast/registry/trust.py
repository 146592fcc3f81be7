"""The rules by which signed metadata is believed: pure, on bytes, without files or network.

The chain is The Update Framework's (specification 1.0, sections 4 and 5): a pinned root names the keys of all roles;
timestamp vouches for one snapshot, snapshot for one list of targets, targets for the bytes of each target. The
cryptography and the formats are python-tuf's. What is decided here: which check failed means which attack, and that
*serving* (``at=None``) ignores expiry while *installing* does not (``docs/explanation/trust.md``).

Not decided here: fetching (:mod:`client`), storing (:mod:`repository`).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from nearcast.errors import Bug, InvalidInput
from nearcast.registry.refused import Attack, TrustRefused, role_of

Clock = Callable[[], datetime]
"""The time: aware, in UTC."""

Role = TypeVar("Role", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signed metadata is fresh. Online roles are renewed when half of it is over."""

    timestamp: timedelta = timedelta(days=7)
    snapshot: timedelta = timedelta(days=30)
    targets: timedelta = timedelta(days=365)
    root: timedelta = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Chain:
    """Metadata that vouches for one another, verified."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets


def refused(error: Exception, file: str, role: str = "") -> TrustRefused:
    """What a failed check of python-tuf means. ``role`` where the name of ``file`` does not tell it."""
    meanings: tuple[tuple[type[Exception], Attack, str], ...] = (
        (UnsignedMetadataError, Attack.SIGNATURE, "not signed by enough of the keys that the root names"),
        (ExpiredMetadataError, Attack.FREEZE, "out of date, somebody may be holding newer metadata back"),
        (BadVersionNumberError, Attack.ROLLBACK, "or mix-and-match: a version other than the one vouched for"),
        (LengthOrHashMismatchError, Attack.CHANGED, "not the file that was vouched for"),
        (DownloadLengthMismatchError, Attack.ENDLESS, "longer than it may be"),
        (DeserializationError, Attack.ARBITRARY, "not metadata at all"),
    )
    fallback = (Exception, Attack.INCONSISTENT, "the files do not fit together")
    _, attack, words = next((each for each in meanings if isinstance(error, each[0])), fallback)
    return TrustRefused(attack, role or role_of(file), file, f"{words} ({error})")


def first_root(data: bytes, name: str, sha256: str | None = None) -> Root:
    """The root in ``data``: signed by itself, and with the pinned ``sha256`` where one is given.

    Raises:
        IntegrityError: another hash, not a root, or not signed by itself.
    """
    if sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256.removeprefix("sha256:"):
            raise TrustRefused(
                Attack.FOREIGN_ROOT,
                Root.type,
                name,
                f"expected the root with sha256 {sha256}, got {found}",
                hint="join again with a token of the fleet that this node shall belong to",
            )
    return _loaded(Root, data, None, name)


def latest_root(roots: Sequence[bytes], name: str, sha256: str | None = None) -> Root:
    """The last of ``roots``, when each is signed by its predecessor and by itself. Raises :class:`IntegrityError`."""
    root = first_root(roots[0], name, sha256)
    for data in roots[1:]:
        _loaded(Root, data, root, name)
        newer = first_root(data, name)
        if newer.version != root.version + 1:
            raise TrustRefused(
                Attack.ROLLBACK,
                Root.type,
                name,
                f"expected version {root.version + 1} of the root, got {newer.version}",
            )
        root = newer
    return root


class Judges:
    """Roots that were verified before: one chain of them judges thousands of folders. Safe for several threads."""

    MOST: Final = 64

    def __init__(self) -> None:
        self._held: dict[tuple[bytes, ...], Root] = {}

    def latest(self, roots: Sequence[bytes], name: str) -> Root:
        """As :func:`latest_root`, at the cost of a look-up for a chain that came before. It is not to be changed."""
        key = tuple(roots)
        found = self._held.get(key)
        if found is None:
            found = latest_root(roots, name)
            if len(self._held) >= self.MOST:
                self._held.clear()
            self._held[key] = found
        return found


def verified(kind: type[Role], data: bytes, root: Root, name: str) -> Role:
    """The metadata of ``kind`` in ``data``, signed as ``root`` demands. Raises :class:`IntegrityError`."""
    return _loaded(kind, data, root, name)


def verify_chain(
    roots: Sequence[bytes],
    timestamp: bytes,
    snapshot: bytes,
    targets: bytes,
    *,
    name: str,
    sha256: str | None = None,
    at: datetime | None = None,
) -> Chain:
    """The chain in these bytes.

    Args:
        roots: versions of the root in order, from the pinned one to the newest.
        timestamp, snapshot, targets: the files that vouch for one another.
        name: which repository, for messages.
        sha256: the pinned hash of ``roots[0]``.
        at: the moment at which nothing may have expired; None to ignore expiry (serving, never installing).

    Raises:
        IntegrityError: something does not fit; the message says what.
    """
    root = latest_root(roots, name, sha256)
    top = verified(Timestamp, timestamp, root, name)
    middle = verified(Snapshot, snapshot, root, name)
    _vouched(top.snapshot_meta, snapshot, middle.version, "snapshot", name)
    bottom = verified(Targets, targets, root, name)
    meta = middle.meta.get("targets.json")
    if meta is None:
        raise TrustRefused(Attack.INCONSISTENT, Snapshot.type, name, "it vouches for no targets")
    _vouched(meta, targets, bottom.version, "targets", name)
    if at is not None:
        for signed in (root, top, middle, bottom):
            if signed.is_expired(at):
                expired = ExpiredMetadataError(f"{signed.type} expired on {signed.expires:%Y-%m-%d %H:%M} UTC")
                raise refused(expired, name, signed.type)
    return Chain(root, top, middle, bottom)


def verify_target(targets: Targets, path: str, data: bytes, name: str) -> TargetFile:
    """The entry of ``path``, when ``data`` is what it vouches for. Raises :class:`IntegrityError`."""
    target = targets.targets.get(path)
    if target is None:
        raise TrustRefused(Attack.UNSIGNED, Targets.type, name, f"{path!r} is not among the signed targets")
    try:
        target.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise refused(error, f"{name}: {path}", "target") from error
    return target


def target_sha256(target: TargetFile, name: str) -> str:
    """The sha256 (hexadecimal) of a target. Raises :class:`IntegrityError` where it has none."""
    digits = target.hashes.get("sha256")
    if digits is None:
        raise TrustRefused(Attack.INCONSISTENT, Targets.type, name, f"target {target.path!r} carries no sha256")
    return digits


def stored_target(path: str, sha256: str) -> str:
    """Where a target lies under consistent snapshots: its hash stands before its file name."""
    folder, slash, file = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{file}"


def signed_bytes(signed: Role, signers: Sequence[Signer]) -> bytes:
    """``signed`` as metadata with one signature of each signer."""
    metadata = Metadata[Role](signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def meta_file(data: bytes, version: int) -> MetaFile:
    """How one metadata file is vouched for in another: version, length and hash."""
    return MetaFile(version=version, length=len(data), hashes={"sha256": hashlib.sha256(data).hexdigest()})


def new_root(
    *,
    root_signers: Sequence[Signer],
    targets_keys: Sequence[Key],
    online_key: Key,
    now: datetime,
    lifetime: timedelta,
    threshold: int = 1,
) -> bytes:
    """Version 1 of a root.

    Args:
        root_signers: whose signatures make a root; each must sign its successor too (threshold: ``threshold``).
        targets_keys: who may sign targets (``threshold`` of them together).
        online_key: who signs snapshot and timestamp.
        now, lifetime: it expires at their sum.

    Raises:
        InvalidInput: fewer keys than the threshold.
    """
    if threshold < 1 or len({key.keyid for key in targets_keys}) < threshold or len(root_signers) < threshold:
        raise InvalidInput(f"expected at least {threshold} root and targets keys (the threshold), got fewer")
    root = Root(expires=now + lifetime, consistent_snapshot=True)
    for signer in root_signers:
        root.add_key(signer.public_key, Root.type)
    for key in targets_keys:
        root.add_key(key, Targets.type)
    for role in (Snapshot.type, Timestamp.type):
        root.add_key(online_key, role)
    for role in (Root.type, Targets.type):
        root.roles[role].threshold = threshold
    return signed_bytes(root, root_signers)


def next_root(
    previous: bytes,
    signers: Sequence[Signer],
    *,
    now: datetime,
    lifetime: timedelta,
    targets_keys: Sequence[Key] | None = None,
    online_key: Key | None = None,
    root_keys: Sequence[Key] | None = None,
) -> bytes:
    """The successor of a root: another expiry and, where given, other keys for targets, the online roles, or the root.

    ``signers`` hold the root keys of ``previous``, and those of the successor.
    """
    root = first_root(previous, "root")
    root.version += 1
    root.expires = now + lifetime
    changes = {role: keys for role, keys in ((Targets.type, targets_keys), (Root.type, root_keys)) if keys}
    if online_key is not None:
        changes |= {Snapshot.type: [online_key], Timestamp.type: [online_key]}
    for role, keys in changes.items():
        for keyid in list(root.roles[role].keyids):
            root.revoke_key(keyid, role)
        for key in keys:
            root.add_key(key, role)
    return signed_bytes(root, signers)


def key_of(root: bytes, role: str) -> Key:
    """The first key of ``role`` under ``root`` (``timestamp``: the online key). Raises :class:`IntegrityError`."""
    signed = first_root(root, "root")
    return signed.keys[signed.roles[role].keyids[0]]


def version_of(metadata: bytes) -> int:
    """The version that a metadata file claims, unverified. Raises :class:`IntegrityError` where it is none."""
    try:
        version: int = Metadata.from_bytes(metadata).signed.version
    except DeserializationError as error:
        raise refused(error, "metadata", "targets") from error
    return version


def _loaded(kind: type[Role], data: bytes, root: Root | None, name: str) -> Role:
    try:
        metadata = Metadata[Role].from_bytes(data)
        signed = metadata.signed
        if not isinstance(signed, kind):
            raise RepositoryError(f"expected {kind.type} metadata, got {signed.type}")  # noqa: TRY301
        judge = signed if root is None else root
        if not isinstance(judge, Root):
            raise Bug(f"{name}: {kind.type} metadata needs a root to be judged by")
        judge.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, DeserializationError, UnverifiedSignatureError, VerificationError, ValueError) as error:
        raise refused(error, name, kind.type) from error
    return signed


def _vouched(meta: MetaFile, data: bytes, version: int, role: str, name: str) -> None:
    try:
        meta.verify_length_and_hashes(data)
        if version != meta.version:
            raise BadVersionNumberError(f"expected {role} version {meta.version}, got {version}")
    except RepositoryError as error:
        raise refused(error, name, role) from error
