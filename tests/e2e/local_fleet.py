"""A fleet on this machine, driven only through the `nearcast` command, as a user would."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from nearcast.cli.main import main

NEARCAST = (sys.executable, "-m", "nearcast")
_LOOKING = threading.Lock()
"""Commands in this process print where all of it prints."""


class CommandFailed(AssertionError):
    """A `nearcast` command exited non-zero."""


class LocalFleet:
    """One data directory. Every method is a command, or looks at files and processes."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, *arguments: str, check: bool = True, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        """Run `nearcast ARGUMENTS` on this fleet."""
        command = [*NEARCAST, *arguments, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if check and done.returncode != 0:
            raise CommandFailed(f"{' '.join(arguments)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        """What `nearcast ARGUMENTS -o json` prints. The command runs in this process: tests look many times per second,
        and as many new interpreters would keep the cores from the fleet."""
        out, said = io.StringIO(), io.StringIO()
        code: Any = 0
        with _LOOKING, redirect_stdout(out), redirect_stderr(said):
            try:
                main([*arguments, "-o", "json", "--data-dir", str(self.data_dir)])
            except SystemExit as left:
                code = left.code
        if code:
            raise CommandFailed(f"{' '.join(arguments)} exited {code}\n{out.getvalue()}\n{said.getvalue()}")
        return json.loads(out.getvalue())

    def status(self) -> dict[str, Any]:
        return self.json("status")  # type: ignore[no-any-return]

    def gateway(self, site: str) -> str:
        """The site's gateway as `host:port`."""
        url = next(item["gateway_url"] for item in self.status()["sites"] if item["name"] == site)
        return str(url).removeprefix("http://").rstrip("/")

    def push(self, name: str, version: str, folder: Path) -> None:
        self.run("model", "push", name, "--version", version, str(folder))

    def apply(self, *documents: dict[str, Any]) -> None:
        """Apply documents of a manifest, given as JSON (which is YAML)."""
        path = self.data_dir / "applied.yaml"
        path.write_text("\n---\n".join(json.dumps(document) for document in documents))
        self.run("apply", "-f", str(path))

    def deploy(self, model: str, version: str, *sites: str, wait: bool = True) -> None:
        self.apply(
            resource("Deployment", model, {"model": model, "version": version, "placement": {"sites": list(sites)}})
        )
        if wait:
            self.run("wait", f"deployment/{model}", "--for", "ready", "--timeout", "60s")

    def condition(self, kind: str, name: str, condition: str) -> dict[str, Any]:
        document = self.json("get", kind, name)
        found = [item for item in document["status"]["conditions"] if item["type"] == condition]
        return found[0] if found else {}

    def pids(self, site: str) -> dict[str, int]:
        """Process ids of one site, read from /proc by the site's data directory in their arguments.

        Keys: agent, gateway, engine. An absent process has no key.
        """
        folder = str(self.data_dir / "sites" / site)
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            line = " ".join(arguments)
            if folder not in line and folder not in environment:
                continue
            if "nearcast.agent" in line:
                found["agent"] = int(entry.name)
            elif "nearcast.engine" in line:
                found["engine"] = int(entry.name)
            elif Path(arguments[0]).name.startswith("envoy") and "--mode" not in arguments:  # one that only validates
                found["gateway"] = int(entry.name)
        return found

    def kill(self, site: str, component: str) -> int:
        """`kill -9` of one of a site's processes; returns the pid that died."""
        pid = self.pids(site)[component]
        os.kill(pid, signal.SIGKILL)
        return pid


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def eventually(question: Callable[[], bool], what: str, *, timeout_s: float = 90, pause_s: float = 0.2) -> None:
    """Ask until the answer is yes, or fail and say what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not question():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for: {what}"
        time.sleep(pause_s)


@contextmanager
def local_fleet(data_dir: Path) -> Iterator[LocalFleet]:
    """A fleet of three sites, up and ready; down and gone afterwards, whatever happened."""
    fleet = LocalFleet(data_dir)
    try:
        fleet.run("up", "--detach")
        yield fleet
    finally:
        fleet.run("down", check=False)
