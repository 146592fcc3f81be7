"""The control plane as one value: every part opened in order, wired once, and handed to the API and to the loop.

Decides where parts come from and what a first start makes (fleet name, keys, roots, admin token). What they do is
theirs. One process serves a data directory: a lock on it is held until :meth:`ControlPlane.close`.
"""

import fcntl
import logging
import os
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from securesystemslib.signer import Signer

from nearcast.control.authority import AUTHORITY_LIFETIME, Authority, load_or_create_authority
from nearcast.control.bell import Bell
from nearcast.control.database import Database
from nearcast.control.members import Members
from nearcast.control.nodes import NodeBook
from nearcast.control.publisher import Publisher
from nearcast.control.recorder import Recorder
from nearcast.control.settings import Settings
from nearcast.control.store import Clock, Store, timestamp
from nearcast.control.throttle import Throttle
from nearcast.control.tokens import ADMIN_PREFIX, METRICS_PREFIX, load_or_create_token
from nearcast.control.transitions import Transitions
from nearcast.durable import read_if_exists, sync_directory, write_whole
from nearcast.errors import Conflict, IntegrityError, InvalidInput
from nearcast.registry.blobs import BlobStore
from nearcast.registry.keys import load_or_create_signer
from nearcast.registry.objects import Objects, open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.releases import ReleaseEntry, ReleasesRepository
from nearcast.registry.trust import first_root

log = logging.getLogger(__name__)

_FLEET: Final = re.compile(
    r"(?=.{1,189}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+"
)
"""A DNS name with room for ``<site>.`` in front of it."""


_ROOT_COPIES: Final = "Copy it back from repository/plans/*/metadata/1.root.json, or restore a backup."
MIN_CERTIFICATE_LIFETIME: Final = timedelta(seconds=10)

_KEYS_MADE: Final = "keys_made"
_KEY_FILES: Final = ("ca.key", "ca.pem", "online.key", "plans.root.json")


class ReleaseIndex:
    """The releases, read once and after every push: nobody else writes them. Safe for several threads."""

    def __init__(self, repository: ReleasesRepository) -> None:
        self._repository = repository
        self._guard = threading.Lock()
        self._entries: Mapping[tuple[str, str], ReleaseEntry] = MappingProxyType({})
        self.refresh()

    def refresh(self) -> None:
        """Read them again."""
        entries = {(entry.model, entry.version): entry for entry in self._repository.list()}
        with self._guard:
            self._entries = MappingProxyType(entries)

    def entries(self) -> Mapping[tuple[str, str], ReleaseEntry]:
        """(model, version) -> release."""
        with self._guard:
            return self._entries

    def models(self) -> frozenset[str]:
        """Models that have a release."""
        return frozenset(model for model, _ in self.entries())


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """All parts of one control plane. Make it with :func:`open_control_plane`, close it when done."""

    settings: Settings
    fleet: str
    clock: Clock
    admin_sha256: str = field(repr=False)
    metrics_sha256: str = field(repr=False)
    recorder: Recorder
    authority: Authority
    database: Database
    store: Store
    members: Members
    nodes: NodeBook
    transitions: Transitions
    objects: Objects
    blobs: BlobStore
    releases: ReleasesRepository
    index: ReleaseIndex
    plans: PlansRepository
    plans_root: bytes
    publisher: Publisher
    bell: Bell
    throttle: Throttle
    lock: int

    def close(self) -> None:
        """Give back the database and the lock."""
        self.transitions.flush()
        self.database.close()
        os.close(self.lock)


def open_control_plane(settings: Settings, clock: Clock | None = None) -> ControlPlane:
    """Open (at the first start: make) the control plane of ``settings.data_dir``.

    Raises:
        Conflict: another process serves this directory.
        InvalidInput: a setting or a file is not what it must be.
        Unavailable: database or object store cannot be reached.
    """
    now = clock or (lambda: datetime.now(UTC))
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _locked(settings)
    try:
        return _opened(settings, now, lock)
    except BaseException:
        os.close(lock)
        raise


def _opened(settings: Settings, now: Clock, lock: int) -> ControlPlane:
    settings.keys_dir.mkdir(mode=0o700, exist_ok=True)
    recorder = Recorder()
    admin_sha256 = load_or_create_token(settings.admin_token_file, ADMIN_PREFIX)
    metrics_sha256 = load_or_create_token(settings.metrics_token_file, METRICS_PREFIX)
    database = Database(settings.database_url)
    recorder.watch_database(database.engine)
    fleet = _fleet(settings, database)
    _require_keys(settings, database)
    lifetime = timedelta(seconds=settings.certificate_lifetime_s)
    if not MIN_CERTIFICATE_LIFETIME <= lifetime <= AUTHORITY_LIFETIME:
        raise InvalidInput(
            f"expected certificates that live {MIN_CERTIFICATE_LIFETIME.total_seconds():g} s to"
            f" {AUTHORITY_LIFETIME.days} days, got {lifetime.total_seconds():g} s"
        )
    authority = replace(load_or_create_authority(settings.keys_dir, fleet, now()), node_lifetime=lifetime)
    if read_if_exists(settings.ca_file) != authority.pem.encode():
        write_whole(settings.ca_file, authority.pem.encode())
    online = load_or_create_signer(settings.keys_dir / "online.key")
    root = _plans_root(settings, online, now())
    if database.setting(_KEYS_MADE) is None:
        database.set_setting(_KEYS_MADE, timestamp(now()))
    objects = recorder.watched_store(open_objects(settings.repository_url))
    _sweep(settings, objects)
    blobs = BlobStore(objects)
    releases = ReleasesRepository(objects, blobs, online, now)
    plans = PlansRepository(objects, root, online, now)
    members = Members(database, now)
    return ControlPlane(
        settings=settings,
        fleet=fleet,
        clock=now,
        admin_sha256=admin_sha256,
        metrics_sha256=metrics_sha256,
        recorder=recorder,
        authority=authority,
        database=database,
        store=Store(database, now),
        members=members,
        nodes=NodeBook(members, now, settings.node_timeout_s),
        transitions=Transitions(database, now),
        objects=objects,
        blobs=blobs,
        releases=releases,
        index=ReleaseIndex(releases),
        plans=plans,
        plans_root=root,
        publisher=Publisher(plans),
        bell=Bell(),
        throttle=Throttle(),
        lock=lock,
    )


def _locked(settings: Settings) -> int:
    """An open file whose lock says that this process serves the directory; a death of any kind gives it back."""
    descriptor = os.open(settings.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(
            f"another control plane serves {settings.data_dir}", hint="Stop it, or choose another --data-dir."
        ) from error
    return descriptor


def _require_keys(settings: Settings, database: Database) -> None:
    """Refuse to make keys a second time: no node of the fleet would believe in new ones, and the old would be gone."""
    if database.setting(_KEYS_MADE) is None:
        return
    lost = [name for name in _KEY_FILES if not (settings.keys_dir / name).exists()]
    if lost:
        raise InvalidInput(
            f"{', '.join(lost)} is missing in {settings.keys_dir}, and no node would believe in new keys",
            hint="Restore the directory from a backup. Without one, start a new fleet in an empty directory.",
        )


def _fleet(settings: Settings, database: Database) -> str:
    """The name of the fleet: that of the first start, for good."""
    held = database.setting("fleet")
    if settings.fleet is not None and _FLEET.fullmatch(settings.fleet) is None:
        raise InvalidInput(f"expected --fleet to be a DNS name such as fleet.example, got {settings.fleet!r}")
    if held is None and settings.fleet is None and (settings.keys_dir / "ca.pem").exists():
        raise InvalidInput(
            f"{settings.keys_dir} holds the keys of a fleet, but the database ({settings.data_dir / 'control.db'}, "
            "unless another was named) knows of none: it was lost or replaced",
            hint="Restore the database from a backup, or name the fleet with --fleet to begin anew with these keys.",
        )
    if held is None:
        held = settings.fleet or f"f{secrets.token_hex(4)}.nearcast.internal"
        database.set_setting("fleet", held)
    if settings.fleet not in {None, held}:
        raise InvalidInput(f"this control plane serves the fleet {held!r}, not {settings.fleet!r}")
    return held


def _plans_root(settings: Settings, online: Signer, now: datetime) -> bytes:
    """The root of trust of all plans, made at the first start. Its bytes never change: join tokens pin them."""
    path = settings.keys_dir / "plans.root.json"
    held = read_if_exists(path)
    if held is None:
        signer = load_or_create_signer(settings.keys_dir / "plans-root.key")
        held = new_plans_root(root_signers=[signer], online_key=online.public_key, now=now)
        write_whole(path, held)
    try:
        named = first_root(held, "plans")
    except IntegrityError as error:
        raise InvalidInput(f"{path} is damaged: {error.message}", hint=_ROOT_COPIES) from error
    if online.public_key.keyid not in named.roles["timestamp"].keyids:
        raise InvalidInput(
            f"{settings.keys_dir / 'online.key'} is damaged or another fleet's: {path} does not name its key",
            hint="Restore the directory from a backup: no node would believe in a new key.",
        )
    return held


def _sweep(settings: Settings, objects: Objects) -> None:
    """Remove uploads that a crash cut short: the directory is ours alone while we hold its lock."""
    if settings.repository is not None:
        return
    spool = objects.spool()
    for left in spool.iterdir():
        left.unlink()
        log.info("removed an upload that was cut short: %s", left.name)
    sync_directory(spool)
