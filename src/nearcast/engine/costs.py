"""What this engine tells of its models' cost and of its capacity: profiles for planning, memory for placement.

Decides how much memory a loaded model is said to take, and how much there is for all of them. What a model's time costs
is learned in :mod:`~nearcast.engine.gauges`; what a worker is, is said in :mod:`~nearcast.engine.worker`.

The footprint is what loading took: resident memory of the process, or memory of the device, after the model was loaded,
measured and warm, less that of before. Other models go on meanwhile and may grow; allocators keep what was freed and
use it again. So the figure is an estimate, and never less than the files, whose weights must be somewhere.
"""

import os
from pathlib import Path
from typing import Final

from nearcast.engine.device import Device, device_memory
from nearcast.engine.lane import Lane
from nearcast.engine.memory import RESERVE_BYTES, available_bytes
from nearcast.engine.profile import Profile
from nearcast.engine.worker import WORKERS
from nearcast.resources.status import ModelProfile, NodeCapacity

_MIB: Final = 1024 * 1024


def taken_bytes(device: Device) -> int:
    """Memory that is taken where models lie: of this process, or of the device; 0 where the system does not tell."""
    if device.kind != "cpu":
        memory = device_memory(device)
        return 0 if memory is None else memory.used_bytes
    return resident_bytes()


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory that this process holds; 0 where the system does not tell (no procfs)."""
    try:
        return int(statm.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def footprint_bytes(before: int, after: int, files_bytes: int) -> int:
    """What a model is said to take, from :func:`taken_bytes` before and after loading and the size of its files."""
    return max(after - before, files_bytes)


def capacity(device: Device, footprints_bytes: int, available: int | None = None) -> NodeCapacity:
    """What this engine has for models: what could still be had, and what its models hold already.

    Args:
        device: where models run.
        footprints_bytes: of all models that are loaded.
        available: what could still be had; None asks the system.
    """
    if device.kind != "cpu":
        memory = device_memory(device)
        free = 0 if memory is None else memory.total_bytes - memory.used_bytes
    else:
        found = available_bytes() if available is None else available
        free = min(found, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) - RESERVE_BYTES
    memory_bytes = max(0, free + footprints_bytes) // _MIB * _MIB
    return NodeCapacity(workers=WORKERS, memory_bytes=memory_bytes, device=str(device))


def model_profile(
    key: tuple[str, str], profile: Profile, lane: Lane, *, footprint: int, load_s: float, loop_s: float
) -> ModelProfile:
    """The profile of one model as it is now; ``loop_s`` is the loop's time per request."""
    model, version = key
    gauges = lane.gauges
    return ModelProfile(
        model=model,
        version=version,
        service_s=gauges.idle_s + loop_s,
        work_s=gauges.work_s + loop_s,
        full_s=gauges.full_s + loop_s,
        curve=tuple((point.batch, point.seconds) for point in profile.curve),
        footprint_bytes=footprint,
        load_s=load_s,
    )
