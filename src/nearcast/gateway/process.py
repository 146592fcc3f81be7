"""Which process a pid means, and how it does: a pid alone is reused, a pid with its start time is not.

Used to adopt processes that outlived the agent, and never to signal somebody else's. Linux reads ``/proc``; other
systems ask ``ps``.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

_DEAD_STATES: Final = frozenset("ZXx")
_PS_TIMEOUT_S: Final = 10.0


def started_at(pid: int) -> str | None:
    """A word that is the same as long as ``pid`` means the same living process, and another one after.

    Returns:
        The start time in the system's own units, with the boot it counts from; None where no such process lives
        (a zombie does not live).
    """
    if Path("/proc/self/stat").exists():
        return _from_proc(pid)
    return _from_ps(pid)


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP) stopped the process; False where the system does not tell."""
    fields = _stat(pid)
    return fields is not None and fields[0] == "T"


def work_done(pid: int) -> int | None:
    """Processor time that the process has used, in the system's ticks; None where the system does not tell.

    What answers nobody and uses none is stuck; what uses some may be starved, or busy with something long.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[11]) + int(fields[12])


def listener_of(pipe: Path, timeout_s: float) -> int | None:
    """Process id of whoever listens on a Unix socket; None where nobody does or the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        try:
            probe.connect(str(pipe))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
    return int.from_bytes(credentials[:4], sys.byteorder) or None


def memory_bytes() -> int:
    """Memory that processes of this node may use together: the machine's, or less where a control group says so."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(limit)) if limit.isdigit() else whole


def _stat(pid: int) -> list[str] | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program stands in brackets and may hold anything, so fields count from the last bracket.
    return line[line.rindex(")") + 2 :].split()


def _from_proc(pid: int) -> str | None:
    fields = _stat(pid)
    if fields is None:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state, start_ticks = fields[0], fields[19]
    return None if state in _DEAD_STATES else f"{boot}:{start_ticks}"


def _from_ps(pid: int) -> str | None:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PS_TIMEOUT_S).stdout.strip()
    state, _, start = text.partition(" ")
    return None if not start or state[0] in _DEAD_STATES else start.strip()
