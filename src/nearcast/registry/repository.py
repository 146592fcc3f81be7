"""One TUF repository in an object store, seen by the holder of its online key.

Order of a publication: what targets name, then ``N.targets.json``, ``N.snapshot.json``, and ``timestamp.json`` last.
Only the last write changes what clients see; a publication that was cut short leaves files that nothing names, and the
next one steps over them (a numbered name never gets a second content, so caches in front stay right).

Not decided here: what stands in the targets (:mod:`release_list`, :mod:`plans`), and who may publish (the control
plane's leader). Within a process the callers hold a lock. Of several processes the store lets one win: a numbered name
is only ever created, and ``timestamp.json`` is replaced only while it is what the publication began from. A writer that
was stopped for an hour and goes on finds another timestamp, and changes nothing.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from nearcast.errors import Conflict, IntegrityError
from nearcast.registry.objects import Objects, Tagged
from nearcast.registry.trust import (
    Clock,
    Judges,
    Lifetimes,
    Role,
    first_root,
    meta_file,
    signed_bytes,
    stored_target,
    target_sha256,
    verified,
)

_numbered = re.compile(r"(\d+)\.(targets|snapshot)\.json")

LOST_NUMBERS: Final = 10_000
"""How far a timestamp's version can have run ahead of the numbered files: by one each few days, for decades."""


@dataclass(frozen=True, slots=True)
class Published:
    """What clients see now. ``targets_bytes`` is the signed file itself, ``head`` the timestamp's, as it was read."""

    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    targets_bytes: bytes
    head: Tagged


class SignedFolder:
    """The metadata under ``<prefix>/metadata/`` and the targets under ``<prefix>/targets/``."""

    def __init__(
        self,
        objects: Objects,
        prefix: str,
        signer: Signer,
        now: Clock,
        lifetimes: Lifetimes,
        judges: Judges | None = None,
    ) -> None:
        self._objects = objects
        self._judges = judges or Judges()
        self._signer = signer
        self._now = now
        self._lifetimes = lifetimes
        self.prefix = prefix

    def roots(self) -> list[bytes]:
        """All versions of the root, from the first; empty where there is none."""
        found: list[bytes] = []
        while (data := self._objects.read(self._metadata(f"{len(found) + 1}.root.json"))) is not None:
            found.append(data)
        return found

    def add_roots(self, roots: Sequence[bytes]) -> bool:
        """Write those versions of the root that are missing or damaged; whether any was.

        Raises:
            Conflict: a version is there with another content.
        """
        added = False
        for version, data in enumerate(roots, start=1):
            path = self._metadata(f"{version}.root.json")
            held = self._objects.read(path)
            if held == data:
                continue
            if held is None and self._objects.create(path, data):
                added = True
                continue
            held = self._objects.read(path)  # another process may have written it meanwhile
            if held == data:
                continue
            if held is not None and _is_root(held, self.prefix):
                raise Conflict(
                    f"{path} exists with another content: this repository was begun with other keys",
                    hint="use the keys of its beginning, or an empty data directory",
                )
            self._objects.replace(path, data)
            added = True
        return added

    def current(self) -> Published | None:
        """What is published, or None before the first publication.

        Raises:
            IntegrityError: the store holds something that our keys never signed.
        """
        head = self._objects.read_tagged(self._metadata("timestamp.json"))
        roots = self.roots()
        if head is None or not roots:
            return None
        timestamp = self._by_any_root(Timestamp, head.data, roots)
        snapshot = self._by_any_root(Snapshot, self._numbered(timestamp.snapshot_meta.version, "snapshot"), roots)
        body = self._numbered(snapshot.meta["targets.json"].version, "targets")
        return Published(timestamp, snapshot, self._by_any_root(Targets, body, roots), body, head)

    def damaged_head(self) -> Tagged | None:
        """``timestamp.json`` whatever it holds: what :meth:`publish` replaces where :meth:`current` refuses it."""
        return self._objects.read_tagged(self._metadata("timestamp.json"))

    def publish(
        self,
        targets: bytes,
        version: int,
        before: Published | None,
        *,
        minimum: int = 1,
        head: Tagged | None = None,
    ) -> None:
        """Make ``targets`` (signed, of that version) what clients see. The targets' files are there already.

        Args:
            before: what clients see now.
            minimum: snapshot and timestamp get at least this version.
            head: the damaged timestamp that is replaced, where ``before`` is None for that reason.

        Raises:
            Conflict: another list of targets was published under this version, or somebody published meanwhile.
        """
        path = self._metadata(f"{version}.targets.json")
        if not self._objects.create(path, targets) and self._objects.read(path) != targets:
            raise Conflict(f"version {version} of {self.prefix}/targets was taken meanwhile by another list")
        self._point_at(targets, version, before, minimum, head)

    def free_targets_version(self, minimum: int) -> int:
        """The lowest version from ``minimum`` on that no targets file has."""
        while self._objects.stat(self._metadata(f"{minimum}.targets.json")) is not None:
            minimum += 1
        return minimum

    def highest_number(self) -> int:
        """The highest number in the name of a file; no file needs to be sound."""
        names = [path.rpartition("/")[2] for path in self._objects.paths(f"{self.prefix}/metadata")]
        return max((int(match[1]) for name in names if (match := _numbered.fullmatch(name))), default=0)

    def newest_list(self) -> int:
        """The highest version of a list of targets that lies here, published or not; 0 where there is none."""
        return max((number for number, _ in self._files("targets")), default=0)

    def vouched_list(self, root: Root) -> int:
        """The version of the list that the newest sound snapshot vouches for; 0 where there is none."""
        for _, path in sorted(self._files("snapshot"), reverse=True):
            data = self._objects.read(path)
            with contextlib.suppress(IntegrityError):
                return verified(Snapshot, data or b"", root, self.prefix).meta["targets.json"].version
        return 0

    def _files(self, role: str) -> list[tuple[int, str]]:
        found = []
        for path in self._objects.paths(f"{self.prefix}/metadata"):
            match = _numbered.fullmatch(path.rpartition("/")[2])
            if match and match[2] == role:
                found.append((int(match[1]), path))
        return found

    def sign_timestamp(self, published: Published) -> None:
        """Publish a new timestamp of the same snapshot."""
        number = published.timestamp.snapshot_meta.version
        self._write_timestamp(
            self._numbered(number, "snapshot"), number, published.timestamp.version + 1, published.head
        )

    def renew(self, now: datetime) -> bool:
        """Sign timestamp and snapshot anew when half of their life is over; whether anything was signed."""
        published = self.current()
        if published is None:
            return False
        if stale(published.snapshot, self._lifetimes.snapshot, now):
            self._point_at(published.targets_bytes, published.targets.version, published, 1)
            return True
        if stale(published.timestamp, self._lifetimes.timestamp, now):
            self.sign_timestamp(published)
            return True
        return False

    def targets_file(self, version: int) -> bytes | None:
        """A numbered list of targets, published or not, unverified."""
        return self._objects.read(self._metadata(f"{version}.targets.json"))

    def drop_targets(self, version: int) -> None:
        """Remove a numbered list of targets that was never published."""
        self._objects.delete(self._metadata(f"{version}.targets.json"))

    def prune(self, keep: int) -> int:
        """Remove old snapshots and targets, all but the newest ``keep`` of each, and target files that none of the
        kept ones names; how many objects went. Never for releases: their files are named by the newest list."""
        published = self.current()
        if published is None:
            return 0
        paths = sorted(self._objects.paths(self.prefix))
        lists = self._old(paths, "targets", published.targets.version, keep)
        gone = [*self._old(paths, "snapshot", published.snapshot.version, keep), *lists]
        named: set[str] = set()
        for path in paths:
            if _numbered.fullmatch(path.rpartition("/")[2]) and ".targets." in path and path not in lists:
                named |= self._named_by(path)
        gone += [path for path in paths if path.startswith(f"{self.prefix}/targets/") and path not in named]
        for path in gone:
            self._objects.delete(path)
        return len(gone)

    def _old(self, paths: Sequence[str], role: str, newest: int, keep: int) -> list[str]:
        found = [
            (int(match[1]), path)
            for path in paths
            if (match := _numbered.fullmatch(path.rpartition("/")[2])) and match[2] == role and int(match[1]) <= newest
        ]
        return [path for _, path in sorted(found)[:-keep]]

    def _named_by(self, path: str) -> set[str]:
        data = self._objects.read(path)
        try:
            targets = Metadata[Targets].from_bytes(data).signed.targets if data else {}
        except DeserializationError:  # an old list that was damaged: nobody could follow it
            return set()
        return {
            f"{self.prefix}/targets/{stored_target(name, target_sha256(target, self.prefix))}"
            for name, target in targets.items()
        }

    def _point_at(
        self, targets: bytes, version: int, before: Published | None, minimum: int, head: Tagged | None = None
    ) -> None:
        number = max(minimum, 1 if before is None else before.snapshot.version + 1)
        while True:
            snapshot = Snapshot(
                version=number,
                expires=self._now() + self._lifetimes.snapshot,
                meta={"targets.json": meta_file(targets, version)},
            )
            data = signed_bytes(snapshot, [self._signer])
            if self._objects.create(self._metadata(f"{number}.snapshot.json"), data):
                break
            number += 1  # the name is taken by a publication that was cut short
        lowest = max(minimum, 1 if before is None else before.timestamp.version + 1)
        self._write_timestamp(data, number, lowest, head if before is None else before.head)

    def raise_to(self, minimum: int) -> None:
        """Sign what is published anew, under versions of at least ``minimum``: after a restore, nobody may go back."""
        published = self.current()
        if published is not None and published.timestamp.version < minimum:
            self._point_at(published.targets_bytes, published.targets.version, published, minimum)

    def _write_timestamp(self, snapshot: bytes, snapshot_version: int, version: int, before: Tagged | None) -> None:
        timestamp = Timestamp(
            version=version,
            expires=self._now() + self._lifetimes.timestamp,
            snapshot_meta=meta_file(snapshot, snapshot_version),
        )
        data = signed_bytes(timestamp, [self._signer])
        if not self._objects.swap(self._metadata("timestamp.json"), data, before):
            raise Conflict(f"{self.prefix}: somebody else published meanwhile", hint="read again, then decide again")

    def _by_any_root(self, kind: type[Role], data: bytes, roots: Sequence[bytes]) -> Role:
        """``data`` verified by the newest root that accepts it: after a change of keys the last files are old ones."""
        for count in range(len(roots), 1, -1):
            with contextlib.suppress(IntegrityError):
                return verified(kind, data, self._judges.latest(roots[:count], self.prefix), self.prefix)
        return verified(kind, data, self._judges.latest(roots[:1], self.prefix), self.prefix)

    def _metadata(self, name: str) -> str:
        return f"{self.prefix}/metadata/{name}"

    def _numbered(self, version: int, role: str) -> bytes:
        data = self._objects.read(self._metadata(f"{version}.{role}.json"))
        if data is None:
            raise IntegrityError(f"{self.prefix}: {version}.{role}.json is signed for, and missing in the store")
        return data


def _is_root(data: bytes, name: str) -> bool:
    """Whether ``data`` is a root at all, of whomever; what is none was damaged."""
    try:
        first_root(data, name)
    except IntegrityError:
        return False
    return True


def stale(signed: Signed, lifetime: timedelta, now: datetime) -> bool:
    """Whether half of its life is over."""
    return signed.expires - now < lifetime / 2
