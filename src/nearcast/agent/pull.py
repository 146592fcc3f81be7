"""Getting plans and releases onto this node: verified before anything believes them. Blocking; called from threads.

Decides in which order sources are asked (the disk first: what was verified once is verified again, without a network)
and what a failure is called in conditions. What may be believed is decided in `registry.client`, what is wanted and
when to try again in `reconcile`.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from nearcast.agent.identity import Membership, check_root, read_credential
from nearcast.agent.layout import Layout
from nearcast.agent.states import (
    Blame,
    Fetched,
    FetchFailed,
    Key,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
)
from nearcast.errors import Forbidden, IntegrityError, NearcastError, NotFound, Unauthenticated, Unavailable
from nearcast.registry.artifacts import ArtifactStore, NoRoom
from nearcast.registry.blobs import Progress
from nearcast.registry.client import TrustedRepository
from nearcast.registry.fetch import Fetch, FolderFetch, HttpFetch
from nearcast.registry.refused import BLOB, MANIFEST, Attack, TrustRefused
from nearcast.registry.trust import Clock
from nearcast.resources.plan import SitePlan
from nearcast.resources.release import ReleaseManifest

UNREACHABLE: Final = "Unreachable"
NOT_ADMITTED: Final = "NotAdmitted"
TRUST_REFUSED: Final = "TrustRefused"
"""Something on the way, or on our own disk, is not what was signed; the message names attack, role and file."""
UNSIGNED_RELEASE: Final = "UnsignedRelease"
DIGEST_MISMATCH: Final = "DigestMismatch"
NO_ROOM: Final = "NoRoom"
DISK_TROUBLE: Final = "DiskTrouble"


class Repository(Protocol):
    """What may be believed; `registry.client.TrustedRepository` is one."""

    def poll_plan(self) -> SitePlan | None:
        """The new plan, or None where there is nothing new. Uses the network."""

    def verified_plan(self) -> SitePlan | None:
        """The plan kept last, or None before the first. No network."""

    def release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """A release by fresh metadata."""

    def verified_release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        """A release that was verified before. No network."""

    def refresh_releases(self) -> bool:
        """Look for newer metadata of releases."""


class Artifacts(Protocol):
    """The files of releases; `registry.artifacts.ArtifactStore` is one."""

    def verify(self, manifest: ReleaseManifest, progress: Progress | None = None) -> Path:
        """The directory of a release that is here, every file compared."""

    def ensure(self, manifest: ReleaseManifest, fetch: Fetch, progress: Progress | None = None) -> Path:
        """The directory of a release, downloaded where it is not here."""

    def collect(self, wanted: Iterable[str]) -> int:
        """Remove all other releases; bytes freed."""


class Abandoned(NearcastError):
    """Nobody wants this download any more."""

    code = "abandoned"


@dataclass(frozen=True, slots=True)
class Held:
    """A release on disk, verified."""

    manifest: ReleaseManifest
    directory: Path


class Puller:
    """Plans, releases and files for one node. Safe for several threads.

    Args:
        repository: what may be believed.
        artifacts: the files on disk.
        fetch: where blobs come from.
    """

    def __init__(self, repository: Repository, artifacts: Artifacts, fetch: Fetch) -> None:
        self._repository = repository
        self._artifacts = artifacts
        self._fetch = fetch
        self._guard = threading.Lock()
        self._held: dict[str, Held] = {}
        self._damage: IntegrityError | None = None  # of our copy of the plan, until a fresh one replaces it

    def stored_plan(self) -> PlanReceived | PlanRefused | None:
        """The plan of before, verified again; None before the first. No network."""
        try:
            plan = self._repository.verified_plan()
        except NearcastError as error:
            self._damage = error if isinstance(error, IntegrityError) else None
            return _plan_refused(error)
        return None if plan is None else PlanReceived(plan)

    def poll(self) -> PlanReceived | PlanUnchanged | PlanRefused:
        """Ask the repository for a new plan."""
        try:
            plan = self._repository.poll_plan()
        except NearcastError as error:
            return _plan_refused(error, self._damage)
        self._damage = None
        return PlanUnchanged() if plan is None else PlanReceived(plan)

    def refresh_releases(self) -> None:
        """Look for newer metadata of releases; what is wrong with it shows when a release is wanted."""
        self._repository.refresh_releases()

    def obtain(self, key: Key, release: str, progress: Progress) -> Fetched | FetchFailed | None:
        """Have the files of a release verified on disk, from disk or by download; None once abandoned.

        Args:
            key: model and version.
            release: digest of the manifest, as the plan names it.
            progress: told (bytes done, bytes in all); raises :class:`Abandoned` to stop.
        """
        damage: IntegrityError | None = None
        try:
            found = self._from_disk(key, release, progress)
            damage = found if isinstance(found, IntegrityError) else None
            held = found if isinstance(found, Held) else self._download(key, release, progress)
        except Abandoned:
            return None
        except NearcastError as error:
            told = _worse(damage, error)
            return FetchFailed(key, release, _blame(error), _fetch_reason(told), _message(damage, error))
        except OSError as error:
            return FetchFailed(key, release, Blame.TRANSIENT, DISK_TROUBLE, str(error))
        with self._guard:
            self._held[release] = held
        return Fetched(key, release, held.manifest.size_bytes)

    def held(self, release: str) -> Held | None:
        """A release that was obtained, as long as its directory is there."""
        with self._guard:
            held = self._held.get(release)
        return held if held is not None and held.directory.is_dir() else None

    def collect(self, keep: frozenset[str]) -> int:
        """Remove the files of all releases but ``keep``; bytes freed."""
        with self._guard:
            self._held = {release: held for release, held in self._held.items() if release in keep}
        return self._artifacts.collect(keep)

    def _from_disk(self, key: Key, release: str, progress: Progress) -> Held | IntegrityError | None:
        """The release as it lies here, or what is wrong with it; None where it is not here."""
        try:
            manifest = self._repository.verified_release(key.model, key.version, release)
            return Held(manifest, self._artifacts.verify(manifest, progress))
        except NotFound:
            return None
        except IntegrityError as error:
            return error  # fresh metadata and a download decide

    def _download(self, key: Key, release: str, progress: Progress) -> Held:
        manifest = self._repository.release(key.model, key.version, release)
        return Held(manifest, self._artifacts.ensure(manifest, self._fetch, progress))


def open_puller(layout: Layout, membership: Membership, now: Clock, *, model_bytes: int | None = None) -> Puller:
    """The puller of a node that has joined.

    Raises:
        IntegrityError: a root is missing, or is not the one that the join token pinned.
        InvalidInput: the repository's URL is none that we can use.
    """
    try:
        releases_root, plans_root = layout.releases_root.read_bytes(), layout.plans_root.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(f"the trust of this node is incomplete: {error.filename} is missing") from error
    check_root(releases_root, membership.releases_root_sha256, "releases")
    check_root(plans_root, membership.plans_root_sha256, "plans")
    fetch = open_fetch(layout, membership.repository)
    repository = TrustedRepository(
        layout.trust,
        fleet=membership.fleet,
        site=membership.site,
        fetch=fetch,
        now=now,
        plans_root=plans_root,
        plans_root_sha256=membership.plans_root_sha256,
        releases_root=releases_root,
        releases_root_sha256=membership.releases_root_sha256,
    )
    return Puller(repository, ArtifactStore(layout.models, byte_budget=model_bytes), fetch)


def open_fetch(layout: Layout, url: str) -> Fetch:
    """How the repository at ``url`` is read: over HTTPS with our credential, or from a folder (``file:``)."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderFetch(Path(unquote(parts.path)))
    return HttpFetch(url, ca_file=layout.authority, credential=read_credential(layout) or None, attempts=2)


def _plan_refused(error: NearcastError, damage: IntegrityError | None = None) -> PlanRefused:
    reasons: tuple[tuple[type[NearcastError], str], ...] = (
        (IntegrityError, TRUST_REFUSED),
        (Unauthenticated, NOT_ADMITTED),
        (Forbidden, NOT_ADMITTED),
    )
    told = _worse(damage, error)
    reason = next((name for kind, name in reasons if isinstance(told, kind)), UNREACHABLE)
    return PlanRefused(_blame(error), reason, _message(damage, error))


def _blame(error: NearcastError) -> Blame:
    return Blame.REFUSED if isinstance(error, IntegrityError | Unauthenticated | Forbidden) else Blame.TRANSIENT


def _worse(damage: IntegrityError | None, error: NearcastError) -> NearcastError:
    """What to call it: damage on our own disk, when ``error`` only says that there is no replacement now."""
    return damage if damage is not None and type(error) is Unavailable else error


def _message(damage: IntegrityError | None, error: NearcastError) -> str:
    return error.message if damage is None else f"{damage.message}; and no replacement: {error.message}"


def _fetch_reason(error: NearcastError) -> str:
    match error:
        case TrustRefused(attack=Attack.UNSIGNED):
            return UNSIGNED_RELEASE
        case TrustRefused() if error.role in {BLOB, MANIFEST} or error.attack is Attack.WRONG_RELEASE:
            return DIGEST_MISMATCH
        case IntegrityError():
            return TRUST_REFUSED
        case Unauthenticated() | Forbidden():
            return NOT_ADMITTED
        case NoRoom():
            return NO_ROOM
        case _:
            return UNREACHABLE
