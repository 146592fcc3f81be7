"""A control group with a memory limit, of either version, where this machine lets us make one (root)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


class ControlGroup:
    """A group below the root of the hierarchy. Unified (version 2) or memory (version 1)."""

    def __init__(self, folder: Path, *, unified: bool) -> None:
        self.folder = folder
        names = ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        self._limit, self._usage = (folder / name for name in names)
        self._events = folder / ("memory.events" if unified else "memory.oom_control")

    def limit(self, size_bytes: int) -> None:
        """Let its processes have that much together."""
        self._limit.write_text(str(size_bytes))

    def add(self, pid: int) -> None:
        """Move a process, and with it the children that it will have."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def usage_mib(self) -> float:
        """What is charged to it, file pages included."""
        return int(self._usage.read_text()) / 2**20

    def kills(self) -> int:
        """How often the kernel killed something in it for want of memory."""
        found = [line.split() for line in self._events.read_text().splitlines()]
        return sum(int(value) for name, value in found if name == "oom_kill")


@contextlib.contextmanager
def control_group(name: str) -> Iterator[ControlGroup | None]:
    """A new group, removed afterwards when it is empty; None where it cannot be made."""
    unified = (GROUPS / "cgroup.controllers").exists()
    parent = GROUPS if unified else GROUPS / "memory"
    folder = parent / f"{name}-{os.getpid()}"
    try:
        if unified:
            (parent / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        yield ControlGroup(folder, unified=unified)
    finally:
        with contextlib.suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                (parent / "cgroup.procs").write_text(pid)
        with contextlib.suppress(OSError):
            folder.rmdir()
