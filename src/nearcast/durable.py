"""Files that are either the old or the new one, never half of one, whatever dies in between.

The order is the only one that survives a power cut: write a temporary file beside the target, fsync it, rename it over
the target, fsync the directory. Locking between processes is not decided here.
"""

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Final

from nearcast.errors import Unavailable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFull(Unavailable, OSError):
    """There is no room for a file. Nothing is half written, and a later attempt may find room."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot write {path}: {error.strerror}",
            retry_after_s=30.0,
            hint="make room on that disk; what is written down stays as it is until then",
        )
        self.errno = error.errno
        self.strerror = error.strerror

    def __str__(self) -> str:
        return self.message


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` atomically and durably; parents are made.

    Args:
        path: the file to replace.
        data: all of its new content.
        mode: permission bits, in force before the first byte is written (0o600 for keys and tokens).

    Raises:
        DiskFull: there is no room. Like any other OSError: the old file is then untouched, no temporary file is left.
    """
    try:
        _write_whole(path, data, mode)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(path, error) from error
        raise


def write_if_changed(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """As :func:`write_whole`, but what is there already needs no room."""
    if read_if_exists(path) != data:
        write_whole(path, data, mode=mode)


def _write_whole(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals inside ``path`` durable."""
    _sync(path)


def sync_file(path: Path) -> None:
    """Make what was written into ``path`` durable."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_if_exists(path: Path) -> bytes | None:
    """The content of ``path``, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
