"""SKELETON; being filled in."""

from collections.abc import Callable, Iterable
from pathlib import Path

from nearcast.registry.fetch import Fetch
from nearcast.resources.release import ReleaseManifest

Progress = Callable[[int, int], None]


class ArtifactStore:
    """The files of releases on a node, under ``models/``. Thread-safe."""

    def __init__(self, directory: Path, *, byte_budget: int | None = None) -> None:
        raise NotImplementedError

    def path_of(self, digest: str) -> Path:
        """``models/<hex>``: where the release with that digest lies, complete, or nothing."""
        raise NotImplementedError

    def ensure(self, manifest: ReleaseManifest, fetch: Fetch, progress: Progress | None = None) -> Path:
        """The directory of the release: complete and verified. Downloads what is missing.

        Raises:
            Unavailable: no connection, no room on disk or in the budget; what has arrived is kept for the next try.
            IntegrityError: a blob has another digest or is longer than the manifest says.
        """
        raise NotImplementedError

    def verify(self, manifest: ReleaseManifest) -> Path:
        """The directory of the release, all files read and compared. Raises NotFound, IntegrityError. No network."""
        raise NotImplementedError

    def discard(self, digest: str) -> None:
        """Remove one release and what only it uses, so that :meth:`ensure` fetches it anew."""
        raise NotImplementedError

    def collect(self, wanted: Iterable[str]) -> int:
        """Remove every release not in ``wanted`` (release digests) and leftovers; bytes freed."""
        raise NotImplementedError

    def used_bytes(self) -> int:
        """Bytes that this store takes on disk."""
        raise NotImplementedError
