"""The control plane as one value: every part opened in order, wired once, and handed to the API and to the loop.

Decides where parts come from and what a first start makes (fleet name, keys, roots, admin token). What they do is
theirs. One process serves a data directory: a lock on it is held until :meth:`ControlPlane.close`. Replicas have a
directory each, and share database, object store and secrets; one that holds other secrets than the fleet's is refused.
"""

import fcntl
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from securesystemslib.signer import Signer

from nearcast.control.authority import AUTHORITY_LIFETIME, Authority, load_or_create_authority
from nearcast.control.bell import Bell
from nearcast.control.database import Database
from nearcast.control.decisions import Decisions
from nearcast.control.follower import Follower
from nearcast.control.leader import Leader
from nearcast.control.members import Members
from nearcast.control.nodes import NodeBook
from nearcast.control.publisher import Publisher
from nearcast.control.recorder import Recorder
from nearcast.control.releases import ReleaseIndex
from nearcast.control.reports import Reports
from nearcast.control.settings import Settings
from nearcast.control.steady import SteadyClock
from nearcast.control.store import Clock, Store, timestamp
from nearcast.control.tables import Setting
from nearcast.control.throttle import Throttle
from nearcast.control.tokens import ADMIN_PREFIX, METRICS_PREFIX, load_or_create_token
from nearcast.control.transitions import Transitions
from nearcast.durable import read_if_exists, sync_directory, write_whole
from nearcast.errors import Conflict, IntegrityError, InvalidInput
from nearcast.registry.blobs import BlobStore
from nearcast.registry.keys import load_or_create_signer
from nearcast.registry.objects import Objects, open_objects
from nearcast.registry.plans import PlansRepository, new_plans_root
from nearcast.registry.releases import ReleasesRepository
from nearcast.registry.trust import first_root

log = logging.getLogger(__name__)

_FLEET: Final = re.compile(
    r"(?=.{1,189}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+"
)
"""A DNS name with room for ``<site>.`` in front of it."""


_ROOT_COPIES: Final = "Copy it back from repository/plans/*/metadata/1.root.json, or restore a backup."
MIN_CERTIFICATE_LIFETIME: Final = timedelta(seconds=10)

_KEYS_MADE: Final = "keys_made"
_SECRETS: Final = "secrets_sha256"
_KEY_FILES: Final = ("ca.key", "ca.pem", "online.key", "plans.root.json")


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
    decisions: Decisions
    leader: Leader
    follower: Follower
    bell: Bell
    throttle: Throttle
    lock: int

    def close(self) -> None:
        """Give back the lead, the database and the lock."""
        try:
            if self.leader.leads:
                self.transitions.flush()
            self.leader.resign()
        finally:
            self.database.close()
            os.close(self.lock)


def open_control_plane(settings: Settings, clock: Clock | None = None) -> ControlPlane:
    """Open (at the first start: make) the control plane of ``settings.data_dir``.

    Raises:
        Conflict: another process serves this directory.
        InvalidInput: a setting or a file is not what it must be.
        Unavailable: database or object store cannot be reached.
    """
    now = clock or _wall
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _locked(settings)
    try:
        return _opened(settings, now, lock)
    except BaseException:
        os.close(lock)
        raise


def _wall() -> datetime:
    return datetime.now(UTC)


def _opened(settings: Settings, now: Clock, lock: int) -> ControlPlane:
    database = Database(settings.database_url)
    try:
        return _wired(settings, database, now, lock)
    except BaseException:
        database.close()
        raise


def _steady(database: Database, now: Clock) -> tuple[Clock, Callable[[datetime], None]]:
    """The clock by which silence is measured, and who has to hear what the clock shows that replicas share."""
    if now is not _wall:
        return now, lambda _: None
    steady = SteadyClock(database.now if database.is_shared else now)
    return steady, steady.follow if database.is_shared else lambda _: None


def _wired(settings: Settings, database: Database, now: Clock, lock: int) -> ControlPlane:
    recorder = Recorder()
    recorder.watch_database(database.engine)
    with _making(settings):
        admin_sha256, fleet, authority, online, root = _secrets(settings, database, now())
        metrics_sha256 = load_or_create_token(settings.metrics_token_file, METRICS_PREFIX)
    settings.own_keys_dir.mkdir(mode=0o700, exist_ok=True)
    if read_if_exists(settings.ca_file) != authority.pem.encode():
        write_whole(settings.ca_file, authority.pem.encode())
    objects = recorder.watched_store(open_objects(settings.repository_url))
    objects.reach()
    _sweep(settings, objects)
    blobs = BlobStore(objects)
    releases = ReleasesRepository(objects, blobs, online, now)
    plans = PlansRepository(objects, root, online, now)
    members = Members(database, now)
    steady, told = _steady(database, now)
    nodes = NodeBook(members, Reports(database), steady, settings.node_timeout_s)
    transitions = Transitions(database, now)
    index, leader, bell = ReleaseIndex(releases), Leader(database, told=told), Bell()
    publisher, decisions = Publisher(plans, leader), Decisions(database)
    leader.hold()
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
        nodes=nodes,
        transitions=transitions,
        objects=objects,
        blobs=blobs,
        releases=releases,
        index=index,
        plans=plans,
        plans_root=root,
        publisher=publisher,
        decisions=decisions,
        leader=leader,
        follower=Follower(database, members, nodes, transitions, index, publisher, decisions, leader, bell),
        bell=bell,
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


@contextmanager
def _making(settings: Settings) -> Iterator[None]:
    """Alone while secrets are made: two replicas that start for the first time share the folder and its lock."""
    settings.keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    tokens = (settings.admin_token_file, settings.metrics_token_file)
    if all(path.exists() for path in (*(settings.keys_dir / name for name in _KEY_FILES), *tokens)):
        yield  # nothing will be made, and the folder may be mounted read-only
        return
    try:
        opened = (settings.keys_dir / ".lock").open("ab")
    except OSError as error:
        lost = sorted(name for name in (*_KEY_FILES, *(path.name for path in tokens)) if not _held(settings, name))
        raise InvalidInput(
            f"{', '.join(lost)} cannot be made: nothing can be written into {settings.keys_dir} ({error.strerror})",
            hint="Make the folder writable for one start, or put in the files of another replica.",
        ) from error
    with opened as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _held(settings: Settings, name: str) -> bool:
    return any((folder / name).exists() for folder in (settings.keys_dir, settings.admin_token_file.parent))


def _secrets(settings: Settings, database: Database, now: datetime) -> tuple[str, str, Authority, Signer, bytes]:
    """Hash of the admin token, fleet, authority, online key and root of plans: made at the first start of the fleet."""
    admin_sha256 = load_or_create_token(settings.admin_token_file, ADMIN_PREFIX)
    fleet = _fleet(settings, database)
    _require_keys(settings, database)
    lifetime = timedelta(seconds=settings.certificate_lifetime_s)
    if not MIN_CERTIFICATE_LIFETIME <= lifetime <= AUTHORITY_LIFETIME:
        raise InvalidInput(
            f"expected certificates that live {MIN_CERTIFICATE_LIFETIME.total_seconds():g} s to"
            f" {AUTHORITY_LIFETIME.days} days, got {lifetime.total_seconds():g} s"
        )
    authority = replace(load_or_create_authority(settings.keys_dir, fleet, now), node_lifetime=lifetime)
    online = load_or_create_signer(settings.keys_dir / "online.key")
    root = _plans_root(settings, online, now)
    if database.setting(_KEYS_MADE) is None:
        database.set_setting(_KEYS_MADE, timestamp(now))
    if database.is_shared:
        parts = (authority.sha256, online.public_key.keyid, hashlib.sha256(root).hexdigest(), admin_sha256)
        _require_same(settings, database, hashlib.sha256(" ".join(parts).encode()).hexdigest())
    return admin_sha256, fleet, authority, online, root


def _require_same(settings: Settings, database: Database, ours: str) -> None:
    """Refuse to be a replica with other keys or another admin token than the others: half of all calls would fail."""
    with database.write() as session:
        held = session.get(Setting, _SECRETS)
        if held is None:
            session.add(Setting(key=_SECRETS, value=ours))
        elif held.value != ours:
            raise InvalidInput(
                f"the keys and the admin token in {settings.keys_dir} are not those of the fleet in this database",
                hint="Give every replica the same --secrets: a shared folder, or copies of one.",
            )


def _require_keys(settings: Settings, database: Database) -> None:
    """Refuse to make keys a second time: no node of the fleet would believe in new ones, and the old would be gone."""
    if database.setting(_KEYS_MADE) is None:
        return
    lost = [name for name in _KEY_FILES if not (settings.keys_dir / name).exists()]
    if lost:
        raise InvalidInput(
            f"{', '.join(lost)} is missing in {settings.keys_dir}, and no node would believe in new keys",
            hint="Restore the directory from a backup; a replica needs the --secrets of the others. Without any, "
            "start a new fleet with an empty directory and database.",
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
