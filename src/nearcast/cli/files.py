"""Files that users name on the command line: read, decoded and written, with errors that say which file and what to do.

Decides nothing of what is in them.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, TypeVar

from nearcast.cli.options import Format
from nearcast.durable import DiskFull, write_whole
from nearcast.errors import InvalidInput, NearcastError, NotFound

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
Found = TypeVar("Found")


def read_named(path: Path, what: str, way_out: str) -> bytes:
    """The bytes of ``path``, which should be ``what``.

    Raises:
        NotFound: there is no such file; ``way_out`` says how to get one.
        InvalidInput: it cannot be read, or is larger than such a file can be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"expected {what} in {path}; there is no such file", hint=way_out) from error
    except OSError as error:
        raise InvalidInput(f"expected {what} in {path}; it cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"expected {what} of at most {MAX_FILE_BYTES} bytes in {path}; it is larger")
    return data


def decoded(path: Path, data: bytes, decode: Callable[[bytes], Found]) -> Found:
    """What ``decode`` makes of ``data`` from ``path``; its complaints name the file."""
    try:
        return decode(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.message}", hint=error.hint) from error


def check_target(path: Path) -> None:
    """That a file can be written to ``path``: asked before the work whose result it shall hold.

    Raises:
        InvalidInput: nothing can be written there, or it is the name of a format, which is meant for another command.
    """
    if path.name in set(Format) and path.parent == Path():
        raise InvalidInput(
            f"expected the name of a file, got {path.name!r}, which is a format",
            hint="it has one format only: name a file, such as saved.json",
        )
    path = _end_of(path)
    if path.is_dir():
        raise InvalidInput(f"{path} cannot be written: it is a folder", hint="name a file in it, or beside it")
    if _is_stream(path):
        return
    folder = path.parent
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise InvalidInput(f"{path} cannot be written: the folder {folder} {what}", hint="make it, or name another one")
    try:
        with TemporaryFile(dir=folder):  # what permissions say is not enough: some file systems take no files
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_named(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all; no folder is made.

    A link stays, and the file that it leads to is replaced. A device or a pipe is written into: to replace
    ``/dev/null`` by a file, which root may do, would break the machine.

    Raises:
        InvalidInput: as :func:`check_target`.
        DiskFull: there is no room.
    """
    check_target(path)
    path = _end_of(path)
    try:
        if _is_stream(path):
            with path.open("wb") as stream:
                stream.write(data)
        else:
            write_whole(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _end_of(path: Path) -> Path:
    """Where links lead; those of ``/dev/stdout`` to what is no file lead nowhere, and stay."""
    if not path.is_symlink() or _is_stream(path):
        return path
    try:
        return path.resolve()
    except RuntimeError as error:  # what Python makes of a circle
        raise InvalidInput(f"{path} cannot be written: its links lead in a circle", hint="name another file") from error


def _is_stream(path: Path) -> bool:
    """Whether it is there and takes what is written into it: a device, a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _unwritable(path: Path, error: OSError) -> NearcastError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(path, error)
    return InvalidInput(f"{path} cannot be written: {error.strerror}", hint="name a file in a folder of yours")
