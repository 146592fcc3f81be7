"""``run.json``: which processes a node has left running, so that they are found again, and nobody else's is.

A pid means a process only together with its start time and the boot it counts from. What becomes of the processes is
decided in `supervise` and `router`.
"""

import logging
from pathlib import Path

import msgspec

from nearcast.durable import DiskFull, read_if_exists, write_whole
from nearcast.gateway.process import started_at
from nearcast.logs import line
from nearcast.resources.unreadable import UNREADABLE

log = logging.getLogger(__name__)


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process in ``run.json``. ``started`` and ``boot`` make the pid mean it alone, ``how`` is its command."""

    pid: int
    started: str
    boot: str = ""
    how: str = ""


class ProcessBook:
    """``run.json``: which processes this node has left running. Blocking; for one thread at a time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._unwritten: dict[str, ProcessRecord] | None = None

    def find(self, name: str) -> ProcessRecord | None:
        """The record of ``name`` if that very process lives."""
        record = self._read().get(name)
        return record if record is not None and is_alive(record) else None

    def noted(self) -> dict[str, ProcessRecord]:
        """All that is written down; the processes may be gone."""
        return self._read()

    def note(self, name: str, pid: int, how: str = "") -> ProcessRecord | None:
        """Write down the process that has ``pid`` now; None (and no record) where there is none."""
        records = self._read()
        before = records.pop(name, None)
        record = _record_of(pid, how)
        if record is not None:
            records[name] = record
        if record != before:
            self._write(records)
        return record

    def forget(self, name: str) -> None:
        """Remove the record of ``name``."""
        records = self._read()
        if records.pop(name, None) is not None:
            self._write(records)

    def _write(self, records: dict[str, ProcessRecord]) -> None:
        """Without room on the disk the records are kept in mind: a successor finds the processes by their sockets."""
        try:
            write_whole(self._file, msgspec.json.encode(records))
        except DiskFull as error:
            log.warning(line("processes cannot be written down", message=error.message))
            self._unwritten = records
        else:
            self._unwritten = None

    def _read(self) -> dict[str, ProcessRecord]:
        if self._unwritten is not None:
            return dict(self._unwritten)
        data = read_if_exists(self._file)
        try:
            return {} if data is None else msgspec.json.decode(data, type=dict[str, ProcessRecord])
        except UNREADABLE:
            return {}


def is_alive(record: ProcessRecord) -> bool:
    """Whether that very process lives."""
    found = _record_of(record.pid, record.how)
    return found == record


def _record_of(pid: int, how: str) -> ProcessRecord | None:
    started = started_at(pid)
    if started is None:
        return None
    boot, _, ticks = started.rpartition(":") if Path("/proc/self/stat").exists() else ("", "", started)
    return ProcessRecord(pid=pid, started=ticks, boot=boot, how=how)
