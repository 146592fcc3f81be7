"""Which processes a local fleet needs now, and when one that died is started again. Pure, but for looking at files.

Decides command lines and moments. Starting, signalling and writing down are the supervisor's.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from nearcast.agent.backoff import PROCESS
from nearcast.agent.layout import layout_of
from nearcast.cli.fleet import FleetFile, LocalPaths, node_name
from nearcast.durable import read_if_exists
from nearcast.resources.unreadable import UNREADABLE

CONTROL: Final = "control"
STEADY_S: Final = 30.0
"""A process that ran this long had a good start: its next death is its first."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process to run: its name in ``processes.json``, its command line, and where its output goes.

    ``settings`` is that part of the command line which may change while it runs: with another one it starts again.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    settings: str = ""


@dataclass(frozen=True, slots=True)
class Deaths:
    """How often a process died in a row, and when it may start again."""

    count: int = 0
    not_before_s: float = 0.0

    def after(self, name: str, ran_s: float, now_s: float) -> "Deaths":
        """After one more death, of a process that had run for ``ran_s``."""
        count = 1 if ran_s >= STEADY_S else self.count + 1
        return Deaths(count, now_s + PROCESS.delay_s(count, name))


def agent_name(site: str) -> str:
    """The name of a site's agent in ``processes.json``."""
    return f"agent:{site}"


def wanted_children(paths: LocalPaths, fleet: FleetFile) -> list[Child]:
    """The control plane, and the agent of each site that joined or holds a token to do so."""
    return [
        control_child(paths, fleet),
        *(agent_child(paths, fleet, site) for site in sorted(fleet.sites) if can_start(paths, site)),
    ]


def can_start(paths: LocalPaths, site: str) -> bool:
    """Whether the agent of ``site`` has what it needs to begin."""
    return has_joined(paths, site) or paths.join_token(site).exists()


def has_joined(paths: LocalPaths, site: str) -> bool:
    """Whether the node of ``site`` is a member of the fleet already. One whose ``node.json`` is damaged joins again."""
    data = read_if_exists(layout_of(paths.site(site)).node)
    try:
        return data is not None and isinstance(msgspec.json.decode(data), dict)
    except UNREADABLE:
        return False


def control_child(paths: LocalPaths, fleet: FleetFile) -> Child:
    """The control plane."""
    return Child(
        CONTROL,
        (
            *(sys.executable, "-m", "nearcast.control"),
            *("--data-dir", str(paths.control)),
            *("--host", fleet.host),
            *("--port", str(fleet.control_port)),
            *("--publish-interval-s", str(fleet.publish_interval_s)),
            *("--plan-interval-s", str(fleet.plan_interval_s)),
            *("--placement-hold-s", str(fleet.placement_hold_s)),
            *("--demand-fall-s", str(fleet.demand_fall_s)),
        ),
        paths.control_log,
    )


def agent_child(paths: LocalPaths, fleet: FleetFile, site: str) -> Child:
    """The agent of ``site``. The join token goes by file, since command lines are for everybody to read."""
    layout = layout_of(paths.site(site))
    join = () if has_joined(paths, site) else ("--join-file", str(paths.join_token(site)))
    own = fleet.sites[site]
    serving = _serving(fleet, site)
    return Child(
        agent_name(site),
        (
            *(sys.executable, "-m", "nearcast.agent"),
            *("--data-dir", str(layout.data_dir)),
            *("--control", fleet.control_url),
            *join,
            *("--node", node_name(fleet, site)),
            *("--public", f"{fleet.host}:{own.public_port}"),
            *("--peer", f"{fleet.host}:{own.peer_port}"),
            *("--poll-s", str(fleet.poll_s)),
            *serving,
        ),
        layout.agent_log,
        shlex.join(serving),
    )


def _serving(fleet: FleetFile, site: str) -> tuple[str, ...]:
    """What the agent of ``site`` is told of TLS and metrics."""
    words: tuple[str, ...] = ()
    if fleet.public_tls_cert and fleet.public_tls_key:
        words += ("--public-tls-cert", fleet.public_tls_cert, "--public-tls-key", fleet.public_tls_key)
    metrics = fleet.metrics_address(site)
    return words if metrics is None else (*words, "--metrics", metrics)
