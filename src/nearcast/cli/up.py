"""``up``: a fleet of sites on this machine, or what is missing of one.

Decides the order of the steps; each looks at what is there already, so that running it again finishes what was begun.
Keeping processes alive is the supervisor's. All keys of such a fleet lie on one disk, the releaser's too: that is fine
for one machine and for nothing else.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer

from nearcast.cli.apply import read_manifests
from nearcast.cli.children import CONTROL
from nearcast.cli.down import end_fleet, standing
from nearcast.cli.fleet import FleetFile, LocalPaths, LocalSite, free_ports, is_free
from nearcast.cli.listen import Listening, listening
from nearcast.cli.lock import exclusively
from nearcast.cli.options import application, command
from nearcast.cli.pids import is_alive
from nearcast.cli.progress import ticking
from nearcast.cli.screen import note
from nearcast.cli.session import Session
from nearcast.cli.start import Starter
from nearcast.cli.waiting import seconds_of
from nearcast.cli.welcome import show_welcome
from nearcast.documents import refuse_newer
from nearcast.errors import Conflict, InvalidInput
from nearcast.resources.kinds import Site, to_document
from nearcast.resources.manifest import parse_manifests

COMMANDS: Final = {"up": application()}
DOWN_S: Final = 40.0


@command(
    COMMANDS["up"],
    "up",
    examples=(
        "up",
        "up --detach",
        "up --detach --data-dir /tmp/lab --file sites.yaml",
        "up --detach --public-tls-cert tls.pem --public-tls-key tls.key",
        "up --detach --metrics 127.0.0.1:9464",
    ),
)
def up(
    session: Session,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the fleet is ready.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Manifests of the sites; default: three cities.", dir_okay=False)
    ] = None,
    public_tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate chain for clients of every gateway (PEM); kept for later starts.", dir_okay=False
        ),
    ] = None,
    public_tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", dir_okay=False)] = None,
    no_public_tls: Annotated[bool, typer.Option("--no-public-tls", help="Plain HTTP for clients again.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="IP:PORT",
            help="Serve /metrics of the first node there, of the others on the ports that follow; port 0: free ones. "
            "Kept for later starts.",
        ),
    ] = None,
    no_metrics: Annotated[bool, typer.Option("--no-metrics", help="Serve no metrics any more.")] = False,
    timeout: Annotated[str, typer.Option(help="How long the fleet may take: a number with ms, s, m or h.")] = "120s",
) -> None:
    """Start a fleet of sites on this machine, or what is missing of it.

    It has a control plane and, for each site, an agent, a gateway and an engine, on free ports that stay the same.
    Without --detach it runs until Ctrl-C. A node whose settings change starts again, with its gateway and engine.
    Its planner is quicker than that of `nearcast control`, so that one can watch it: it looks every 2 s, forgets demand
    within 10 s, and takes a model back 30 s after it is no longer needed at a site.
    """
    if session.control is not None:
        raise InvalidInput("`up` starts a fleet on this machine, so --control has no meaning here")
    paths, timeout_s = LocalPaths(session.data_dir), seconds_of(timeout)
    told = listening(public_tls_cert, public_tls_key, metrics, no_public_tls=no_public_tls, no_metrics=no_metrics)
    sites = read_sites(file)
    with exclusively(paths):
        refuse_newer(*paths.documents())
        known = paths.read_fleet()
        fleet = planned_fleet(known, sites if known is None or file else [], told)
        running = supervisor_runs(paths)
        if not running:
            refuse_taken_ports(paths, fleet)
        paths.write_fleet(fleet)
        deadline = time.monotonic() + timeout_s
        process = None if running else start_supervisor(paths, tied=not detach)
        try:
            with ticking("starting the fleet") as ticker:
                was_ready = Starter(session, paths, fleet, process, deadline).start(ticker)
                if running and was_ready:
                    ticker.step(f"the fleet in {paths.data_dir} is running already")
        except KeyboardInterrupt:
            if process is not None:
                _interrupted(paths)
            raise
    show_welcome(session, fleet)
    if process is not None and not detach:
        follow(paths, process)


def read_sites(file: Path | None) -> list[Site]:
    """The sites in ``file``, or the packaged ones.

    Raises:
        InvalidInput: it holds something else than sites.
    """
    if file is None:
        text = files("nearcast.cli").joinpath("sites.yaml").read_text(encoding="utf-8")
        parsed = parse_manifests(text, "sites.yaml")
    else:
        parsed = read_manifests([str(file)])
    sites = [each.resource for each in parsed if isinstance(each.resource, Site)]
    if len(sites) < len(parsed):
        other = next(each for each in parsed if not isinstance(each.resource, Site))
        raise InvalidInput(
            f"{other.source}:{other.line}: expected only sites in --file, got a {other.resource.kind}",
            hint="apply other resources when the fleet is up: nearcast apply -f FILE",
        )
    return sites


def planned_fleet(known: FleetFile | None, sites: list[Site], told: Listening = Listening()) -> FleetFile:
    """The fleet that ``known`` becomes with ``sites``, which are to be applied: ports stay, new sites get free ones."""
    new = [site for site in sites if known is None or site.name not in known.sites]
    ports = iter(free_ports(2 * len(new) + 1))
    control_port = known.control_port if known else next(ports)
    added = {
        site.name: LocalSite(
            public_port=next(ports), peer_port=next(ports), country=site.spec.country, tier=site.spec.tier
        )
        for site in new
    }
    given = [to_document(site, with_status=False) for site in sites]
    pending = {document["metadata"]["name"]: document for document in [*(known.pending if known else ()), *given]}
    planned = FleetFile(
        control_port=control_port,
        sites={**(known.sites if known else {}), **added},
        pending=tuple(pending.values()),
        public_tls_cert=known.public_tls_cert if known else None,
        public_tls_key=known.public_tls_key if known else None,
        metrics=known.metrics if known else None,
    )
    return told.over(planned)


def supervisor_runs(paths: LocalPaths) -> bool:
    """Whether a supervisor looks after the fleet now."""
    processes = paths.read_processes()
    return processes is not None and is_alive(processes.supervisor)


def refuse_taken_ports(paths: LocalPaths, fleet: FleetFile) -> None:
    """Refuse to start where somebody else listens on a port of the fleet.

    Raises:
        Conflict: naming the ports. Those of processes that a dead supervisor left are no obstacle: they are taken over.
    """
    left = standing(paths)
    ports = {} if CONTROL in left else {"control plane": fleet.control_port}
    ports |= {
        f"gateway of {name}": site.public_port for name, site in fleet.sites.items() if f"gateway:{name}" not in left
    }
    taken = [f"{port} ({what})" for what, port in ports.items() if not is_free(port, fleet.host)]
    if taken:
        raise Conflict(
            f"other programs listen on ports of the fleet in {paths.data_dir}: {', '.join(taken)}",
            hint=f"`nearcast down` ends what is left of this fleet; stop others, or change the ports in {paths.fleet}",
        )


def start_supervisor(paths: LocalPaths, *, tied: bool) -> "subprocess.Popen[bytes]":
    """Start the supervisor in a session of its own; ``tied``, it stops when this process is gone."""
    command = [sys.executable, "-m", "nearcast.cli.supervisor", "--data-dir", str(paths.data_dir)]
    with paths.supervisor_log.open("ab") as log:
        return subprocess.Popen(
            [*command, "--tied"] if tied else command,
            stdin=subprocess.PIPE if tied else subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.data_dir,
            start_new_session=True,
        )


@dataclass(slots=True)
class _Told:
    """Whether the person asked to stop; who asks once more wants the supervisor to hurry."""

    process: "subprocess.Popen[bytes]"
    to_stop: bool = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.to_stop and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.to_stop = True


def follow(paths: LocalPaths, process: "subprocess.Popen[bytes]") -> None:
    """Stay in the foreground: print what the supervisor says, until Ctrl-C or until it ends; then stop everything."""
    note("running in the foreground; Ctrl-C stops the fleet")
    told = _Told(process)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)
    with paths.supervisor_log.open(encoding="utf-8", errors="replace") as log:
        log.seek(0, os.SEEK_END)
        while not told.to_stop and process.poll() is None:
            for line in log:
                note(line.rstrip("\n"))
            time.sleep(0.2)
    _interrupted(paths)


def _interrupted(paths: LocalPaths) -> None:
    with ticking("stopping the fleet") as ticker:
        end_fleet(paths, DOWN_S, ticker)
