"""A folder, a bucket or memory behind one port: whole objects by path, never half of one.

Reads, listing and deletion go through obstore everywhere. Writes into a folder do not: obstore renames atomically but
does not fsync, and what a control plane has acknowledged must survive a power cut, so :class:`FolderObjects` writes
through fsync and rename (or link, where the name must be new).

Not decided here: what the paths mean (:mod:`blobs`, :mod:`repository`), and who may read them (the control plane).
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from nearcast.durable import sync_directory, sync_file, write_whole
from nearcast.errors import InvalidInput, NotFound, Unavailable

CHUNK_BYTES = 1 << 20
SPOOL_LIFE_S = 86_400.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says of an object. ``etag`` (quoted) changes whenever the content may have changed."""

    size_bytes: int
    etag: str


class Objects(Protocol):
    """Whole objects by path. Each write is atomic; in a folder it is also durable when the call returns.

    Every method raises :class:`InvalidInput` for a path that is not plain, :class:`Unavailable` when the store cannot
    be reached or is full.
    """

    def stat(self, path: str) -> Stored | None:
        """Size and etag of the object, or None where there is none."""

    def read(self, path: str) -> bytes | None:
        """The whole object, or None where there is none. For small objects: all of it comes into memory."""

    def stream(self, path: str, start: int = 0) -> Iterator[bytes]:
        """The object from byte ``start`` on, in chunks. Raises :class:`NotFound`."""

    def replace(self, path: str, data: bytes) -> None:
        """Write the object, whether or not it exists."""

    def create(self, path: str, data: bytes) -> bool:
        """Write the object only if there is none; False, and nothing changed, if there is one."""

    def adopt(self, path: str, file: Path) -> None:
        """Make the object out of a local file, replacing what is there; the file is gone afterwards."""

    def paths(self, prefix: str) -> Iterator[str]:
        """Paths of all objects below the folder ``prefix``, in no order."""

    def delete(self, path: str) -> None:
        """Remove the object; nothing happens where there is none."""

    def spool(self) -> Path:
        """A local directory from which :meth:`adopt` is cheapest."""


def open_objects(url: str) -> Objects:
    """The store at ``url``: a path or ``file:///…`` (made when missing), ``memory:``, ``s3://``, ``gs://``, ``az://``.

    Credentials of cloud stores come from their usual environment variables.

    Raises:
        InvalidInput: the scheme is unknown or the URL is incomplete.
    """
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        return FolderObjects(Path(unquote(parts.path) if parts.scheme else url).expanduser())
    if parts.scheme == "memory":
        return StoreObjects(MemoryStore())
    try:
        return StoreObjects(from_url(url))
    except (BaseError, ValueError) as error:
        raise InvalidInput(
            f"expected the URL of an object store, got {url!r}: {_first_line(error)}",
            hint="a folder, file:///…, s3://bucket/prefix, gs://bucket/prefix or az://account/container/prefix",
        ) from error


def plain_path(path: str) -> str:
    """``path`` itself, when it is relative, has no empty, ``.``, ``..`` or hidden part and no odd character.

    Raises:
        InvalidInput: otherwise.
    """
    parts = path.split("/")
    if not path.isascii() or not path.isprintable() or any(not part or part[0] == "." for part in parts):
        raise InvalidInput(f"expected a relative object path without '..' and hidden parts, got {path!r}")
    if any(symbol in path for symbol in '\\%*?#"<>|'):
        raise InvalidInput(f"expected an object path of plain characters, got {path!r}")
    return path


class StoreObjects:
    """Objects in any store that obstore knows (also memory, for tests)."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def stat(self, path: str) -> Stored | None:
        """See :class:`Objects`."""
        try:
            meta = _reached(lambda: obstore.head(self._store, plain_path(path)))
        except FileNotFoundError:
            return None
        return Stored(size_bytes=meta["size"], etag=meta["e_tag"] or f'"{meta["size"]}-{meta["last_modified"]}"')

    def read(self, path: str) -> bytes | None:
        """See :class:`Objects`."""
        try:
            return bytes(_reached(lambda: obstore.get(self._store, plain_path(path)).bytes()))
        except FileNotFoundError:
            return None

    def stream(self, path: str, start: int = 0) -> Iterator[bytes]:
        """See :class:`Objects`."""
        meta = self.stat(path)
        if meta is None:
            raise NotFound(f"no object at {path!r}")
        if start >= meta.size_bytes:
            return iter(())
        try:
            result = _reached(lambda: obstore.get(self._store, path, options={"range": {"offset": start}}))
        except FileNotFoundError as error:
            raise NotFound(f"no object at {path!r}") from error
        return _chunks(iter(result.stream(min_chunk_size=CHUNK_BYTES)))

    def replace(self, path: str, data: bytes) -> None:
        """See :class:`Objects`."""
        _reached(lambda: obstore.put(self._store, plain_path(path), data))

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Objects`."""
        try:
            _reached(lambda: obstore.put(self._store, plain_path(path), data, mode="create"))
        except AlreadyExistsError:
            return False
        return True

    def adopt(self, path: str, file: Path) -> None:
        """See :class:`Objects`."""
        _reached(lambda: obstore.put(self._store, plain_path(path), file))
        file.unlink()

    def paths(self, prefix: str) -> Iterator[str]:
        """See :class:`Objects`."""
        for meta in _reached(lambda: obstore.list(self._store, prefix=plain_path(prefix)).collect()):
            if not any(part.startswith(".") for part in meta["path"].split("/")):
                yield meta["path"]

    def delete(self, path: str) -> None:
        """See :class:`Objects`."""
        with contextlib.suppress(FileNotFoundError):
            _reached(lambda: obstore.delete(self._store, plain_path(path)))

    def spool(self) -> Path:
        """See :class:`Objects`."""
        return Path(tempfile.gettempdir())


class FolderObjects(StoreObjects):
    """Objects in a local folder; what a write has returned from survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        _make_folder(self._folder)
        super().__init__(LocalStore(self._folder))
        for left in self.spool().iterdir():  # by a process that died; a running one writes to its file
            if time.time() - left.stat().st_mtime > SPOOL_LIFE_S:
                left.unlink(missing_ok=True)

    def replace(self, path: str, data: bytes) -> None:
        """See :class:`Objects`."""
        with _room(path):
            write_whole(self._target(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Objects`."""
        with _room(path):
            target = self._target(path)
            temporary = self.spool() / f"{os.getpid()}.{os.urandom(8).hex()}"
            try:
                with temporary.open("xb") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                target.hardlink_to(temporary)  # unlike a rename, this fails where the name is taken
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(target.parent)
            return True

    def adopt(self, path: str, file: Path) -> None:
        """See :class:`Objects`."""
        with _room(path):
            target = self._target(path)
            sync_file(file)
            file.chmod(0o644)
            file.replace(target)
            sync_directory(target.parent)

    def spool(self) -> Path:
        """See :class:`Objects`."""
        spool = self._folder / ".incoming"
        spool.mkdir(mode=0o700, exist_ok=True)
        return spool

    def _target(self, path: str) -> Path:
        target = self._folder / plain_path(path)
        _make_folder(target.parent)
        return target


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents, each durable: a file is no safer than the directories above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_directory(folder.parent)


@contextlib.contextmanager
def _room(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot write {path!r}: {error.strerror}", retry_after_s=30.0) from error


def _reached(call: Callable[[], Result]) -> Result:
    """The result of ``call``; an unreachable store is :class:`Unavailable`, a missing object FileNotFoundError."""
    try:
        return call()
    except AlreadyExistsError:
        raise
    except BaseError as error:
        raise Unavailable(f"the object store failed: {_first_line(error)}", retry_after_s=5.0) from error


def _chunks(stream: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        chunk = _reached(lambda: next(stream, None))
        if chunk is None:
            return
        yield bytes(chunk)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
