"""What a check says, and what it is given. A check is one function from a :class:`Ground` to findings.

A check changes nothing, needs no network that it is not about, and ends in bounded time. That one breaks down over what
it finds is a finding, too (:func:`examined`): a doctor is asked when things are broken.
"""

import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from nearcast.agent.layout import Layout, layout_of
from nearcast.cli.fleet import FleetFile, LocalPaths
from nearcast.errors import NearcastError

Verdict = Literal["ok", "warning", "problem"]

BREAKDOWNS: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    msgspec.MsgspecError,
    NearcastError,
    subprocess.SubprocessError,
)
"""What looking at damaged files and dead processes may raise."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what kind of thing.
        verdict: whether something is to be done: nothing, soon, now.
        found: what is there.
        advice: what to do; empty where nothing is.
        subject: which one, where there are several.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What is looked at: one data directory, which may hold a fleet, a node, or a control plane.

    Attributes:
        nodes: name -> where its files lie.
        control: data directory of a control plane, if there is one.
        fleet: the fleet of this machine, if that is what the directory holds.
        proc: where the system tells of processes.
    """

    data_dir: Path
    nodes: Mapping[str, Layout] = field(default_factory=dict)
    control: Path | None = None
    fleet: FleetFile | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    proc: Path = Path("/proc")


Check = Callable[[Ground], Iterable[Finding]]


def ground_of(data_dir: Path) -> Ground:
    """What ``data_dir`` holds, by the files in it; damaged ones count as there."""
    paths = LocalPaths(data_dir)
    nodes = {path.name: layout_of(path) for path in sorted(paths.sites.glob("*")) if path.is_dir()}
    if (data_dir / "identity").is_dir():
        nodes = {data_dir.name: layout_of(data_dir)}
    homes = [path for path in (paths.control, data_dir) if (path / "keys").is_dir()]
    try:
        fleet = paths.read_fleet()
    except NearcastError:
        fleet = None
    return Ground(data_dir, nodes, homes[0] if homes else None, fleet)


def examined(check: Check, ground: Ground) -> Iterator[Finding]:
    """What ``check`` finds, and that it broke down, where it did."""
    try:
        yield from check(ground)
    except BREAKDOWNS as error:
        said = " ".join(str(error).split())[:200]
        name = check.__module__.rpartition(".")[2]
        yield Finding(name, "problem", f"could not be looked at: {type(error).__name__}: {said}", "mend what it names")
