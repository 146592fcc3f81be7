"""Which process a pid means: a pid alone is reused, a pid with its start time is not.

Used to adopt processes that outlived the agent, and never to signal somebody else's. Linux reads ``/proc``; other
systems ask ``ps``.
"""

import subprocess
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


def _from_proc(pid: int) -> str | None:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program stands in brackets and may hold anything, so fields count from the last bracket.
    fields = line[line.rindex(")") + 2 :].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in _DEAD_STATES else f"{boot}:{start_ticks}"


def _from_ps(pid: int) -> str | None:
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PS_TIMEOUT_S).stdout.strip()
    state, _, start = text.partition(" ")
    return None if not start or state[0] in _DEAD_STATES else start.strip()
