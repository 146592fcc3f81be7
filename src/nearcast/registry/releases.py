"""What is published of the list of releases: the control plane's side, whose online key signs snapshot and timestamp.

Decides what is accepted, in which order it is written, and what is signed anew where files are damaged. What the list
is, and what a proposal to it may do, `release_list` says.

The online key can hold newer releases back (until the timestamp expires); it cannot make one up.
"""

import logging
import threading
from datetime import datetime
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Targets

from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound
from nearcast.registry.blobs import BlobStore
from nearcast.registry.objects import Objects
from nearcast.registry.release_list import (
    PREFIX,
    ReleaseEntry,
    check_proposal,
    entries_of,
    is_signed,
)
from nearcast.registry.repository import LOST_NUMBERS, Published, SignedFolder
from nearcast.registry.trust import (
    Clock,
    Lifetimes,
    first_root,
    latest_root,
    stored_target,
    target_sha256,
    verified,
    verify_target,
    version_of,
)
from nearcast.resources.names import is_name, is_version
from nearcast.resources.release import ReleaseManifest, decode_release, target_path
from nearcast.resources.unreadable import UNREADABLE

log = logging.getLogger(__name__)

_COPIES: Final = (
    "put the file back from a backup; roots also lie with the releaser (releases.root.json) and on every node (trust/)"
)


class ReleasesRepository:
    """What is published under ``releases/``. Thread-safe; a call cut short is finished by the next one.

    Every method raises :class:`IntegrityError` when the store holds something that nobody signed.
    """

    def __init__(
        self, objects: Objects, blobs: BlobStore, online_signer: Signer, now: Clock, lifetimes: Lifetimes | None = None
    ) -> None:
        self._objects = objects
        self._blobs = blobs
        self._signer = online_signer
        self._now = now
        self._folder = SignedFolder(objects, PREFIX, online_signer, now, lifetimes or Lifetimes())
        self._lock = threading.RLock()

    def initialise(self, root: bytes, targets: bytes) -> None:
        """Begin, with version 1 of root and list. The same bytes again are a no-op.

        Raises:
            Conflict: it was begun with others.
            IntegrityError: a signature is missing, or the root does not trust our online key.
        """
        with self._lock:
            judge = first_root(root, PREFIX)
            self._check_root(judge)
            signed = verified(Targets, targets, judge, PREFIX)
            if judge.version != 1 or signed.version != 1 or signed.targets or signed.delegations:
                raise InvalidInput("expected version 1 of the root and an empty version 1 of the list of releases")
            self._folder.add_roots([root])
            if self._current() is None:
                self._folder.publish(targets, 1, None)
            elif self._folder.targets_file(1) != targets:
                raise Conflict("the releases were begun with another list")

    def change_keys(self, root: bytes, targets: bytes) -> int:
        """Believe in other keys: the next root, and the same list of releases signed under it; the list's new version.

        Made by :mod:`rotation`. The same bytes again finish what was cut short. A list that the root in force believes
        in as well is published first, so that every site can believe in what it sees at any moment; else the root is,
        and sites that look in between keep what they run.

        Raises:
            Conflict: somebody else changed keys, or the list, meanwhile.
            IntegrityError: not signed as it must be.
            InvalidInput: the list is another one.
        """
        with self._lock:
            published = self._require()
            roots = self._folder.roots()
            chain = roots if root == roots[-1] else [*roots, root]
            if version_of(root) != len(chain):
                raise Conflict(f"expected version {len(chain)} of the root, got {version_of(root)}")
            judge = latest_root(chain, PREFIX)
            self._check_root(judge)
            if targets != published.targets_bytes:
                if version_of(targets) != published.targets.version + 1:
                    raise Conflict(f"the list of releases is in version {published.targets.version}: sign that one")
                signed = check_proposal(targets, published.targets, judge, self._now())
                if signed.targets != published.targets.targets:
                    raise InvalidInput("expected the list of releases as it is: a change of keys releases nothing")
            version = verified(Targets, targets, judge, PREFIX).version
            root_first = not is_signed(targets, latest_root(roots, PREFIX))
            if root_first:
                self._folder.add_roots(chain)
            if targets != published.targets_bytes:
                self._folder.publish(targets, version, published)
            self._folder.add_roots(chain)
            self._folder.sign_timestamp(self._require())
            return version

    def roots(self) -> tuple[bytes, ...]:
        """All versions of the root, from the first; none before :meth:`initialise`."""
        return tuple(self._folder.roots())

    def root(self) -> bytes | None:
        """Version 1 of the root, or None before :meth:`initialise`. Its sha256 goes into join tokens."""
        roots = self._folder.roots()
        return roots[0] if roots else None

    def targets(self) -> tuple[bytes, int]:
        """The accepted list of releases, signed, and its version. Raises :class:`NotFound` before the beginning."""
        with self._lock:
            published = self._require()
            return published.targets_bytes, published.targets.version

    def accept(self, targets: bytes, manifest: bytes, expected_version: int) -> int:
        """Publish a proposal; the new version of the list. The same proposal again is a no-op.

        Args:
            targets: made by :func:`release_list.propose`.
            manifest: the encoded manifest of the one release that it adds; its blobs are in the store.
            expected_version: the version that the proposal was made from.

        Raises:
            Conflict: another proposal came first.
            IntegrityError: not signed by the releasers, or it does not vouch for ``manifest``.
            InvalidInput: it changes or removes releases, adds none or several, or the manifest is not valid.
            NotFound: a blob is missing.
        """
        with self._lock:
            published = self._require()
            if targets == published.targets_bytes:
                return published.targets.version
            if expected_version != published.targets.version:
                raise Conflict(
                    f"the list of releases is in version {published.targets.version}, not {expected_version}",
                    hint="fetch the list again and propose again",
                )
            judge = latest_root(self._folder.roots(), PREFIX)
            signed = check_proposal(targets, published.targets, judge, self._now())
            path = self._check_manifest(signed, published.targets, manifest)
            target = verify_target(signed, path, manifest, PREFIX)
            name = f"{PREFIX}/targets/{stored_target(path, target_sha256(target, PREFIX))}"
            self._objects.replace(name, manifest)
            self._folder.publish(targets, signed.version, published)
            return signed.version

    def list(self) -> tuple[ReleaseEntry, ...]:
        """All releases, by model and version; none before :meth:`initialise`."""
        with self._lock:
            published = self._finished()
            return () if published is None else entries_of(published.targets)

    def manifest(self, model: str, version: str) -> ReleaseManifest:
        """The manifest of a release. Raises :class:`NotFound`."""
        with self._lock:
            published = self._require()
        path = target_path(model, version)
        target = published.targets.targets.get(path)
        if target is None:
            raise NotFound(f"no release {model}@{version}")
        data = self._objects.read(f"{PREFIX}/targets/{stored_target(path, target_sha256(target, PREFIX))}")
        if data is None:
            raise IntegrityError(
                f"{PREFIX}: the manifest of {model}@{version} is signed for, and missing in the store",
                hint="put the file back from a backup, or push the model under another version",
            )
        verify_target(published.targets, path, data, PREFIX)
        return decode_release(data)

    def expires_at(self) -> datetime | None:
        """When the list of releases expires unless a releaser signs it again (any push does); None before the start."""
        with self._lock:
            published = self._finished()
            return None if published is None else published.targets.expires

    def renew(self, now: datetime) -> bool:
        """Sign timestamp and snapshot anew when half of their life is over; whether anything was signed."""
        with self._lock:
            return self._finished() is not None and self._folder.renew(now)

    def raise_to(self, minimum: int) -> None:
        """Sign timestamp and snapshot anew, as versions of ``minimum`` or more: after a restore nobody goes back."""
        with self._lock:
            if self._finished() is not None:
                self._folder.raise_to(minimum)

    def _require(self) -> Published:
        published = self._finished()
        if published is None:
            raise NotFound("this fleet has no releases root yet", hint="nearcast releaser init makes one")
        return published

    def _finished(self) -> Published | None:
        """What is published, after finishing an acceptance that was cut short: its proposal was checked before."""
        published = self._current()
        if published is None:
            return None
        version = published.targets.version + 1
        proposal = self._folder.targets_file(version)
        if proposal is None:
            return published
        try:
            check_proposal(proposal, published.targets, latest_root(self._folder.roots(), PREFIX), self._now())
        except (IntegrityError, InvalidInput) as error:  # its keys were withdrawn meanwhile, or a year has passed
            log.warning("dropped version %d of the list of releases, left by a crash: %s", version, error)
            self._folder.drop_targets(version)
            return published
        self._folder.publish(proposal, version, published)
        return self._folder.current()

    def _current(self) -> Published | None:
        """What is published; where the files that our own key signs are damaged or gone, after signing them anew."""
        try:
            published = self._folder.current()
        except IntegrityError as error:
            return self._restored(error)
        if published is None and self._folder.newest_list():
            return self._restored(IntegrityError(f"{PREFIX}/metadata/timestamp.json or 1.root.json is missing"))
        return published

    def _restored(self, damage: IntegrityError) -> Published | None:
        """Snapshot and timestamp signed anew for the newest list, under numbers that no client can have seen.

        Only for a list that releasers signed, and none is known to be newer: an older one would lose releases.

        Raises:
            IntegrityError: the damage is where only a backup, or somebody else's copy, helps.
        """
        version = self._folder.newest_list()
        path = f"{PREFIX}/metadata/{version}.targets.json"
        data = self._folder.targets_file(version)
        try:
            judge = latest_root(self._folder.roots() or [b""], PREFIX)
        except IntegrityError as error:
            raise IntegrityError(
                f"{PREFIX}/metadata/1.root.json or a later root: {error.message}", hint=_COPIES
            ) from damage
        try:
            sound = data is not None and verified(Targets, data, judge, PREFIX).version == version
        except IntegrityError as error:
            raise IntegrityError(f"{path}: {error.message}", hint=_COPIES) from damage
        if data is None or not sound or self._folder.vouched_list(judge) > version:
            raise IntegrityError(damage.message, hint=_COPIES) from damage
        log.warning("snapshot and timestamp of the releases are signed anew for %s: %s", path, damage.message)
        lost = LOST_NUMBERS if version > 1 else 1
        minimum = self._folder.highest_number() + lost
        self._folder.publish(data, version, None, minimum=minimum, head=self._folder.damaged_head())
        return self._folder.current()

    def _check_root(self, root: Root) -> None:
        ours = self._signer.public_key.keyid
        if not root.consistent_snapshot:
            raise InvalidInput("expected a root with consistent snapshots")
        for role in ("snapshot", "timestamp"):
            if ours not in root.roles[role].keyids or root.roles[role].threshold != 1:
                raise IntegrityError(f"the root does not let our online key {ours} sign {role} alone")

    def _check_manifest(self, after: Targets, before: Targets, data: bytes) -> str:
        """The path of the one release that is new, when ``data`` is its manifest and its blobs are all there."""
        added = sorted(set(after.targets) - set(before.targets))
        try:
            manifest = decode_release(data)
        except UNREADABLE as error:
            raise InvalidInput(f"the manifest is not valid: {error}") from error
        if added != [manifest.target_path]:
            raise InvalidInput(f"expected the proposal to add {manifest.target_path} alone, it adds {added}")
        if not is_name(manifest.model) or not is_version(manifest.version):
            raise InvalidInput(f"not a name and version: {manifest.model!r}, {manifest.version!r}")
        entries_of(after)
        for file in manifest.files:
            self._blobs.require(file.digest, file.size_bytes)
        return manifest.target_path
