"""Seconds from `apply` to ready on three sites, and memory per site, of a fleet as `nearcast up` makes it.

Ready means what `nearcast wait` means: every placed site serves the version, and every connected gateway routes it.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import small_site, starting
from bench.load import pss_mib
from bench.models import tiny
from e2e.local_fleet import LocalFleet, local_fleet, resource
from e2e.tiny_models import adder

SITES = ("frankfurt", "ashburn", "singapore")
ROUNDS = 6


def run(folder: Path) -> dict[str, Any]:
    """A fleet from nothing; returns raw seconds by step, medians, and MiB by site and process."""
    started = time.perf_counter()
    with local_fleet(folder / "fleet") as fleet:
        up_s = time.perf_counter() - started
        seconds = _convergence(fleet, folder)
        fleet.push("tiny", "1", tiny(folder / "tiny"))
        fleet.deploy("tiny", "1", *SITES)
        memory = {site: {name: pss_mib(pid) for name, pid in fleet.pids(site).items()} for site in SITES}
        cli = _cli_seconds()
    return {
        "up_s": up_s,
        "apply_to_ready_s": seconds,
        "median_apply_to_ready_s": {name: statistics.median(values) for name, values in seconds.items()},
        "of_which_the_two_commands_s": cli,
        "pss_mib": memory,
        "pss_mib_per_site": {site: sum(parts.values()) for site, parts in memory.items()},
        "models_loaded": 2,
        "starting": starting.run(folder / "starting"),
        "small_site": small_site.run(folder / "small"),
    }


def _convergence(fleet: LocalFleet, folder: Path) -> dict[str, list[float]]:
    """A first deployment, then changes of version, each on all three sites."""
    for version in range(1, ROUNDS + 2):
        fleet.push("adder", str(version), adder(folder / f"adder{version}", float(version)))
    seconds: dict[str, list[float]] = {"first deployment": [], "change of version": []}
    for version in range(1, ROUNDS + 2):
        spec = {"model": "adder", "version": str(version), "placement": {"sites": list(SITES)}}
        started = time.perf_counter()
        fleet.apply(resource("Deployment", "adder", spec))
        fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
        took_s = time.perf_counter() - started
        seconds["first deployment" if version == 1 else "change of version"].append(took_s)
        print(f"  adder@{version}: {took_s:.2f} s", file=sys.stderr)
    return seconds


def _cli_seconds() -> float:
    """What two starts of the command cost by themselves: they are part of the seconds above."""
    started = time.perf_counter()
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "nearcast", "version"], capture_output=True, check=True, timeout=60)
    return time.perf_counter() - started
