"""``down``: no process of the fleet is left, and its data stay unless they are asked to go.

Decides what may be killed: only processes whose start time is on record, or that run a module of ours on this very
data directory. A process that merely looks at a file of it is nobody's to kill.
"""

import shutil
import signal
import time
from typing import Annotated, Final

import typer

from nearcast.cli.fleet import LocalPaths, ProcessRecord
from nearcast.cli.lock import exclusively
from nearcast.cli.options import application, command
from nearcast.cli.pids import await_gone, end, is_alive, running_below, send
from nearcast.cli.progress import Ticker, ticking
from nearcast.cli.session import Session
from nearcast.cli.waiting import seconds_of
from nearcast.errors import InvalidInput, NotFound, Unavailable

COMMANDS: Final = {"down": application()}
MODULES: Final = ("nearcast.cli.supervisor", "nearcast.control", "nearcast.agent", "nearcast.engine")
LEFTOVER_GRACE_S: Final = 10.0


@command(COMMANDS["down"], "down", examples=("down", "down --data-dir /tmp/lab --delete-data --yes"))
def down(
    session: Session,
    timeout: Annotated[str, typer.Option(help="How long processes may take to stop before they are killed.")] = "40s",
    delete_data: Annotated[bool, typer.Option("--delete-data", help="Remove the data directory afterwards.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing data.")] = False,
) -> None:
    """Stop the fleet on this machine; its data stay.

    Agents stop their gateway and engine, then the control plane stops. What does not stop in time is killed, and it is
    checked that nothing is left.
    """
    paths, timeout_s = LocalPaths(session.data_dir), seconds_of(timeout)
    if not paths.fleet.exists():  # a damaged one is no reason to leave processes running
        raise NotFound(f"there is no fleet in {paths.data_dir}", hint="name its directory with --data-dir")
    if delete_data and not yes and not typer.confirm(f"Remove {paths.data_dir} and everything in it?", err=True):
        raise InvalidInput("nothing was stopped, nothing was removed")
    with exclusively(paths), ticking("stopping the fleet") as ticker:
        end_fleet(paths, timeout_s, ticker)
        if delete_data:
            for folder in paths.run_dirs():
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(paths.data_dir)
            ticker.step(f"removed {paths.data_dir}")


def end_fleet(paths: LocalPaths, timeout_s: float, ticker: Ticker) -> None:
    """Stop every process of the fleet, and verify that.

    Raises:
        Unavailable: a process outlived even its killing; it is named.
    """
    processes = paths.read_processes()
    was_running = bool(standing(paths))
    if processes is not None and send(processes.supervisor, signal.SIGTERM):
        ticker.tell("agents stop their gateways and engines, then the control plane stops")
        await_gone([processes.supervisor], time.monotonic() + timeout_s)
    for name, records in _in_order(standing(paths)):
        ticker.tell(f"ending {name}, left without a supervisor")
        end(records, LEFTOVER_GRACE_S)
    if left := standing(paths):
        names = ", ".join(f"{name} (process {record.pid})" for name, record in left.items())
        raise Unavailable(f"these processes of {paths.data_dir} could not be ended: {names}")
    paths.processes.unlink(missing_ok=True)
    ticker.done("the fleet is down, none of its processes is left" if was_running else "the fleet was down already")


def standing(paths: LocalPaths) -> dict[str, ProcessRecord]:
    """Every process of the fleet that runs now, by name."""
    processes = paths.read_processes()
    found = {"supervisor": processes.supervisor, **processes.children} if processes else {}
    found |= paths.node_processes()
    known = {record.pid for record in found.values()}
    unnamed = {
        f"process {record.pid}": record
        for record in running_below([paths.data_dir, *paths.run_dirs()], MODULES)
        if record.pid not in known
    }
    return {name: record for name, record in (found | unnamed).items() if is_alive(record)}


def _in_order(left: dict[str, ProcessRecord]) -> list[tuple[str, list[ProcessRecord]]]:
    """The supervisor first (it would start others again), then agents (they stop their own), then the rest."""
    groups: dict[str, list[ProcessRecord]] = {"the supervisor": [], "agents": [], "the other processes": []}
    for name, record in left.items():
        kind = "agents" if name.startswith("agent:") else "the other processes"
        groups["the supervisor" if name == "supervisor" else kind].append(record)
    return [(name, records) for name, records in groups.items() if records]
