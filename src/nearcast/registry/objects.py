"""A folder, a bucket or memory behind one port: whole objects by path, never half of one.

Reads, listing and deletion go through obstore everywhere. Writes into a folder do not: obstore renames atomically but
does not fsync, and what a control plane has acknowledged must survive a power cut, so :class:`FolderObjects` writes
through fsync and rename (or link, where the name must be new). Timeouts, retries with jitter and uploads in parts are
obstore's, bounded by :data:`CLIENT` and :data:`RETRIES`.

Not decided here: what the paths mean (:mod:`blobs`, :mod:`repository`), and who may read them (the control plane).
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from nearcast.durable import sync_directory, sync_file, write_whole
from nearcast.errors import InvalidInput, NotFound, Unavailable
from nearcast.registry.store_errors import first_line, names_no_bucket, no_bucket, refused

CHUNK_BYTES = 1 << 20
SPOOL_LIFE_S = 86_400.0
PAGE: Final = 1000
"""Paths of a listing that are held at a time."""
PART_BYTES: Final = 8 << 20
"""Larger files travel in parts of this size, a few at a time."""
PARTS_AT_ONCE: Final = 4
CLIENT: Final = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "10min"}
"""``timeout`` bounds a whole exchange: a part on its way up, or all of a blob on its way down."""
RETRIES: Final[Any] = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store says of an object. ``etag`` (quoted) changes whenever the content may have changed."""

    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object as it was read. The tags name this very content, and let :meth:`Objects.swap` replace nothing else."""

    data: bytes
    e_tag: str | None = None
    version: str | None = None


class Objects(Protocol):
    """Whole objects by path. Each write is atomic; in a folder it is also durable when the call returns.

    Every method raises :class:`InvalidInput` for a path that is not plain or a bucket that is not there,
    :class:`Forbidden` or :class:`Unauthenticated` where the store refuses us, :class:`Unavailable` when it cannot be
    reached or is full.
    """

    def reach(self) -> None:
        """Raises when the store cannot be used: for a clear word at the start."""

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

    def read_tagged(self, path: str) -> Tagged | None:
        """As :meth:`read`, for a later :meth:`swap`."""

    def swap(self, path: str, data: bytes, before: Tagged | None) -> bool:
        """Write the object only if it still is ``before`` (None: only if there is none); else False, and no change.

        Where the answer of the store was lost, True also says that the object has this content already.
        """

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

    Credentials of cloud stores, and an endpoint of one's own, come from their usual environment variables.

    Raises:
        InvalidInput: the scheme is unknown or the URL is incomplete.
    """
    parts = urlsplit(url)
    if parts.scheme in {"", "file"}:
        return FolderObjects(Path(unquote(parts.path) if parts.scheme else url).expanduser())
    if parts.scheme == "memory":
        return StoreObjects(MemoryStore())
    said = f"expected the URL of an object store, got {url!r}"
    hint = "a folder, file:///…, s3://bucket/prefix, gs://bucket/prefix, or az://container/prefix with "
    hint += "AZURE_STORAGE_ACCOUNT_NAME"
    if parts.scheme not in CLOUDS or not parts.netloc:
        raise InvalidInput(said, hint=hint)
    try:
        options: Any = client_options(parts.scheme, os.environ)
        return StoreObjects(from_url(url, client_options=options, retry_config=RETRIES), url)
    except (BaseError, ValueError) as error:
        raise InvalidInput(f"{said}: {first_line(error)}", hint=hint) from error


ENDPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL",),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""The variables that name another endpoint than the cloud's own."""
CLOUDS: Final = frozenset(ENDPOINTS)
_CLEAR: Final = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP")


def client_options(scheme: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of the HTTP client. In the clear only where the environment says so, or to this machine itself."""
    given = (environment[name] for name in ENDPOINTS[scheme] if environment.get(name))
    here = urlsplit(next(given, "")).hostname in {"localhost", "127.0.0.1", "::1"}
    asked = any(environment.get(name, "").lower() in {"1", "true"} for name in _CLEAR)
    return {**CLIENT, "allow_http": True} if asked or here else dict(CLIENT)


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

    def __init__(self, store: ObjectStore, where: str = "the object store") -> None:
        self._store = store
        self._where = where

    def reach(self) -> None:
        """See :class:`Objects`."""
        self._reached(lambda: next(iter(obstore.list(self._store, chunk_size=1)), None))

    def stat(self, path: str) -> Stored | None:
        """See :class:`Objects`."""
        try:
            meta = self._reached(lambda: obstore.head(self._store, plain_path(path)))
        except FileNotFoundError:
            return None
        return Stored(size_bytes=meta["size"], etag=meta["e_tag"] or f'"{meta["size"]}-{meta["last_modified"]}"')

    def read(self, path: str) -> bytes | None:
        """See :class:`Objects`."""
        try:
            return bytes(self._reached(lambda: obstore.get(self._store, plain_path(path)).bytes()))
        except FileNotFoundError:
            return None

    def read_tagged(self, path: str) -> Tagged | None:
        """See :class:`Objects`."""

        def read() -> Tagged:
            result = obstore.get(self._store, plain_path(path))
            return Tagged(bytes(result.bytes()), result.meta["e_tag"], result.meta["version"])

        try:
            return self._reached(read)
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
            result = self._reached(lambda: obstore.get(self._store, path, options={"range": {"offset": start}}))
        except FileNotFoundError as error:
            raise NotFound(f"no object at {path!r}") from error
        return self._chunks(iter(result.stream(min_chunk_size=CHUNK_BYTES)))

    def replace(self, path: str, data: bytes) -> None:
        """See :class:`Objects`."""
        self._written(lambda: obstore.put(self._store, plain_path(path), data))

    def create(self, path: str, data: bytes) -> bool:
        """See :class:`Objects`."""
        try:
            self._written(lambda: obstore.put(self._store, plain_path(path), data, mode="create"))
        except AlreadyExistsError:
            return False
        return True

    def swap(self, path: str, data: bytes, before: Tagged | None) -> bool:
        """See :class:`Objects`."""
        if before is None:
            return self.create(path, data) or self.read(path) == data
        tags = {"e_tag": before.e_tag, "version": before.version}
        mode: Any = {name: tag for name, tag in tags.items() if tag is not None}
        try:
            self._reached(lambda: obstore.put(self._store, plain_path(path), data, mode=mode))
        except (PreconditionError, FileNotFoundError):
            return self.read(path) == data
        return True

    def adopt(self, path: str, file: Path) -> None:
        """See :class:`Objects`."""
        self._written(
            lambda: obstore.put(
                self._store, plain_path(path), file, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        )
        file.unlink()

    def paths(self, prefix: str) -> Iterator[str]:
        """See :class:`Objects`."""
        pages = iter(obstore.list(self._store, prefix=plain_path(prefix), chunk_size=PAGE))
        while page := self._reached(lambda: next(pages, None)):
            for meta in page:
                if not any(part.startswith(".") for part in meta["path"].split("/")):
                    yield meta["path"]

    def delete(self, path: str) -> None:
        """See :class:`Objects`."""
        with contextlib.suppress(FileNotFoundError):
            self._reached(lambda: obstore.delete(self._store, plain_path(path)))

    def spool(self) -> Path:
        """See :class:`Objects`."""
        return Path(tempfile.gettempdir())

    def _chunks(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        while (chunk := self._reached(lambda: next(stream, None))) is not None:
            yield bytes(chunk)

    def _written(self, call: Callable[[], Result]) -> Result:
        """As :meth:`_reached`: what is not there when something is written is the bucket, however it is put."""
        try:
            return self._reached(call)
        except FileNotFoundError as error:
            raise no_bucket(self._where) from error

    def _reached(self, call: Callable[[], Result]) -> Result:
        """The result of ``call``; a missing object is FileNotFoundError, what the store says an error of ours."""
        try:
            return call()
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            if names_no_bucket(error):
                raise no_bucket(self._where) from error
            raise
        except BaseError as error:
            raise refused(error, self._where) from error


class FolderObjects(StoreObjects):
    """Objects in a local folder; what a write has returned from survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        _make_folder(self._folder)
        super().__init__(LocalStore(self._folder), str(self._folder))
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

    def reach(self) -> None:
        """See :class:`Objects`."""

    def read_tagged(self, path: str) -> Tagged | None:
        """See :class:`Objects`."""
        data = self.read(path)
        return None if data is None else Tagged(data, hashlib.sha256(data).hexdigest())

    def swap(self, path: str, data: bytes, before: Tagged | None) -> bool:
        """See :class:`Objects`. Alone by a lock in the folder: other processes of this machine respect it."""
        with _room(path), (self.spool().parent / ".swap.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            held = self.read(path)
            if held != (None if before is None else before.data):
                return held == data
            write_whole(self._target(path), data)
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
