"""The files of releases on a node: content-addressed, verified, and laid out as the engine opens them.

::

    models/<release digest>/…      the files by their path; the directory is complete or absent
    models/.blobs/<digest>         each distinct file once; releases hold hard links to it
    models/.blobs/<digest>.part    what has arrived of a file; a later download goes on from here

Two versions that share a tokenizer share its bytes, on disk and on the wire. Whatever dies at whatever moment, the
next :meth:`ArtifactStore.ensure` goes on: a file is verified and fsynced before it gets its name, a release gets its
name last and loses it first.

Not decided here: which releases a node wants, and whether a manifest may be believed (:mod:`client`).
"""

import errno
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nearcast.durable import sync_directory, sync_file
from nearcast.errors import IntegrityError, NotFound, Unavailable
from nearcast.registry.blobs import Progress, blob_path, digest_of_file, hex_of
from nearcast.registry.fetch import Fetch, refusal
from nearcast.registry.refused import BLOB, MANIFEST, Attack, TrustRefused
from nearcast.resources.release import File, ReleaseManifest, release_digest, target_path

TIMEOUT_S = 30.0
FRUITLESS_ATTEMPTS = 3
FRUITFUL_BYTES = 1 << 16
"""A download is given up after :data:`FRUITLESS_ATTEMPTS` in a row that each brought less than this."""
NO_LINKS = frozenset({errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class NoRoom(Unavailable):
    """The disk, or the node's budget of it, is full: somebody must make room."""


class ArtifactStore:
    """The files of releases below one directory. Thread-safe; one process per directory.

    Args:
        directory: the node's ``models/``; made.
        byte_budget: bytes that all files may take together; None for as much as the disk holds.
        pause: waits that many seconds between attempts.
    """

    def __init__(
        self, directory: Path, *, byte_budget: int | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._directory = directory
        self._blobs = directory / ".blobs"
        self._byte_budget = byte_budget
        self._pause = pause
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._active = 0
        self._blobs.mkdir(parents=True, exist_ok=True)

    def path_of(self, digest: str) -> Path:
        """Where the release with that digest lies, if it is here."""
        return self._directory / hex_of(digest)

    def ensure(self, manifest: ReleaseManifest, fetch: Fetch, progress: Progress | None = None) -> Path:
        """The directory of the release, complete and verified; what is missing or damaged is downloaded.

        Args:
            manifest: believed already, see :class:`client.TrustedRepository`.
            fetch: where blobs come from; any mirror will do.
            progress: told (bytes done, bytes in all) as they arrive or are found.

        Returns:
            A directory with the files of the manifest by their paths, and nothing else. Costs a read of all bytes.

        Raises:
            Unavailable: no connection. What has arrived is kept.
            NoRoom: on the disk, or in the budget. Likewise.
            IntegrityError: what came under the name of a blob has another digest, or is longer than it may be.
        """
        _check_paths(manifest)
        digest = release_digest(manifest)
        with self._in_use(), self._locked(hex_of(digest)), _room_for(manifest, self._directory):
            place = self.path_of(digest)
            if place.is_dir():
                try:
                    return self.verify(manifest, progress)
                except IntegrityError:
                    self._remove(place)
            told = _Told(manifest.size_bytes, progress)
            missing = [file for file in _distinct(manifest) if not self._is_sound(file)]
            self._check_room(missing, manifest)
            told.add(manifest.size_bytes - sum(file.size_bytes for file in missing))
            for file in missing:
                self._fetch_file(file, fetch, told)
            self._lay_out(manifest, place)
            return place

    def verify(self, manifest: ReleaseManifest, progress: Progress | None = None) -> Path:
        """The directory of the release, every file read and compared. Needs no network.

        Raises:
            NotFound: the release is not here.
            IntegrityError: a file was changed, is missing, or is one too many.
        """
        digest = release_digest(manifest)
        place = self.path_of(digest)
        if not place.is_dir():
            raise NotFound(f"release {manifest.model}@{manifest.version} ({digest}) is not on this node")
        told = _Told(manifest.size_bytes, progress)
        found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_symlink() or path.is_file()}
        expected = {file.path for file in manifest.files}
        if found != expected:
            details = f"expected the files {sorted(expected)}, found {sorted(found)}"
            raise TrustRefused(Attack.ON_DISK, BLOB, str(place), details)
        for file in manifest.files:
            path = place / file.path
            if path.is_symlink() or path.stat().st_size != file.size_bytes:
                raise TrustRefused(Attack.ON_DISK, BLOB, str(path), f"expected a file of {file.size_bytes} bytes")
            contents = digest_of_file(path, told.add)
            if contents != file.digest:
                raise TrustRefused(Attack.ON_DISK, BLOB, str(path), f"expected {file.digest}, found {contents}")
        return place

    def collect(self, wanted: Iterable[str]) -> int:
        """Remove every release that is not in ``wanted`` (release digests), and leftovers; bytes freed.

        A process that has files of one open keeps them. While a release is being fetched, partial files and leftovers
        stay.
        """
        with self._lock:
            before = self.used_bytes()
            keep = {hex_of(digest) for digest in wanted} | {self._blobs.name}
            for path in list(self._directory.iterdir()):
                if path.name not in keep and not (self._active and path.name.startswith(".")):
                    self._remove(path)
            self._drop_unlinked()
            return before - self.used_bytes()

    def used_bytes(self) -> int:
        """Bytes that the files take, partial ones included; what releases share counts once."""
        sizes: dict[int, int] = {}
        for folder, _, names in os.walk(self._directory):
            for name in names:
                stat = Path(folder, name).lstat()
                sizes[stat.st_ino] = stat.st_size
        return sum(sizes.values())

    # --- one file ---

    def _is_sound(self, file: File) -> bool:
        """Whether the blob is here and unchanged; a changed one is removed."""
        path = self._blob(file)
        with self._locked(path.name):
            if not path.exists():
                return False
            if path.stat().st_size == file.size_bytes and digest_of_file(path) == file.digest:
                return True
            path.unlink()
            return False

    def _fetch_file(self, file: File, fetch: Fetch, told: "_Told") -> None:
        path = self._blob(file)
        part = path.with_name(f"{path.name}.part")
        base = told.done
        with self._locked(path.name):
            if not path.exists():  # another release with the same file may have been faster
                begun_before = part.exists()
                self._download(file, part, fetch, told)
                found = digest_of_file(part)
                if found != file.digest and begun_before:  # the older half may be what a power cut has left of it
                    part.unlink()
                    told.at(base)
                    self._download(file, part, fetch, told)
                    found = digest_of_file(part)
                if found != file.digest:
                    part.unlink()
                    raise TrustRefused(Attack.TAMPERED, BLOB, file.path, f"expected blob {file.digest}, got {found}")
                sync_file(part)
                part.chmod(0o444)
                part.replace(path)
                sync_directory(self._blobs)
        told.at(base + file.size_bytes)

    def _download(self, file: File, part: Path, fetch: Fetch, told: "_Told") -> None:
        """Fill ``part`` up to the file's size, going on after each interruption. Not verified yet."""
        part.touch()
        base, fruitless = told.done, 0
        while (before := part.stat().st_size) != file.size_bytes:
            try:
                self._download_rest(file, part, fetch, lambda done: told.at(base + done))
            except Unavailable:
                fruitless = fruitless + 1 if part.stat().st_size < before + FRUITFUL_BYTES else 0
                if fruitless >= FRUITLESS_ATTEMPTS:
                    raise
                self._pause(random.uniform(0.2, 0.6) * 2**fruitless)  # noqa: S311 — jitter, not a secret
        told.at(base + file.size_bytes)

    def _download_rest(self, file: File, part: Path, fetch: Fetch, tell: Callable[[int], None]) -> None:
        path = blob_path(file.digest)
        have = part.stat().st_size
        with (
            part.open("r+b") as out,
            fetch.get(path, start=have if have < file.size_bytes else 0, timeout_s=TIMEOUT_S) as answer,
        ):
            if answer.status not in {200, 206} or answer.start > have:
                out.truncate(0)
                if answer.status in {404, 416}:
                    raise Unavailable(f"{path} is not there, or not whole (status {answer.status})", retry_after_s=5.0)
                raise refusal(answer, path)
            out.truncate(answer.start)
            out.seek(answer.start)
            for chunk in answer.body:
                if out.tell() + len(chunk) > file.size_bytes:
                    out.truncate(0)
                    details = f"expected {file.size_bytes} bytes, more came"
                    raise TrustRefused(Attack.ENDLESS, BLOB, file.path, details)
                out.write(chunk)
                tell(out.tell())
            if out.tell() < file.size_bytes:
                raise Unavailable(f"{path} ended after {out.tell()} of {file.size_bytes} bytes")

    def _blob(self, file: File) -> Path:
        return self._blobs / hex_of(file.digest)

    # --- one release ---

    def _lay_out(self, manifest: ReleaseManifest, place: Path) -> None:
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._directory))
        try:
            folders = {staging}
            for file in manifest.files:
                target = staging / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                folders |= {folder for folder in target.parents if folder.is_relative_to(staging)}
                _link_or_copy(self._blob(file), target)
            for folder in sorted(folders, reverse=True):
                folder.chmod(0o755)
                sync_directory(folder)
            staging.rename(place)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_directory(self._directory)

    def _remove(self, path: Path) -> None:
        """Remove a release (or a leftover): its name goes first, so that none is ever seen in parts."""
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=self._directory))
        path.rename(gone / path.name)
        sync_directory(self._directory)
        shutil.rmtree(gone)

    def _drop_unlinked(self) -> None:
        """Remove blobs that no release holds and partial downloads, unless somebody is fetching."""
        if self._active:
            return
        for path in list(self._blobs.iterdir()):
            if path.suffix == ".part" or path.stat().st_nlink == 1:
                path.unlink()

    def _check_room(self, missing: list[File], manifest: ReleaseManifest) -> None:
        needed = 0
        for file in missing:
            part = self._blobs / f"{hex_of(file.digest)}.part"
            needed += file.size_bytes - (min(part.stat().st_size, file.size_bytes) if part.exists() else 0)
        name = f"{manifest.model}@{manifest.version}"
        used = self.used_bytes()
        if self._byte_budget is not None and used + needed > self._byte_budget:
            raise NoRoom(
                f"no room for {name}: it needs {needed} more bytes, {used} of {self._byte_budget} are taken",
                retry_after_s=60.0,
                hint="raise the node's budget for models, or remove deployments from this site",
            )
        free = shutil.disk_usage(self._directory).free
        if needed > free:
            raise NoRoom(
                f"no room for {name}: it needs {needed} more bytes, the disk has {free} left",
                retry_after_s=60.0,
                hint=f"free some space below {self._directory}",
            )

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._lock:
            self._active += 1
        try:
            yield
        finally:
            with self._lock:
                self._active -= 1

    def _locked(self, name: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(name, threading.Lock())


class _Told:
    """Adds up progress for whoever wants to know."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done = 0
        self._total = total
        self._progress = progress

    def at(self, done: int) -> None:
        self.done = done
        if self._progress is not None:
            self._progress(done, self._total)

    def add(self, count: int) -> None:
        self.at(self.done + count)


def _check_paths(manifest: ReleaseManifest) -> None:
    paths = [file.path for file in manifest.files]
    odd = [path for path in paths if path.startswith("/") or {"", ".", ".."} & set(path.split("/")) or "\\" in path]
    if odd or len(set(paths)) != len(paths):
        name = target_path(manifest.model, manifest.version)
        raise TrustRefused(Attack.ARBITRARY, MANIFEST, name, f"expected relative paths, each once; got {paths}")


def _distinct(manifest: ReleaseManifest) -> list[File]:
    return list({file.digest: file for file in manifest.files}.values())


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
        target.chmod(0o444)
        sync_file(target)


@contextmanager
def _room_for(manifest: ReleaseManifest, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = f"{manifest.model}@{manifest.version}"
        if error.errno in NO_ROOM:
            raise NoRoom(
                f"the disk is full: {name} needs {manifest.size_bytes} bytes below {directory}",
                retry_after_s=60.0,
                hint="free some space; what has arrived is kept",
            ) from error
        raise Unavailable(f"cannot write {name} below {directory}: {error}", retry_after_s=30.0) from error
