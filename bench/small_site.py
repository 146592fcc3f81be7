"""A whole site (agent, Envoy, engine) on one core and 512 MB, with three models and load: does it work, is it flat?

One site of a fleet is started again inside a control group of that size, where the machine lets us make one; else only
its core is bounded, and its memory observed. The control plane and the other sites stand outside.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.control_group import ControlGroup, control_group
from bench.load import pss_mib, tree, wrk
from bench.models import Subject, subjects
from e2e.local_fleet import LocalFleet, eventually, local_fleet

SITE = "frankfurt"
LIMIT_MIB = 512
CORE = 0
SECONDS = 10
CONNECTIONS = 16


def run(folder: Path) -> dict[str, Any]:
    """Figures by model: requests per second, p99, errors, and memory over time."""
    models = subjects(folder / "models")
    with local_fleet(folder / "fleet") as fleet, control_group("nc-small") as group:
        _restart_inside(fleet, group)
        for subject in models:
            fleet.push(subject.name, "1", subject.directory)
            fleet.deploy(subject.name, "1", SITE)
        result = {
            "limited_by": "a control group" if group is not None else "nothing: no control group could be made",
            "limit_mib": LIMIT_MIB,
            "cores": 1,
            "idle_mib": _pss(fleet),
            "models": {subject.name: _loaded(fleet, subject, group) for subject in models},
            "after_mib": _pss(fleet),
            "killed_for_memory": group.kills() if group is not None else None,
        }
        _stop(fleet)
    return result


def _restart_inside(fleet: LocalFleet, group: ControlGroup | None) -> None:
    """Kill the site's processes; whoever starts the agent again stands in the group and on one core meanwhile."""
    agent = fleet.pids(SITE)["agent"]
    supervisor = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])
    home = Path(f"/proc/{supervisor}/cgroup").read_text()
    if group is not None:
        group.limit(LIMIT_MIB * 2**20)
        group.add(supervisor)
    cores = os.sched_getaffinity(supervisor)
    _pin(supervisor, {CORE})
    before = fleet.pids(SITE)
    for name in ("engine", "gateway", "agent"):
        os.kill(before[name], signal.SIGKILL)
    eventually(lambda: fleet.pids(SITE).get("agent", agent) != agent, "a new agent", timeout_s=60)
    if group is not None:
        _back(supervisor, home, group)
    _pin(supervisor, cores)
    eventually(lambda: len(fleet.pids(SITE)) == 3, "all of the site", timeout_s=60)


def _pin(pid: int, cores: set[int]) -> None:
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def _back(pid: int, home: str, group: ControlGroup) -> None:
    lines = [line.split(":", 2) for line in home.splitlines()]
    path = next(place for _, kinds, place in lines if kinds == "memory" or (kinds == "" and "memory" not in home))
    (group.folder.parent / path.lstrip("/") / "cgroup.procs").write_text(str(pid))


def _pss(fleet: LocalFleet) -> dict[str, float]:
    return {name: round(pss_mib(pid), 1) for name, pid in fleet.pids(SITE).items()}


def _loaded(fleet: LocalFleet, subject: Subject, group: ControlGroup | None) -> dict[str, Any]:
    """One model under load, with a look at memory every second."""
    body, headers = subject.request()
    pids = fleet.pids(SITE)
    seen: list[float] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            seen.append(round(group.usage_mib() if group is not None else sum(map(pss_mib, pids.values())), 1))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        url = f"http://{fleet.gateway(SITE)}/v2/models/{subject.name}/infer"
        point = wrk(
            url,
            pid=pids["gateway"],
            connections=CONNECTIONS,
            seconds=SECONDS,
            body=body,
            headers=headers,
            core=1 if (os.cpu_count() or 1) > 1 else None,
        )
    finally:
        over.set()
        looking.join()
    print(f"  small site, {subject.name}: {point.requests_per_s:.0f}/s, {max(seen):.0f} MiB", file=sys.stderr)
    return {
        "requests_per_s": point.requests_per_s,
        "p99_ms": point.p99_ms,
        "errors": point.errors,
        "mib_over_time": seen,
        "same_processes": fleet.pids(SITE) == pids,
    }


def _stop(fleet: LocalFleet) -> None:
    fleet.run("down", check=False)
    end = time.monotonic() + 10
    while fleet.pids(SITE) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in fleet.pids(SITE).values():
        for each in tree(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
