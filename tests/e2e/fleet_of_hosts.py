"""A fleet whose control plane and nodes are hosts of their own, joined and driven by commands, as a user would."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.local_fleet import CommandFailed, eventually, resource
from e2e.networks import Host, Network, network

NEARCAST = (sys.executable, "-m", "nearcast")
CONTROL, NAME = 7643, "control.example"
PUBLIC, PEER = 8080, 8443
_CLONE_NEWNET = 0x40000000


def enter(host: Host) -> Callable[[], None]:
    """Moves the thread that calls it to the network of ``host``."""

    def move() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{host.namespace}").open() as file:
            assert libc.setns(file.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    return move


class Machine:
    """A host with a node on it."""

    def __init__(self, fleet: "HostFleet", host: Host, site: str, node: str) -> None:
        self.fleet, self.host, self.site, self.node = fleet, host, site, node
        self.data_dir = fleet.folder / f"{site}-{node}"
        self.log = fleet.folder / f"{site}-{node}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"{self.site}/{self.node}"

    @property
    def gateway(self) -> str:
        return f"{self.host.address}:{PUBLIC}"

    def start(self, *options: str) -> None:
        """Start the agent."""
        command = [*NEARCAST, "agent", "--data-dir", str(self.data_dir), *options]
        command += ["--public", self.gateway, "--peer", f"{self.host.address}:{PEER}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.host.command([*command, "--poll", "500ms", "--status", "2s"]), stdout=log, stderr=log
            )

    def stop(self) -> int:
        """SIGTERM, as a service manager would; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)

    def pid(self, component: str) -> int:
        """Process id of the engine or the gateway."""
        return int(json.loads((self.data_dir / "run.json").read_text())[component]["pid"])

    def kill(self, component: str) -> None:
        os.kill(self.pid(component), signal.SIGKILL)

    def status(self) -> dict[str, Any]:
        """What the node says itself, on its own disk."""
        return json.loads((self.data_dir / "status.json").read_text())  # type: ignore[no-any-return]


class HostFleet:
    """A control plane on its host, and machines that join it."""

    def __init__(self, folder: Path, net: Network, *options: str) -> None:
        self.folder, self.network, self._options = folder, net, options
        self.control = net.host("control")
        self.data_dir = folder / "control"
        self.machines: dict[str, Machine] = {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://{NAME}:{CONTROL}"

    def start_control(self) -> None:
        """Start the control plane, on its address and no other."""
        names = ("--advertise", NAME, "--advertise", self.control.address)
        command = [*NEARCAST, "control", "--data-dir", str(self.data_dir), "--host", self.control.address]
        command += ["--port", str(CONTROL), *names, "--publish-interval", "200ms", "--node-timeout", "8s"]
        with (self.folder / "control.log").open("ab") as log:
            self.process = subprocess.Popen(self.control.command([*command, *self._options]), stdout=log, stderr=log)
        eventually(lambda: self.run("status", check=False).returncode == 0, "a control plane")

    def begin(self) -> None:
        self.control.know({NAME: self.control.address})
        self.start_control()
        self.run("releaser", "init", "--keys", str(self.folder / "releaser"))

    def join(self, site: str, node: str, control: str = "", *options: str, **link: float) -> Machine:
        """A machine on a host of its own that has joined ``site``."""
        host = self.network.host(f"{site}-{node}", **link)
        host.know({NAME: self.control.address})
        machine = self.machines[f"{site}/{node}"] = Machine(self, host, site, node)
        token = self.folder / f"{site}-{node}.token"
        token.write_text(self.run("join-token", site).stdout)
        machine.start("--control", control or self.url, "--join-file", str(token), "--node", node, *options)
        return machine

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        """Run `nearcast ARGUMENTS` on the control plane's host."""
        command = self.control.command([*NEARCAST, *arguments, "--data-dir", str(self.data_dir)])
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if check and done.returncode != 0:
            raise CommandFailed(f"{' '.join(arguments)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def nodes(self) -> dict[str, dict[str, Any]]:
        return {f"{item['site']}/{item['name']}": item for item in self.json("get", "nodes")["items"]}

    def apply(self, *documents: dict[str, Any]) -> None:
        path = self.folder / "applied.yaml"
        path.write_text("\n---\n".join(json.dumps(document) for document in documents))
        self.run("apply", "-f", str(path))

    def push(self, name: str, version: str, folder: Path) -> None:
        key = str(self.folder / "releaser" / "releaser.pem")
        self.run("model", "push", name, "--version", version, str(folder), "--key", key)

    def deploy(self, model: str, version: str, *sites: str, wait: bool = True) -> None:
        spec = {"model": model, "version": version, "placement": {"sites": list(sites)}}
        self.apply(resource("Deployment", model, spec))
        if wait:
            self.run("wait", f"deployment/{model}", "--for", "ready", "--timeout", "90s")

    def story(self) -> str:
        """The ends of all logs, for whoever looks at a failure."""
        tails = []
        for path in sorted(self.folder.glob("*.log")):
            tails += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(tails)


@contextmanager
def fleet_of_hosts(folder: Path, *options: str) -> Iterator[HostFleet]:
    """A control plane that runs, without sites; everything is gone afterwards."""
    with network() as net:
        fleet = HostFleet(folder, net, *options)
        try:
            fleet.begin()
            yield fleet
        finally:
            net.power_off()
            for process in (fleet.process, *(machine.process for machine in fleet.machines.values())):
                if process is not None:
                    process.wait(10)
