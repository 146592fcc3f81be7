"""SKELETON; being filled in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from securesystemslib.signer import Key, Signer

from nearcast.registry.blobs import BlobStore
from nearcast.registry.objects import Objects
from nearcast.registry.trust import Clock, Lifetimes
from nearcast.resources.release import ReleaseManifest


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """One release, as the signed list of releases names it."""

    model: str
    version: str
    digest: str
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
    """Releaser's side: version 1 of the root of trust of releases. Pinned by its sha256 in join tokens."""
    raise NotImplementedError


def new_targets(signer: Signer, *, now: datetime, lifetimes: Lifetimes | None = None) -> bytes:
    """Releaser's side: version 1 of the list of releases, empty."""
    raise NotImplementedError


def propose(
    root: bytes,
    targets: bytes,
    manifest: ReleaseManifest,
    signer: Signer,
    *,
    now: datetime,
    lifetimes: Lifetimes | None = None,
) -> bytes:
    """Releaser's side: ``targets`` (as the control plane gave it; verified against ``root``) with one release more,
    version + 1, signed. Post it with ``expected_version=version_of(targets)``."""
    raise NotImplementedError


def countersign(root: bytes, targets: bytes, signer: Signer) -> bytes:
    """Releaser's side: a second signature on a proposal, for a threshold above 1."""
    raise NotImplementedError


def version_of(metadata: bytes) -> int:
    """The version of any TUF metadata file."""
    raise NotImplementedError


def online_key_of(root: bytes) -> Key:
    """The key that signs timestamps under ``root``: take it from the plans root to make the releases root."""
    raise NotImplementedError


class ReleasesRepository:
    """Control plane's side of ``releases/``. Thread-safe."""

    def __init__(
        self,
        objects: Objects,
        blobs: BlobStore,
        online_signer: Signer,
        now: Clock,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        raise NotImplementedError

    def initialise(self, root: bytes, targets: bytes) -> None:
        """Begin: once; the same bytes again are a no-op, others a Conflict."""
        raise NotImplementedError

    def root(self) -> bytes | None:
        """1.root.json, or None before :meth:`initialise`. Its sha256 goes into join tokens."""
        raise NotImplementedError

    def targets(self) -> tuple[bytes, int]:
        """The accepted list of releases and its version. Raises NotFound before :meth:`initialise`."""
        raise NotImplementedError

    def accept(self, targets: bytes, manifest: bytes, expected_version: int) -> int:
        """Publish a proposal; the new version. Raises Conflict, IntegrityError, InvalidInput, NotFound (a blob)."""
        raise NotImplementedError

    def list(self) -> tuple[ReleaseEntry, ...]:
        """All releases, by model and version; empty before :meth:`initialise`."""
        raise NotImplementedError

    def manifest(self, model: str, version: str) -> ReleaseManifest:
        """The manifest of a release. Raises NotFound."""
        raise NotImplementedError

    def renew(self, now: datetime) -> bool:
        """Sign timestamp and snapshot anew when half of their life is over; whether anything was signed."""
        raise NotImplementedError
