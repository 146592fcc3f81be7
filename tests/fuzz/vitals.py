"""What a process holds: memory, descriptors, threads, and asyncio tasks of this process; and whether that grows.

A leak is growth that goes on: the same work is done in rounds after a warm-up, and the last round is held against the
first. Caches, pools and allocators settle in the warm-up; a leak of one object per request does not.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

SETTLE_S = 20.0
"""A process that gets little of the processor sees late that its clients have gone."""


@dataclass(frozen=True)
class Vitals:
    """What one process holds at a moment. ``tasks`` is known of this process only."""

    memory_bytes: int
    descriptors: int
    threads: int
    tasks: int = 0


@dataclass(frozen=True)
class Bounds:
    """How much more may be held after all rounds than after the warm-up.

    The defaults are what allocators and pools were seen to move by, several times over; a leak of 1 KB per request
    would be 10 MB in a full run, one descriptor or task per hundred requests a hundred of them.
    """

    memory_bytes: int = 24 << 20
    descriptors: int = 12
    threads: int = 8
    tasks: int = 4


def vitals_of(pid: int) -> Vitals:
    """What the process ``pid`` holds now."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Vitals(_own_bytes(process), process.num_fds(), process.num_threads())


def _own_bytes(process: psutil.Process) -> int:
    """What it wrote itself. Pages of a binary do not count, not even those that it has for itself (as in USS): 50 MB of
    Envoy are everybody's while another Envoy runs, and look like growth when that one ends."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if not rollup.exists():
        return int(process.memory_full_info().uss)
    figures = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:])
    return sum(int(figures[name].split()[0]) * 1024 for name in ("Anonymous", "Swap"))


def vitals_here() -> Vitals:
    """Of this process; within a running loop with its tasks."""
    found = vitals_of(psutil.Process().pid)
    return Vitals(found.memory_bytes, found.descriptors, found.threads, len(asyncio.all_tasks()))


def grown(before: Vitals, after: Vitals, bounds: Bounds) -> list[str]:
    """Everything that grew beyond its bound, in words; nothing where nothing did."""
    return [
        f"{field.name}: {getattr(before, field.name)} -> {getattr(after, field.name)}, "
        f"may grow by {getattr(bounds, field.name)}"
        for field in fields(Bounds)
        if getattr(after, field.name) - getattr(before, field.name) > getattr(bounds, field.name)
    ]


class Watch:
    """Some processes around a stretch of work.

    Args:
        pids: name -> process id; a process that is another one afterwards has crashed.
        bounds: for each of them.
    """

    def __init__(self, pids: Callable[[], dict[str, int]], bounds: Bounds | None = None) -> None:
        self._pids = pids
        self._bounds = bounds or Bounds()
        self.began = pids()
        self.before = {name: vitals_of(pid) for name, pid in self.began.items()}

    def check(self, settle_s: float = SETTLE_S) -> dict[str, tuple[Vitals, Vitals]]:
        """Fail when a process crashed or holds more than it may; else what it held before and holds now.

        Args:
            settle_s: for how long it may still be busy with what was thrown at it last. A leak stays.
        """
        deadline_s = time.monotonic() + settle_s
        while True:
            now = self._pids()
            assert now == self.began, f"a process ended and was replaced: {self.began} -> {now}"
            after = {name: vitals_of(pid) for name, pid in now.items()}
            problems = {name: found for name in after if (found := grown(self.before[name], after[name], self._bounds))}
            if not problems:
                return {name: (self.before[name], after[name]) for name in after}
            assert time.monotonic() < deadline_s, f"held more than before: {problems}"
            time.sleep(0.1)


TRACES = ("Traceback (most recent call last)", "Segmentation fault", "assert failure", "panicked", "[critical]")


def traces(logs: Iterable[Path], since: dict[Path, int]) -> list[str]:
    """Lines of ``logs`` beyond the sizes in ``since`` that look like a crash or an unhandled exception."""
    found = []
    for path in logs:
        if path.exists():
            text = path.read_bytes()[since.get(path, 0) :].decode(errors="replace")
            found += [f"{path.name}: {line}" for line in text.splitlines() if any(mark in line for mark in TRACES)]
    return found
