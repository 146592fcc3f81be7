"""Processes: those that were written down live, their sockets answer, their ports are theirs."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from nearcast.agent.book import ProcessBook
from nearcast.agent.layout import Layout
from nearcast.cli.doctor.finding import Finding, Ground
from nearcast.cli.fleet import LocalPaths, is_free
from nearcast.cli.pids import is_alive, record_of
from nearcast.resources import wire

CONNECT_S: Final = 2.0
START: Final = "nearcast up, or start the unit; `nearcast logs` says why it ended"


def fleet(ground: Ground) -> Iterator[Finding]:
    """The supervisor of a local fleet and its children."""
    paths = LocalPaths(ground.data_dir)
    if ground.fleet is None:
        if paths.fleet.exists():
            yield Finding("fleet", "problem", f"{paths.fleet} cannot be read", "nearcast down, remove it, nearcast up")
        return
    noted = paths.read_processes()
    if noted is None:
        yield Finding("fleet", "warning", "it is not running", "nearcast up --detach")
        return
    gone = [name for name, record in noted.children.items() if not is_alive(record)]
    if not is_alive(noted.supervisor):
        yield Finding("fleet", "problem", f"the supervisor is gone, {paths.processes} is stale", "nearcast up --detach")
    elif gone:
        yield Finding("fleet", "problem", f"not alive: {', '.join(gone)}", "nearcast logs says why; it starts again")
    else:
        yield Finding("fleet", "ok", f"supervisor {noted.supervisor.pid} and {len(noted.children)} processes live")


def nodes(ground: Ground) -> Iterator[Finding]:
    """Agent, gateway and engine of each node."""
    for name, layout in ground.nodes.items():
        pid = agent_pid(layout)
        book = ProcessBook(layout.processes)
        noted = book.noted()
        dead = [process for process in noted if book.find(process) is None]
        alive = [f"{process} {record.pid}" for process, record in noted.items() if process not in dead]
        if pid is None and alive:
            found = f"no agent runs; {', '.join(alive)} serve on without one"
            yield Finding("processes", "problem", found, START, name)
        elif pid is None:
            yield Finding("processes", "warning", "none runs", START, name)
        elif dead or not noted:
            found = f"not alive: {', '.join(dead)}" if dead else "the agent has started none yet"
            yield Finding("processes", "problem", found, "the agent starts it again; see nearcast logs", name)
        else:
            yield Finding("processes", "ok", f"agent {pid}, {', '.join(alive)}", subject=name)


def agent_pid(layout: Layout) -> int | None:
    """The agent that holds the data directory, if that process lives."""
    try:
        pid = int(layout.lock.read_text().strip() or "0")
    except (FileNotFoundError, ValueError):
        return None
    return pid if pid and record_of(pid) is not None else None


def sockets(ground: Ground) -> Iterator[Finding]:
    """Somebody listens behind each socket of a node whose agent runs."""
    for name, layout in ground.nodes.items():
        if agent_pid(layout) is None:
            left = [path.name for path in sorted(layout.run_dir.glob("*")) if not _answers(path)]
            if left:
                advice = f"nothing to do: the next start removes them ({layout.run_dir})"
                yield Finding("sockets", "ok", f"{len(left)} of a process that is gone", advice, name)
            continue
        expected = [layout.run_dir / each for each in (wire.ENGINE_ADMIN, wire.ENGINE_STATUS, wire.ENVOY_ADMIN)]
        silent = [path.name for path in expected if not _answers(path)]
        if silent:
            yield Finding("sockets", "problem", f"nobody answers at {', '.join(silent)}", START, name)
        else:
            yield Finding("sockets", "ok", f"all answer in {layout.run_dir}", subject=name)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class _Ports(msgspec.Struct):
    public: int
    peer: int


def ports(ground: Ground) -> Iterator[Finding]:
    """A port of a node that does not run is free, one of a node that runs is served."""
    for name, layout in ground.nodes.items():
        wanted = _ports(ground, name, layout)
        if wanted is None:
            continue
        runs = ProcessBook(layout.processes).find("gateway") is not None
        held = {port: not is_free(port) for port in (wanted.public, wanted.peer)}
        if runs and not all(held.values()):
            silent = ", ".join(str(port) for port, taken in held.items() if not taken)
            yield Finding(
                "ports", "problem", f"nobody listens on {silent}", "see nearcast logs --component gateway", name
            )
        elif not runs and any(held.values()):
            taken = ", ".join(str(port) for port, busy in held.items() if busy)
            advice = "end the program that listens there (ss -ltnp), or give the node another --public and --peer"
            yield Finding("ports", "problem", f"{taken}: somebody else listens there", advice, name)
        else:
            how = "served" if runs else "free"
            yield Finding("ports", "ok", f"{wanted.public} (clients), {wanted.peer} (peers): {how}", subject=name)


def _ports(ground: Ground, name: str, layout: Layout) -> _Ports | None:
    if ground.fleet is not None and name in ground.fleet.sites:
        site = ground.fleet.sites[name]
        return _Ports(site.public_port, site.peer_port)
    return msgspec.json.decode(layout.ports.read_bytes(), type=_Ports) if layout.ports.exists() else None
