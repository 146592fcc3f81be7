"""How the checks of the examples talk to a running fleet: through the `nearcast` command, as a person would.

It does not start or stop a fleet. Which fleet it is, the command reads from the environment (`NEARCAST_DATA_DIR`), or
takes its default.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Mismatch(SystemExit):
    """The fleet answered something else than the example promises: the script ends here, with the words as its last."""


def expect(holds: bool, otherwise: str) -> None:
    """Go on when `holds`; else stop the example with the text `otherwise`."""
    if not holds:
        raise Mismatch(otherwise)


def nearcast_command() -> str:
    """Path of the `nearcast` command: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "nearcast"
    found = str(beside) if beside.exists() else shutil.which("nearcast")
    expect(found is not None, "the command `nearcast` is not installed: run `make up` first")
    return str(found)


class Fleet:
    """A running fleet: the one that `nearcast` itself would talk to."""

    def cli(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Run `nearcast ARGUMENTS` and return what it prints; a failure stops the example with the command's words."""
        command = [nearcast_command(), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        expect(
            done.returncode == 0,
            f"`nearcast {' '.join(arguments)}` exited with {done.returncode}:\n{done.stdout}{done.stderr}",
        )
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `nearcast status -o json` says."""
        document: dict[str, Any] = json.loads(self.cli("status", "-o", "json"))
        return document

    def gateways(self) -> dict[str, str]:
        """Site -> URL of its gateway."""
        return {site["name"]: site["gateway_url"].rstrip("/") for site in self.status()["sites"]}

    def gateway(self, site: str) -> str:
        """URL of the gateway of `site`."""
        gateways = self.gateways()
        expect(site in gateways, f"there is no site {site!r}: expected one of {', '.join(gateways)}")
        return gateways[site]

    def push(self, model: str, version: str, directory: Path, *options: str) -> None:
        """Release `directory` as `model`@`version`; the same files again change nothing."""
        self.cli("model", "push", model, "--version", version, str(directory), *options)
        print(f"  released {model}@{version}")

    def apply(self, manifest: Path, *deployments: str, timeout_s: float = 120.0) -> None:
        """Apply `manifest` and wait until each of `deployments` is ready."""
        self.cli("apply", "-f", str(manifest))
        for name in deployments:
            self.cli(
                "wait",
                f"deployment/{name}",
                "--for",
                "ready",
                "--timeout",
                f"{timeout_s:.0f}s",
                timeout_s=timeout_s + 10,
            )
            print(f"  deployment/{name} is ready")

    def delete(self, *things: str) -> None:
        """Delete `KIND/NAME`s."""
        for thing in things:
            self.cli("delete", thing)


def until(holds: Callable[[], bool], otherwise: str, *, timeout_s: float = 30.0, every_s: float = 0.2) -> None:
    """Wait until `holds()`; after `timeout_s` seconds stop the example with the text `otherwise`."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        expect(time.monotonic() < deadline, f"{otherwise} (waited {timeout_s:.0f} s)")
        time.sleep(every_s)
