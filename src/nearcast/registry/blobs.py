"""Bytes by their digest: the only place where the weights of a fleet lie. The digest is the trust.

Layout: ``blobs/sha256/ab/<64 hexadecimal digits>``. A blob is complete or absent, and immutable. Nothing is deleted
here: a release is immutable, and so is what it needs.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from nearcast.errors import IntegrityError, InvalidInput, NotFound, Unavailable
from nearcast.registry.objects import CHUNK_BYTES, Objects
from nearcast.resources.names import DIGEST_PATTERN

_digest = re.compile(DIGEST_PATTERN)

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of ``sha256:…``.

    Raises:
        InvalidInput: it is not such a digest.
    """
    if _digest.fullmatch(digest) is None:
        raise InvalidInput(f"expected a digest 'sha256:' and 64 hexadecimal digits, got {digest!r}")
    return digest.removeprefix("sha256:")


def blob_path(digest: str) -> str:
    """Where a blob lies in the store, and below the repository's URL."""
    digits = hex_of(digest)
    return f"blobs/sha256/{digits[:2]}/{digits}"


def digest_of_file(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The digest of a file, read in chunks; ``progress`` is told the size of each."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return f"sha256:{checksum.hexdigest()}"


class Incoming:
    """A blob on its way in: written chunk by chunk, kept only by :meth:`commit`. A context manager."""

    def __init__(self, objects: Objects, digest: str) -> None:
        self._objects = objects
        self._digest = digest
        self._path = blob_path(digest)
        self._checksum = hashlib.sha256()
        try:
            handle, name = tempfile.mkstemp(prefix="blob.", dir=objects.spool())
        except OSError as error:
            raise Unavailable(f"cannot take blob {digest}: {error.strerror}", retry_after_s=30.0) from error
        self._file = os.fdopen(handle, "wb")
        self._temporary = Path(name)
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises :class:`Unavailable` when the disk is full."""
        try:
            self._file.write(chunk)
        except OSError as error:
            raise Unavailable(f"cannot take blob {self._digest}: {error.strerror}", retry_after_s=30.0) from error
        self._checksum.update(chunk)
        self.size_bytes += len(chunk)

    def commit(self) -> int:
        """Verify and keep the blob; its size in bytes.

        Raises:
            IntegrityError: the bytes have another digest; nothing is kept.
        """
        arrived = f"sha256:{self._checksum.hexdigest()}"
        if arrived != self._digest:
            raise IntegrityError(f"expected blob {self._digest}, got {self.size_bytes} bytes with digest {arrived}")
        try:
            self._file.close()
        except OSError as error:
            raise Unavailable(f"cannot keep blob {self._digest}: {error.strerror}", retry_after_s=30.0) from error
        self._objects.adopt(self._path, self._temporary)
        return self.size_bytes

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the disk is full; the caller knows already
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class BlobStore:
    """Blobs in an object store. Safe for several threads and processes: blobs are immutable, writes atomic."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def size(self, digest: str) -> int | None:
        """Bytes of the blob, or None where it is missing. It was verified when it came; whoever reads it does again."""
        stored = self._objects.stat(blob_path(digest))
        return None if stored is None else stored.size_bytes

    def receive(self, digest: str) -> Incoming:
        """Begin to take a blob whose chunks arrive one by one (``with … as incoming``)."""
        return Incoming(self._objects, digest)

    def put(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Take a blob; its size. Idempotent; a damaged blob is repaired by putting it again.

        Raises:
            IntegrityError: the chunks have another digest; nothing is kept.
        """
        with self.receive(digest) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.commit()

    def require(self, digest: str, size_bytes: int) -> None:
        """Make sure that the blob is there, with that size.

        Raises:
            NotFound: it is missing.
            IntegrityError: it has another size.
        """
        found = self.size(digest)
        if found is None:
            raise NotFound(f"blob {digest} is not in the store", hint="push the files of a release before its manifest")
        if found != size_bytes:
            raise IntegrityError(f"expected blob {digest} of {size_bytes} bytes, the store has {found}")
