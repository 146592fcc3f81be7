"""Three sites and a control plane on one machine, with a link that can be cut in front of each: what is soaked.

Every process is started by the command that an operator uses, and started again when it dies, as a service manager
would. Peers reach a site by its link (`--advertise-peer`), a site reaches the control plane by its uplink.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.local_fleet import LocalFleet, eventually, resource
from soak.models import worker
from soak.ports import free_ports

NEARCAST = (sys.executable, "-m", "nearcast")
PLACES = {"frankfurt": ("DE", 50.11, 8.68), "ashburn": ("US", 39.04, -77.49), "singapore": ("SG", 1.35, 103.82)}
SITES = tuple(PLACES)
RESTART_S = 0.5


class Kept:
    """A process that is started again when it dies, until it is released."""

    def __init__(self, name: str, log: Path, *command: str) -> None:
        self.name, self._log, self._command = name, log, command
        self.starts = 0
        self._released = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()

    def release(self) -> int:
        """End it by SIGTERM, and return how it ended."""
        self._released.set()
        self._thread.join(RESTART_S + 5)
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)

    def _start(self) -> "subprocess.Popen[bytes]":
        self.starts += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _keep(self) -> None:
        while not self._released.wait(RESTART_S):
            if self._process.poll() is not None:
                self._process = self._start()


class Links:
    """The relays' process: cut, stalled or healed by name."""

    def __init__(self, links: dict[str, tuple[int, int]]) -> None:
        command = [sys.executable, "-m", "soak.relay", json.dumps(links)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._hears() == "ready"

    def tell(self, verb: str, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{verb} {name}\n")
        self._process.stdin.flush()
        assert self._hears() == f"done {name}"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def _hears(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass
class World:
    """A running fleet. `commands` drives it as a user does, `version` is what each model was last deployed as."""

    folder: Path
    commands: LocalFleet
    links: Links
    gateways: dict[str, str]
    kept: dict[str, Kept] = field(default_factory=dict)
    version: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)

    def node(self, site: str) -> Path:
        return self.folder / "sites" / site

    def release(self, model: str, version: int) -> None:
        """Push one version: y = x + version, after some work."""
        key = str(self.folder / "releaser" / "releaser.pem")
        path = worker(self.folder / "models" / f"{model}-{version}", float(version), LAYERS[model])
        self.commands.run("model", "push", model, "--version", str(version), str(path), "--key", key)

    def deploy(self, model: str, version: int) -> None:
        """Make ``version`` the one that is wanted; what `apply` acknowledged is written down.

        Raises:
            CommandFailed: nobody acknowledged it. It may be applied all the same: say it again.
        """
        spec = {"model": model, "version": str(version), "placement": {"sites": list(SITES)}}
        self.commands.apply(resource("Deployment", model, spec))
        self.version[model] = version
        self.changes[model] = self.changes.get(model, 0) + 1

    def pids(self) -> dict[str, int]:
        """Every process of the fleet by `site/part`, and `control`."""
        found = {"control": self.kept["control"].pid}
        for site in SITES:
            found[f"{site}/agent"] = self.kept[site].pid
            found |= {f"{site}/{part}": pid for part, pid in LocalFleet(self.folder).pids(site).items()}
        return found

    def settle(self) -> None:
        """Wait until every site is ready and every deployment is what was asked for last."""
        eventually(self._is_ready, "a ready fleet", timeout_s=90, pause_s=1.0)
        for model in self.version:
            self.commands.run("wait", f"deployment/{model}", "--for", "ready", "--timeout", "60s")

    def _is_ready(self) -> bool:
        done = self.commands.run("status", "-o", "json", check=False)
        return done.returncode == 0 and all(site["ready"] for site in json.loads(done.stdout)["sites"])


LAYERS = {"light": 0, "heavy": 96}
"""Matrix products per request: one model that costs next to nothing, and one of some milliseconds."""


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A fleet with both models deployed; gone afterwards, whatever happened."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = iter(free_ports(1 + 4 * len(SITES)))
    control_port = next(ports)
    public, peer, peer_link, uplink = ({site: next(ports) for site in SITES} for _ in range(4))
    links = Links(
        {f"peers:{site}": (peer_link[site], peer[site]) for site in SITES}
        | {f"uplink:{site}": (uplink[site], control_port) for site in SITES}
    )
    made = World(folder, LocalFleet(folder / "control"), links, {s: f"127.0.0.1:{p}" for s, p in public.items()})
    try:
        _start_control(made, control_port)
        for site in SITES:
            _start_site(made, site, public[site], peer[site], peer_link[site], uplink[site])
        for model in LAYERS:
            made.release(model, 1)
            made.deploy(model, 1)
        made.settle()
        yield made
    finally:
        for name in [name for name in made.kept if name != "control"] + ["control"]:
            if name in made.kept:
                made.kept[name].release()
        links.close()


def _start_control(made: World, port: int) -> None:
    data_dir = made.folder / "control"
    made.kept["control"] = Kept(
        "control",
        made.folder / "control.log",
        *(*NEARCAST, "control", "--data-dir", str(data_dir), "--port", str(port), "--publish-interval", "200ms"),
    )
    eventually((data_dir / "control.json").exists, "a control plane")
    eventually(lambda: made.commands.run("status", check=False).returncode == 0, "its answer")
    made.commands.run("releaser", "init", "--keys", str(made.folder / "releaser"))


def _start_site(made: World, site: str, public: int, peer: int, peer_link: int, uplink: int) -> None:
    country, latitude, longitude = PLACES[site]
    location = {"latitude": latitude, "longitude": longitude}
    made.commands.apply(resource("Site", site, {"country": country, "location": location}))
    token = made.folder / f"{site}.token"
    token.write_text(made.commands.run("join-token", site).stdout)
    token.chmod(0o600)
    made.kept[site] = Kept(
        site,
        made.folder / f"{site}.log",
        *(*NEARCAST, "agent", "--data-dir", str(made.node(site)), "--join-file", str(token)),
        *("--control", f"https://127.0.0.1:{uplink}", "--node", f"{site}-1"),
        *("--public", f"127.0.0.1:{public}", "--peer", f"127.0.0.1:{peer}"),
        *("--advertise-peer", f"127.0.0.1:{peer_link}", "--poll", "500ms", "--engine-threads", "1"),
    )


def memory_kib(pid: int) -> int | None:
    """Anonymous resident memory of a process in KiB: what a leak would grow; None when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["RssAnon"].split()[0]) if "RssAnon" in fields else None


def open_files(pid: int) -> int | None:
    """How many descriptors a process holds; None when it is gone."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return None


class Census:
    """Memory and descriptors of every process, asked every ``every_s`` seconds, by process id."""

    def __init__(self, made: World, every_s: float) -> None:
        self._made, self._every_s = made, every_s
        self.samples: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Census":
        self._begin_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            at_s = round(time.monotonic() - self._begin_s, 1)
            for name, pid in self._made.pids().items():
                kib, files = memory_kib(pid), open_files(pid)
                if kib is not None and files is not None:
                    self.samples.append({"at_s": at_s, "name": name, "pid": pid, "anon_kib": kib, "files": files})
