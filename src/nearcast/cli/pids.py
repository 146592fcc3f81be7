"""Processes by id and start time: whether one still is the one that was written down, and how to end it.

A process id alone proves nothing, since ids come round again. Every signal here goes to a process whose start time was
looked up just before. How a start time is read is the gateway's (`gateway.process`).
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from nearcast.cli.fleet import ProcessRecord
from nearcast.gateway.process import started_at

PAUSE_S: Final = 0.05
KILL_WAIT_S: Final = 5.0


def record_of(pid: int) -> ProcessRecord | None:
    """The process that has ``pid`` now, or None where there is none or it is dead and merely not collected."""
    started = started_at(pid)
    return ProcessRecord(pid=pid, started=started) if started else None


def is_alive(record: ProcessRecord) -> bool:
    """Whether that very process still runs."""
    return record_of(record.pid) == record


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal that very process; False where it is gone."""
    if not is_alive(record):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, number)
        return True
    return False


def end(
    records: Iterable[ProcessRecord],
    grace_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[ProcessRecord]:
    """Ask all of them to stop, wait, kill the rest, and wait again. Gives those that had to be killed."""
    standing = [record for record in records if send(record, signal.SIGTERM)]
    standing = await_gone(standing, clock() + grace_s, clock, sleep)
    for record in standing:
        send(record, signal.SIGKILL)
    await_gone(standing, clock() + KILL_WAIT_S, clock, sleep)
    return standing


def await_gone(
    records: Iterable[ProcessRecord],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[ProcessRecord]:
    """Those of ``records`` that still run at ``deadline``; returns as soon as there are none."""
    standing = [record for record in records if is_alive(record)]
    while standing and clock() < deadline:
        sleep(PAUSE_S)
        standing = [record for record in standing if is_alive(record)]
    return standing


def running_below(folders: Iterable[Path], modules: Iterable[str]) -> list[ProcessRecord]:
    """Processes of this user that run one of ``modules`` or an Envoy, and name a path in ``folders`` as an argument.

    Finds what died between being started and being written down. Linux only: elsewhere the list is empty.
    """
    proc = Path("/proc")
    if not proc.is_dir():
        return []
    names, wanted = [str(folder) for folder in folders], frozenset(modules)
    found = [
        record
        for entry in proc.iterdir()
        if entry.name.isdigit()
        and _is_ours(_arguments(entry), names, wanted)
        and _owner(entry) == os.getuid()
        and (record := record_of(int(entry.name)))
    ]
    return sorted(found, key=lambda record: record.pid)


def _is_ours(arguments: list[str], folders: list[str], modules: frozenset[str]) -> bool:
    if not any(text == folder or text.startswith(f"{folder}/") for text in arguments[1:] for folder in folders):
        return False
    runs = any(first == "-m" and second in modules for first, second in itertools.pairwise(arguments))
    return runs or Path(arguments[0]).name.startswith("envoy")


def _arguments(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_bytes().decode(errors="surrogateescape").rstrip("\0").split("\0")
    except OSError:
        return [""]


def _owner(entry: Path) -> int:
    try:
        return entry.stat().st_uid
    except OSError:
        return -1
