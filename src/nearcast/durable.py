"""Files that are either the old or the new one, never half of one, whatever dies in between.

The order is the only one that survives a power cut: write a temporary file beside the target, fsync it, rename it over
the target, fsync the directory. Locking between processes is not decided here.
"""

import contextlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` atomically and durably; parents are made.

    Args:
        path: the file to replace.
        data: all of its new content.
        mode: permission bits, in force before the first byte is written (0o600 for keys and tokens).

    Raises:
        OSError: the old file is then untouched and no temporary file is left.
    """
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
