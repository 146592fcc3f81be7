"""A fleet on this machine, as files in its data directory: what it shall be, and which processes it is.

``fleet.json`` is desired: sites and ports, written by ``nearcast up``, kept across restarts. ``processes.json`` is
observed: process ids with start times, written by the supervisor alone. Neither holds a secret.
"""

import socket
from pathlib import Path
from typing import Any, Final

import msgspec

from nearcast.agent.book import ProcessBook
from nearcast.agent.layout import layout_of
from nearcast.documents import TooNew, read_document
from nearcast.durable import write_whole
from nearcast.errors import IntegrityError, NotFound

HOST: Final = "127.0.0.1"
_DAMAGED: Final = "stop the fleet with `nearcast down`, remove the file, and start it again"


class LocalSite(msgspec.Struct, frozen=True, kw_only=True):
    """One site of the fleet: where its node listens, and the facts that are shown while nobody can be asked.

    ``node`` counts the machines that this site has had here: a node whose key is lost never comes back by its name.
    ``metrics_port`` is 0 where no metrics are served.
    """

    public_port: int
    peer_port: int
    country: str
    tier: str = "edge"
    node: int = 1
    metrics_port: int = 0


class FleetFile(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet shall be: one control plane, one node per site, on ports that were free when it was made.

    ``pending`` holds manifests of sites that the control plane has not taken yet: an ``up`` that was cut short is
    finished by the next one, which may be told nothing of them. ``public_tls_cert``, ``public_tls_key``: PEM files
    for clients of every gateway; None: plain HTTP. ``metrics`` is the address from which metrics are served; None:
    nowhere (:mod:`~nearcast.cli.listen`).
    """

    control_port: int
    sites: dict[str, LocalSite] = {}
    pending: tuple[dict[str, Any], ...] = ()
    host: str = HOST
    publish_interval_s: float = 0.2
    plan_interval_s: float = 2.0
    placement_hold_s: float = 30.0
    demand_fall_s: float = 10.0
    poll_s: float = 1.0
    public_tls_cert: str | None = None
    public_tls_key: str | None = None
    metrics: str | None = None

    @property
    def control_url(self) -> str:
        """Where the control plane listens."""
        return f"https://{self.host}:{self.control_port}"

    def gateway_url(self, site: str) -> str:
        """Where the gateway of ``site`` listens for clients."""
        scheme = "http" if self.public_tls_cert is None else "https"
        return f"{scheme}://{self.host}:{self.sites[site].public_port}"

    def metrics_address(self, site: str) -> str | None:
        """Where the node of ``site`` shall serve its metrics, as ``IP:PORT``; None for nowhere."""
        port = self.sites[site].metrics_port
        return f"{self.metrics.rpartition(':')[0]}:{port}" if self.metrics and port else None


def node_name(fleet: FleetFile, site: str) -> str:
    """The name of the node of ``site`` on this machine."""
    return f"{site}-{fleet.sites[site].node}"


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its id means it only together with its start time, since ids come round again."""

    pid: int
    started: str


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that the supervisor looks after, and the supervisor itself.

    ``settings`` says what those were started with that can be changed while they run (`children.Child`).
    """

    supervisor: ProcessRecord
    children: dict[str, ProcessRecord] = {}
    settings: dict[str, str] = {}


class LocalPaths:
    """Where the parts of a local fleet lie under its data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.fleet = data_dir / "fleet.json"
        self.processes = data_dir / "processes.json"
        self.lock = data_dir / "up.lock"
        self.supervisor_lock = data_dir / "supervisor.lock"
        self.supervisor_log = data_dir / "supervisor.log"
        self.control = data_dir / "control"
        self.control_log = self.control / "control.log"
        self.releaser = data_dir / "releaser"
        self.sites = data_dir / "sites"

    def site(self, name: str) -> Path:
        """Data directory of the node of ``name``."""
        return self.sites / name

    def join_token(self, site: str) -> Path:
        """Where ``up`` leaves the join token for the node of ``site``, 0600."""
        return self.site(site) / "join.token"

    def read_fleet(self) -> FleetFile | None:
        """What the fleet shall be, or None where there never was one."""
        return read_document(self.fleet, FleetFile, _DAMAGED)

    def write_fleet(self, fleet: FleetFile) -> None:
        """Replace what the fleet shall be."""
        write_whole(self.fleet, msgspec.json.format(msgspec.json.encode(fleet), indent=2))

    def read_processes(self) -> Processes | None:
        """The processes as the supervisor last wrote them down; they may be gone. A damaged list is none."""
        try:
            return read_document(self.processes, Processes, _DAMAGED)
        except (IntegrityError, TooNew):
            return None

    def documents(self) -> list[Path]:
        """Every JSON document of the fleet and of its nodes on this machine."""
        nodes = [layout_of(self.site(path.name)) for path in sorted(self.sites.glob("*")) if path.is_dir()]
        return [self.fleet, self.processes, *(document for node in nodes for document in node.documents)]

    def run_dirs(self) -> list[Path]:
        """The directories of the nodes' sockets, which lie elsewhere."""
        return [layout_of(path).run_dir for path in sorted(self.sites.glob("*")) if path.is_dir()]

    def node_processes(self) -> dict[str, ProcessRecord]:
        """Gateways and engines, as agents wrote them down (``run.json``); they may be gone. A damaged list is none."""
        found: dict[str, ProcessRecord] = {}
        for path in sorted(self.sites.glob("*/run.json")):
            for name, noted in ProcessBook(path).noted().items():
                started = f"{noted.boot}:{noted.started}" if noted.boot else noted.started
                found[f"{name}:{path.parent.name}"] = ProcessRecord(pid=noted.pid, started=started)
        return found

    def fleet_or_refuse(self, start: str) -> FleetFile:
        """What the fleet shall be.

        Raises:
            NotFound: there is none here; ``start`` is the command that makes one.
        """
        fleet = self.read_fleet()
        if fleet is None:
            raise NotFound(f"there is no fleet in {self.data_dir}", hint=f"start one: {start}")
        return fleet


def free_ports(count: int, host: str = HOST) -> list[int]:
    """``count`` different TCP ports on which nobody listens now."""
    sockets = [socket.socket(_family(host), socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_free(port: int, host: str = HOST) -> bool:
    """Whether nobody listens on that TCP port now."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
