"""Whether a model fits beside what runs already: asked before it is loaded, since afterwards the kernel answers.

Decides from the size of the release's files and from what the machine, and the control groups that this process stands
in, still have. An estimate: weights are read, and most are kept a second time in the layout that the kernels want. Does
not bound what a model takes while it runs. Also: what this process holds, and what it can give back.
Source: Linux, "Control Group v2" (memory.max, memory.current, memory.stat), "Memory Resource Controller" (the same of
version 1), "The /proc Filesystem" (meminfo).
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nearcast.engine.refusal import Refusal
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest

WEIGHT_COPIES: Final = 2
OVERHEAD_BYTES: Final = 24 * 1024 * 1024
"""Of a session and its first runs, however small the model."""
RESERVE_BYTES: Final = 32 * 1024 * 1024
"""What is left to the machine for its other work."""
_INFINITE: Final = 1 << 62


def needed_bytes(manifest: ReleaseManifest) -> int:
    """Memory that serving ``manifest`` is expected to take."""
    return WEIGHT_COPIES * manifest.size_bytes + OVERHEAD_BYTES


def available_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that can still be had before something is killed; very much where the system does not tell.

    Args:
        proc: where procfs is mounted.
        groups: where control groups are.
    """
    return min([_machine(proc), *_groups(proc, groups)])


def check_fits(manifest: ReleaseManifest, available: int) -> None:
    """Refuse a model that would not fit into ``available`` bytes.

    Raises:
        Refusal: status 507, with both figures: not for good, since something else may be unloaded.
    """
    needed = needed_bytes(manifest)
    if needed > available - RESERVE_BYTES:
        name = wire.model_at(manifest.model, manifest.version)
        raise Refusal(
            507,
            wire.CODE_TOO_LARGE_FOR_NODE,
            f"{name} needs about {_mib(needed)} MiB of memory; {_mib(max(0, available - RESERVE_BYTES))} MiB are free "
            f"here beside what runs already",
        )


def memory_share(read: Callable[[], bytes] | None = None) -> float:
    """Share of the machine's memory that this process holds; 0 where the system does not tell (no procfs)."""
    try:
        statm = read() if read is not None else Path("/proc/self/statm").read_bytes()
    except OSError:
        return 0.0
    return int(statm.split()[1]) / os.sysconf("SC_PHYS_PAGES")


def give_back() -> None:
    """Return to the system what the allocator keeps for later: loading needs much for a moment (a tenth is typical),
    and so do long requests that several threads read at once. Some milliseconds."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _machine(proc: Path) -> int:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return _INFINITE
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _INFINITE


def _groups(proc: Path, groups: Path) -> Iterator[int]:
    """What is left in the control group of this process, and in each above it that has a limit."""
    try:
        own = (proc / "self" / "cgroup").read_text()
    except OSError:
        return
    for line in own.splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds == "":
            yield from _upwards(groups, path, "memory.max", "memory.current")
        elif kinds == "memory":  # version 1
            yield from _upwards(groups / "memory", path, "memory.limit_in_bytes", "memory.usage_in_bytes")


def _upwards(top: Path, path: str, limit: str, usage: str) -> Iterator[int]:
    folder = top / path.strip().lstrip("/")
    while folder == top or top in folder.parents:
        left = _left(folder, limit, usage)
        if left is not None:
            yield left
        folder = folder.parent


def _left(folder: Path, limit_file: str, usage_file: str) -> int | None:
    try:
        limit = (folder / limit_file).read_text().strip()
        if limit == "max":
            return None
        current = int((folder / usage_file).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    cache = sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))
    return int(limit) - current + cache  # pages of files are given back before anything is killed


def _mib(size_bytes: int) -> int:
    return size_bytes // (1024 * 1024)
