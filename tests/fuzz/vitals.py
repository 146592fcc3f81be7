"""What a process holds: memory, descriptors, threads, and asyncio tasks of this process; and whether that grows.

A leak is growth that goes on: the same work is done in rounds after a warm-up, and the last round is held against the
first. Caches, pools and allocators settle in the warm-up; a leak of one object per request does not.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import psutil


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
    """What the process ``pid`` holds now. Memory is what is its own (USS): shared pages come and go with others."""
    process = psutil.Process(pid)
    with process.oneshot():
        memory_bytes = process.memory_full_info().uss
        return Vitals(memory_bytes, process.num_fds(), process.num_threads())


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

    def check(self) -> dict[str, tuple[Vitals, Vitals]]:
        """Fail when a process crashed or holds more than it may; else what it held before and holds now."""
        now = self._pids()
        assert now == self.began, f"a process ended and was replaced: {self.began} -> {now}"
        after = {name: vitals_of(pid) for name, pid in now.items()}
        problems = {name: found for name in after if (found := grown(self.before[name], after[name], self._bounds))}
        assert not problems, f"held more than before: {problems}"
        return {name: (self.before[name], after[name]) for name in after}


TRACES = ("Traceback (most recent call last)", "Segmentation fault", "assert failure", "panicked", "[critical]")


def traces(logs: Iterable[Path], since: dict[Path, int]) -> list[str]:
    """Lines of ``logs`` beyond the sizes in ``since`` that look like a crash or an unhandled exception."""
    found = []
    for path in logs:
        if path.exists():
            text = path.read_bytes()[since.get(path, 0) :].decode(errors="replace")
            found += [f"{path.name}: {line}" for line in text.splitlines() if any(mark in line for mark in TRACES)]
    return found
