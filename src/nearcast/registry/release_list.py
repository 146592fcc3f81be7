"""The list of releases: what releasers sign, whose keys never come near the control plane, and what a proposal may do.

Pure functions over signed bytes, for both sides. A release is immutable: a proposal adds exactly one and changes
nothing. Two releasers at once are serialised by the version of the list: each proposal is for version N + 1, and only
one N + 1 is ever accepted. Does not decide what is published, nor when (`releases`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, TargetFile, Targets, Timestamp

from nearcast.errors import Conflict, IntegrityError, InvalidInput
from nearcast.registry.trust import (
    Lifetimes,
    first_root,
    key_of,
    new_root,
    signed_bytes,
    target_sha256,
    verified,
)
from nearcast.resources.release import ReleaseManifest, encode_release, target_path

PREFIX: Final = "releases"
MAX_TARGETS_BYTES: Final = 5_000_000
"""What clients read at most (python-tuf's limit): some 12,000 releases. Beyond it, delegations are needed."""


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """One release, as the signed list of releases names it. ``digest`` is that of its manifest."""

    model: str
    version: str
    digest: str
    size_bytes: int
    created_at: str
    task: str


class _Custom(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str
    size_bytes: int
    created_at: str
    task: str


def new_releases_root(
    *,
    root_signers: Sequence[Signer],
    releaser_keys: Sequence[Key],
    online_key: Key,
    now: datetime,
    threshold: int = 1,
    lifetimes: Lifetimes | None = None,
) -> bytes:
    """Version 1 of the root of trust of releases. Join tokens pin its sha256.

    Args:
        root_signers: hold the root keys; needed again only to change keys (:func:`trust.next_root`).
        releaser_keys: who may release.
        online_key: the control plane's, see :func:`online_key_of`.
        now: the time.
        threshold: how many of them must sign a root, and a release.
        lifetimes: how long it is valid.

    Raises:
        InvalidInput: fewer keys than the threshold.
    """
    return new_root(
        root_signers=root_signers,
        targets_keys=releaser_keys,
        online_key=online_key,
        now=now,
        lifetime=(lifetimes or Lifetimes()).root,
        threshold=threshold,
    )


def new_targets(*signers: Signer, now: datetime, lifetimes: Lifetimes | None = None) -> bytes:
    """Version 1 of the list of releases, empty, signed by each of ``signers``."""
    return signed_bytes(Targets(expires=now + (lifetimes or Lifetimes()).targets), signers)


def propose(
    root: bytes,
    targets: bytes,
    manifest: ReleaseManifest,
    signer: Signer,
    *,
    now: datetime,
    lifetimes: Lifetimes | None = None,
) -> bytes:
    """The list of releases with ``manifest`` added: version + 1, signed.

    It is sent with ``expected_version``, the version of ``targets`` (:func:`trust.version_of`).

    Args:
        root: the newest root that the releaser trusts (from the releaser's own disk, not from the control plane).
        targets: the list as the control plane gave it; believed only when releasers signed it.
        manifest: the new release.
        signer: the releaser's.
        now: the time.
        lifetimes: how long the list is valid.

    Raises:
        IntegrityError: ``targets`` was not signed by the releasers, or the root does not trust ``signer``.
        Conflict: this version of the model was released before, with another content.
    """
    judge = first_root(root, PREFIX)
    signed = verified(Targets, targets, judge, PREFIX)
    if signer.public_key.keyid not in judge.roles[Targets.type].keyids:
        raise IntegrityError(
            f"key {signer.public_key.keyid} is none of the releasers' keys in version {judge.version} of the root",
            hint="where it was replaced (releaser rotate), sign with the new one: it lies where the rotation ran",
        )
    path = manifest.target_path
    held = signed.targets.get(path)
    if held is not None:
        raise Conflict(
            f"{manifest.model}@{manifest.version} is released already, with digest sha256:{held.hashes.get('sha256')}",
            hint="a release never changes: push under another version",
        )
    signed.targets[path] = _entry(manifest)
    signed.version += 1
    signed.expires = now + (lifetimes or Lifetimes()).targets
    return signed_bytes(signed, [signer])


def _entry(manifest: ReleaseManifest) -> TargetFile:
    """What the list says of one release."""
    entry = TargetFile.from_data(manifest.target_path, encode_release(manifest), ["sha256"])
    entry.unrecognized_fields["custom"] = msgspec.to_builtins(
        _Custom(
            model=manifest.model,
            version=manifest.version,
            size_bytes=manifest.size_bytes,
            created_at=manifest.created_at,
            task=manifest.task,
        )
    )
    return entry


def countersign(targets: bytes, signer: Signer) -> bytes:
    """A proposal with one signature more, where a root demands several. The signer looks at it first."""
    metadata = Metadata[Targets].from_bytes(targets)
    metadata.sign(signer, append=True)
    return metadata.to_bytes()


def online_key_of(root: bytes) -> Key:
    """The key that signs timestamps under ``root``: read it off the plans root to make the releases root."""
    return key_of(root, Timestamp.type)


def check_proposal(data: bytes, before: Targets, root: Root, now: datetime) -> Targets:
    """The proposal in ``data``: signed, next in version, and every release of ``before`` unchanged in it.

    Raises:
        IntegrityError: the releasers that ``root`` trusts did not sign it.
        InvalidInput: it is too long, expired, or changes more than a proposal may.
    """
    if len(data) > MAX_TARGETS_BYTES:
        raise InvalidInput(f"expected a list of releases of at most {MAX_TARGETS_BYTES} bytes, got {len(data)}")
    signed = verified(Targets, data, root, PREFIX)
    if signed.version != before.version + 1:
        raise InvalidInput(f"expected version {before.version + 1} of the list, got {signed.version}")
    if signed.is_expired(now):
        raise InvalidInput(f"the proposal expired on {signed.expires:%Y-%m-%d}")
    if signed.delegations is not None:
        raise InvalidInput("expected a list of releases without delegations")
    for path, target in before.targets.items():
        if signed.targets.get(path) != target:
            raise InvalidInput(f"the proposal changes or removes {path}: a release never changes")
    return signed


def is_signed(targets: bytes, root: Root) -> bool:
    """Whether ``root`` believes in the list ``targets``."""
    try:
        verified(Targets, targets, root, PREFIX)
    except IntegrityError:
        return False
    return True


def entries_of(targets: Targets) -> tuple[ReleaseEntry, ...]:
    """What a verified list of releases names, by model and version."""
    found = []
    for path, target in targets.targets.items():
        try:
            custom = msgspec.convert(target.custom, _Custom)
        except msgspec.ValidationError as error:
            raise IntegrityError(f"{PREFIX}: {path}: not the entry of a release ({error})") from error
        if target_path(custom.model, custom.version) != path:
            raise IntegrityError(f"{PREFIX}: the entry of {path} names {custom.model}@{custom.version}")
        found.append(
            ReleaseEntry(
                model=custom.model,
                version=custom.version,
                digest=f"sha256:{target_sha256(target, PREFIX)}",
                size_bytes=custom.size_bytes,
                created_at=custom.created_at,
                task=custom.task,
            )
        )
    return tuple(sorted(found, key=lambda entry: (entry.model, entry.version)))
