"""Backups of one control plane in a file, taken while it runs, and put back into an empty directory.

Decides what belongs to one (database, secrets, repository), in which order it is read so that it fits together, and
how a fleet goes on from it although sites have seen what came after: every number that they compare is raised above
all that can have been published, and every plan is published anew.

Not for PostgreSQL or a bucket, which have tools of their own: docs/how-to/back-up-and-restore.md.
"""

import io
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from nearcast import __version__
from nearcast.control.settings import Settings
from nearcast.durable import sync_directory, sync_file
from nearcast.errors import Conflict, IntegrityError, InvalidInput, NearcastError, NotFound
from nearcast.resources.unreadable import UNREADABLE

RESTORED: Final = "restored_floor"
FORMAT: Final = 1
_HEAD: Final = "backup.json"
_END: Final = "end.json"
_DATABASE: Final = "control.db"
_UNFINISHED: Final = "control.db.part"
"""The database of a restore that is under way. Without a database nothing starts in a directory that holds keys."""
_WHOLE: Final = "Keep the last backup that is whole."
_ENDS: Final = "/metadata/timestamp.json"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first member of a backup: what it is."""

    format: int
    software: str
    taken_at_s: float
    fleet: str
    with_blobs: bool


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last member: how many files came before it. A tar that is cut between two files looks whole without it."""

    files: int


@dataclass(frozen=True, slots=True)
class Written:
    """What a backup holds."""

    fleet: str
    files: int
    size_bytes: int


def back_up(settings: Settings, target: Path, *, with_blobs: bool = True) -> Written:
    """Write all of ``settings.data_dir`` that cannot be made again into ``target``, which must not exist (0600).

    It may be taken while the control plane serves. The database is read first, and of each repository the timestamp:
    whatever these name was written before them, and is never changed.

    Raises:
        NotFound: there is no control plane in the directory.
        Conflict: the target exists.
        InvalidInput: it cannot be written.
    """
    database = settings.data_dir / _DATABASE
    if not database.exists():
        raise NotFound(f"there is no database of a control plane in {settings.data_dir}", hint="Check --data-dir.")
    if target.exists():
        raise Conflict(f"{target} exists already", hint="Choose another name: a backup replaces nothing.")
    partial = target.with_name(f".{target.name}.part")
    try:
        with tempfile.TemporaryDirectory() as scratch, _fresh(partial) as file:
            copy = Path(scratch) / _DATABASE
            fleet = _copy_database(database, copy)
            head = Head(format=FORMAT, software=__version__, taken_at_s=time.time(), fleet=fleet, with_blobs=with_blobs)
            files, size_bytes = 0, 0
            with tarfile.open(fileobj=file, mode="w|") as archive:
                _add(archive, _HEAD, msgspec.json.encode(head))
                for name, path in [(_DATABASE, copy), *_files(settings, with_blobs)]:
                    size_bytes += _add(archive, name, path.read_bytes() if name.endswith(_ENDS) else path)
                    files += 1
                _add(archive, _END, msgspec.json.encode(End(files=len(archive.getmembers()) - 1)))
        sync_file(partial)
        partial.rename(target)
        sync_directory(target.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, NearcastError):
            raise InvalidInput(f"cannot write {target}: {error.strerror or error}") from error
        raise
    return Written(fleet, files, size_bytes)


def restore(settings: Settings, source: Path) -> Written:
    """Put a backup into ``settings.data_dir``, which must be empty or missing.

    Raises:
        Conflict: the directory holds something.
        IntegrityError: the file is no backup, or not whole: then no control plane starts in the directory.
    """
    folder = settings.data_dir
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(f"{folder} is not empty", hint="Restore into an empty directory, and start from there.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files, size_bytes = 0, 0
    head: Head | None = None
    end: End | None = None
    try:
        with tarfile.open(source, mode="r|") as archive:
            for member in archive:
                if head is None:
                    head = _head(member, archive, source)
                    continue
                if member.name == _END:
                    end = _end(member, archive, source)
                    continue
                size_bytes += _extract(archive, member, folder)
                files += 1
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(f"{source} is not a whole backup: {error}", hint="Take another one.") from error
    except OSError as error:
        raise InvalidInput(f"cannot restore {source} into {folder}: {error}") from error
    if head is None or end is None or end.files != files or not (folder / _UNFINISHED).exists():
        expected = "more" if end is None else str(end.files)
        raise IntegrityError(
            f"{source} is not a whole backup: expected {expected} files, it holds {files}", hint="Take another one."
        )
    _raise_numbers(folder / _UNFINISHED, int(time.time()))
    sync_file(folder / _UNFINISHED)
    (folder / _UNFINISHED).rename(folder / _DATABASE)
    sync_directory(folder)
    return Written(head.fleet, files, size_bytes)


def _copy_database(source: Path, target: Path) -> str:
    """Copy a database that may be written to meanwhile, by SQLite's own means; the name of its fleet."""
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
            sound = copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            row = copy.execute("SELECT value FROM settings WHERE key = 'fleet'").fetchone()
    except sqlite3.DatabaseError as error:
        raise IntegrityError(f"the database {source} is damaged: {error}", hint=_WHOLE) from error
    if not sound:
        raise IntegrityError(f"the database {source} is damaged", hint=_WHOLE)
    return str(row[0]) if row else ""


def _files(settings: Settings, with_blobs: bool) -> Iterator[tuple[str, Path]]:
    """(name in the archive, file): secrets, then the repository, of each part its timestamp first."""
    for name in ("admin.token", "ca.pem"):
        if (path := settings.data_dir / name).exists():
            yield name, path
    yield from ((f"keys/{path.name}", path) for path in sorted((settings.data_dir / "keys").iterdir()) if _plain(path))
    repository = settings.data_dir / "repository"
    found = [path for path in sorted(repository.rglob("*")) if path.is_file()]
    names = {path.relative_to(settings.data_dir).as_posix(): path for path in found}
    kept = {
        name: path
        for name, path in names.items()
        if not any(part.startswith(".") for part in name.split("/"))
        and (with_blobs or not name.startswith("repository/blobs/"))
    }
    yield from sorted(kept.items(), key=lambda item: (not item[0].endswith(_ENDS), item[0]))


def _fresh(partial: Path) -> BinaryIO:
    """A new file that its owner alone may read; one that a backup left when it was killed is replaced."""
    partial.unlink(missing_ok=True)
    return os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _add(archive: tarfile.TarFile, name: str, content: bytes | Path) -> int:
    info = tarfile.TarInfo(name)
    info.mode = 0o600
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
        return info.size
    try:
        file = content.open("rb")
    except FileNotFoundError:  # an old publication that was removed meanwhile: nothing names it
        return 0
    with file:
        info.size = content.stat().st_size
        archive.addfile(info, file)
    return info.size


def _head(member: tarfile.TarInfo, archive: tarfile.TarFile, source: Path) -> Head:
    file = archive.extractfile(member) if member.name == _HEAD else None
    try:
        head = msgspec.json.decode(file.read() if file else b"", type=Head)
    except UNREADABLE as error:
        raise IntegrityError(f"{source} is not a backup of a control plane", hint="Check the file.") from error
    if head.format != FORMAT:
        raise Conflict(f"expected a backup of format {FORMAT}, got {head.format}", hint="Use a newer nearcast.")
    return head


def _end(member: tarfile.TarInfo, archive: tarfile.TarFile, source: Path) -> End:
    file = archive.extractfile(member)
    try:
        return msgspec.json.decode(file.read() if file else b"", type=End)
    except UNREADABLE as error:
        raise IntegrityError(f"{source} is damaged: its end cannot be read", hint="Take another one.") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> int:
    """One plain file, at a place that cannot lead out of ``folder``."""
    parts = member.name.split("/")
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or any(not part or part.startswith(".") for part in parts):
        raise IntegrityError(f"the backup holds something that is no plain file: {member.name!r}")
    target = folder / _UNFINISHED if member.name == _DATABASE else folder.joinpath(*parts)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.open("xb") as out:
        target.chmod(0o644 if parts[0] == "repository" else 0o600)
        while chunk := file.read(1 << 20):
            out.write(chunk)
    sync_file(target)
    sync_directory(target.parent)
    return member.size


def _raise_numbers(database: Path, floor: int) -> None:
    """Let the next publications be numbered above ``floor``, the time in seconds: nobody publishes once a second.

    Every site counts as not finished, so that each gets a plan under a number that it has not seen.
    """
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "leadership" not in tables:
            raise Conflict(
                "the backup was taken by a release before the control plane could be restored from one",
                hint="Put its files into the directory by hand and start it: docs/how-to/back-up-and-restore.md.",
            )
        connection.execute(
            "INSERT INTO leadership (id, term, holder, expires_s, version) VALUES (1, 0, '', 0, ?) "
            "ON CONFLICT (id) DO UPDATE SET version = max(version, excluded.version)",
            (floor,),
        )
        connection.execute(
            "INSERT INTO publications (site, version, term, done) SELECT name, ?, 0, 0 FROM heads "
            "WHERE kind = 'Site' ON CONFLICT (site) DO UPDATE SET done = 0",
            (floor,),
        )
        connection.execute(
            "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (RESTORED, str(floor)),
        )
