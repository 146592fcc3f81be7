"""The process behind a local fleet: keeps the control plane and one agent per site running until it is told to stop.

Decides when to start, start again, and stop. What is to run follows from ``fleet.json`` and the join tokens
(:mod:`~nearcast.cli.children`), looked at again and again, so ``nearcast up`` only ever changes files.

Invariants:
    * At most one supervisor per data directory (a lock that the system drops when the process dies).
    * Children that a dead supervisor left are watched, not started a second time.
    * ``processes.json`` names every child before anybody could have to end it.
"""

import argparse
import contextlib
import fcntl
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from nearcast.cli.children import CONTROL, Child, Deaths, wanted_children
from nearcast.cli.fleet import LocalPaths, Processes, ProcessRecord
from nearcast.cli.pids import end, is_alive, record_of, send
from nearcast.documents import TooNew, refuse_newer
from nearcast.durable import write_whole
from nearcast.errors import Bug, IntegrityError, NearcastError
from nearcast.gateway.process import is_stopped
from nearcast.logs import bound, set_up

TICK_S: Final = 0.1
AGENT_GRACE_S: Final = 20.0
CONTROL_GRACE_S: Final = 10.0
BOUND_EVERY_S: Final = 5.0

log = logging.getLogger(__name__)
STOPPED_S: Final = 10.0
"""A child that a signal has stopped for so long is told to go on: nobody else would."""


@dataclass(slots=True)
class Running:
    """A child that runs. ``process`` is None for one that another supervisor started.

    ``settings`` is what it was started with, None where nobody wrote that down. ``is_replaced``: it was told to stop,
    since it shall have others.
    """

    record: ProcessRecord
    started_s: float
    process: "subprocess.Popen[bytes] | None" = None
    stopped_since_s: float | None = None
    settings: str | None = None
    is_replaced: bool = False

    def exit_words(self) -> str | None:
        """How it ended, or None while it runs."""
        if self.process is not None:
            code = self.process.poll()
            return None if code is None else _words(code)
        return None if is_alive(self.record) else "gone"

    def is_forgotten(self, now_s: float) -> bool:
        """Whether a signal stopped it a while ago, and nothing has made it go on."""
        if not is_stopped(self.record.pid):
            self.stopped_since_s = None
            return False
        if self.stopped_since_s is None:
            self.stopped_since_s = now_s
        return now_s - self.stopped_since_s >= STOPPED_S


@dataclass(slots=True)
class Supervisor:
    """The state of one run."""

    paths: LocalPaths
    stop: threading.Event
    running: dict[str, Running] = field(default_factory=dict)
    deaths: dict[str, Deaths] = field(default_factory=dict)
    trouble: str = ""
    logs: set[Path] = field(default_factory=set)
    bounded_s: float = 0.0

    def run(self) -> None:
        """Supervise until :attr:`stop` is set, then stop all children, agents before the control plane."""
        self._take_over()
        self._write_down()
        try:
            while not self.stop.wait(TICK_S):
                self.tried(time.monotonic())
        finally:
            self._end_all()
            self.paths.processes.unlink(missing_ok=True)

    def hurry(self) -> None:
        """Tell every child once more to stop."""
        for child in list(self.running.values()):
            send(child.record, signal.SIGTERM)

    def tried(self, now_s: float) -> None:
        """Step. A full disk, or a ``fleet.json`` that is damaged or newer, is said once, and ends nothing that runs."""
        trouble = ""
        try:
            self.step(now_s)
        except (IntegrityError, TooNew) as error:
            trouble = error.message
        except OSError as error:
            trouble = f"cannot start or write down processes: {error}"
        if trouble and trouble != self.trouble:
            say(trouble)
        self.trouble = trouble

    def step(self, now_s: float) -> None:
        """Notice who died, and start who is missing."""
        for name, child in list(self.running.items()):
            if (how := child.exit_words()) is not None:
                self._ended(name, child, how, now_s)
            elif child.is_forgotten(now_s) and send(child.record, signal.SIGCONT):
                child.stopped_since_s = None
                say(f"{name} (process {child.record.pid}) was stopped by a signal for {STOPPED_S:.0f} s: told to go on")
        fleet = self.paths.read_fleet()
        for wanted in wanted_children(self.paths, fleet) if fleet else []:
            if wanted.name in self.running:
                self._replace_if_changed(wanted, self.running[wanted.name])
            elif now_s >= self.deaths.get(wanted.name, Deaths()).not_before_s:
                self._start(wanted, now_s)
        if self.trouble:
            self._write_down()  # which may have failed before
        if now_s - self.bounded_s >= BOUND_EVERY_S:
            self.bounded_s = now_s
            for path in (self.paths.supervisor_log, *self.logs):
                bound(path)

    def _ended(self, name: str, child: Running, how: str, now_s: float) -> None:
        del self.running[name]
        if child.is_replaced:
            say(f"{name} (process {child.record.pid}) ended: {how}; it starts again with its new settings")
        else:
            self.deaths[name] = self.deaths.get(name, Deaths()).after(name, now_s - child.started_s, now_s)
            wait_s = self.deaths[name].not_before_s - now_s
            say(f"{name} (process {child.record.pid}) ended: {how}; next start in {wait_s:.1f} s")
        self._write_down()

    def _replace_if_changed(self, wanted: Child, running: Running) -> None:
        """Tell a child that was started with other settings to stop in order, so that its gateway goes, too."""
        if running.settings in {None, wanted.settings} or running.is_replaced:
            return
        running.is_replaced = send(running.record, signal.SIGTERM)
        say(f"{wanted.name} (process {running.record.pid}) is told to stop: its settings have changed")

    def _start(self, child: Child, now_s: float) -> None:
        self.logs.add(child.log)
        child.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with child.log.open("ab") as log:
            process = subprocess.Popen(
                child.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.paths.data_dir
            )
        record = record_of(process.pid)
        if record is None:
            say(f"{child.name} ended at once: {_words(process.wait())}")
            self.deaths[child.name] = self.deaths.get(child.name, Deaths()).after(child.name, 0.0, now_s)
            return
        self.running[child.name] = Running(record, now_s, process, settings=child.settings)
        self._write_down()
        say(f"{child.name} started as process {process.pid}")

    def _take_over(self) -> None:
        """Watch what a supervisor that died has left running."""
        before = self.paths.read_processes()
        for name, record in (before.children if before else {}).items():
            if is_alive(record):
                settings = before.settings.get(name) if before else None
                self.running[name] = Running(record, time.monotonic(), settings=settings)
                say(f"{name} still runs as process {record.pid}")

    def _write_down(self) -> None:
        own = record_of(os.getpid())
        if own is None:
            raise Bug("the supervisor does not find its own process")
        children = {name: child.record for name, child in sorted(self.running.items())}
        settings = {name: child.settings for name, child in self.running.items() if child.settings is not None}
        document = msgspec.json.encode(Processes(supervisor=own, children=children, settings=settings))
        write_whole(self.paths.processes, msgspec.json.format(document, indent=2))

    def _end_all(self) -> None:
        agents = {name: child for name, child in self.running.items() if name != CONTROL}
        self._end(agents, AGENT_GRACE_S)
        self._end({name: child for name, child in self.running.items() if name == CONTROL}, CONTROL_GRACE_S)
        say("stopped")

    def _end(self, children: dict[str, Running], grace_s: float) -> None:
        with _collecting(children):
            killed = end((child.record for child in children.values()), grace_s)
        for record in killed:
            say(f"process {record.pid} did not stop in {grace_s:.0f} s and was killed")


@contextlib.contextmanager
def _collecting(children: dict[str, Running]) -> Iterator[None]:
    """Collect our own children afterwards; until then they count as gone once they are dead."""
    yield
    for child in children.values():
        if child.process is not None:
            child.process.wait()


def say(text: str) -> None:
    """One line for the log of the supervisor, which is its standard error; lost where the disk is full."""
    log.info(text)


@contextlib.contextmanager
def only_one(paths: LocalPaths) -> Iterator[bool]:
    """Hold the lock of the supervisor; False where another one holds it."""
    with paths.supervisor_lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def stop_when_alone(stop: threading.Event) -> None:
    """Set ``stop`` when the other end of standard input is closed: the command in the foreground is gone."""
    while not stop.is_set():
        ready, _, _ = select.select([0], [], [], 0.5)
        if ready and not os.read(0, 1):
            say("the command that started this fleet is gone")
            stop.set()


def main() -> None:
    """Run a supervisor: ``python -m nearcast.cli.supervisor --data-dir D [--tied]``."""
    parser = argparse.ArgumentParser(prog="python -m nearcast.cli.supervisor", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tied", action="store_true", help="stop when standard input is closed")
    arguments = parser.parse_args()
    set_up()
    paths = LocalPaths(arguments.data_dir.resolve())
    stop = threading.Event()
    supervisor = Supervisor(paths, stop)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        say(f"told to stop by {signal.Signals(number).name}")
        if stop.is_set():  # once more: whoever drains shall hurry
            supervisor.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    if arguments.tied:
        threading.Thread(target=stop_when_alone, args=(stop,), daemon=True).start()
    with only_one(paths) as alone:
        if not alone:
            sys.exit(f"another supervisor runs on {paths.data_dir}")
        try:
            refuse_newer(paths.fleet, paths.processes)
            supervisor.run()
        except NearcastError as error:
            sys.exit(f"{error.message}\n{error.hint}")


def _words(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    main()
