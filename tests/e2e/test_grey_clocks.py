"""Clocks an hour off, of a node and of the control plane: joining, plans, TLS between sites and answers go on.

The clock is set by libfaketime for agents and the control plane, not for the gateways; time that only passes is left
alone.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from e2e.local_fleet import NEARCAST, eventually, resource
from e2e.tiny_models import adder
from e2e.traffic import BODY
from nearcast.cli.fleet import free_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def _library() -> Path | None:
    """The library that the package ``libfaketime`` carries, or that of this system; None where there is neither."""
    package = importlib.util.find_spec("libfaketime")
    carried = (
        Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1" if package and package.origin else None
    )
    system = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return next((path for path in (carried, *system) if path is not None and path.exists()), None)


LIBRARY = _library()

SHIM = (
    "import os, select, time\nos.environ.pop('LD_PRELOAD', None)\n"
    "time.sleep = lambda seconds: select.select([], [], [], max(0.0, seconds)) and None\n"
)
"""The library breaks the system call that Python 3.11 sleeps by (absolute times of the clock that is left alone),
and Envoy hangs under it: what an agent starts has the clock of this machine."""


def _environment(off: str, shim: Path) -> dict[str, str]:
    assert LIBRARY is not None
    shim.mkdir(exist_ok=True)
    (shim / "sitecustomize.py").write_text(SHIM)
    faked = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": off, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
    faked["PYTHONPATH"] = os.pathsep.join(filter(None, (str(shim), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, **(faked if off else {})}


@contextmanager
def _running(log: Path, off: str, *arguments: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*NEARCAST, *arguments], stdout=out, stderr=out, env=_environment(off, log.parent / "shim")
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)


def _hours_off(log: Path) -> float:
    """How far the clock of the process behind ``log`` is from ours, by the first moment in it."""
    found = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", log.read_text())
    assert found is not None, log.read_text()
    return (datetime.fromisoformat(f"{found[0]}+00:00") - datetime.now(UTC)) / timedelta(hours=1)


def _say(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run([*NEARCAST, *arguments], capture_output=True, text=True, timeout=90, input=stdin, check=False)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _asked(port: int) -> tuple[str, float] | str:
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/v2/models/adder/infer", json=BODY, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        return repr(error)
    if answer.status_code != 200:
        return answer.text
    return answer.headers["x-nearcast-site"], answer.json()["outputs"][0]["data"][0]


@pytest.mark.skipif(
    LIBRARY is None, reason="no libfaketime: make test installs it on Linux x86-64; elsewhere apt install faketime"
)
@pytest.mark.parametrize(
    ("control", "lisbon", "madrid"),
    [pytest.param("", "-1h", "+1h", id="nodes"), pytest.param("+1h", "", "", id="control plane")],
)
def test_an_hour_off(tmp_path: Path, control: str, lisbon: str, madrid: str) -> None:
    here = ("--data-dir", str(tmp_path / "control"))
    ports = dict(zip(("lisbon", "madrid"), free_ports(2), strict=True))
    with ExitStack() as stack:
        stack.enter_context(_running(tmp_path / "control.log", control, "control", *here))
        description = tmp_path / "control" / "control.json"
        eventually(description.exists, "a control plane")
        url = json.loads(description.read_bytes())["url"]
        sites = [resource("Site", "lisbon", {"country": "PT"}), resource("Site", "madrid", {"country": "ES"})]
        _say("apply", "-f", "-", *here, stdin="\n---\n".join(map(json.dumps, sites)))
        keys = tmp_path / "releaser"
        _say("releaser", "init", "--keys", str(keys), *here)
        for site, off in (("lisbon", lisbon), ("madrid", madrid)):
            token = tmp_path / f"{site}.token"
            token.write_text(_say("join-token", site, *here))
            public = ("--public", f"127.0.0.1:{ports[site]}", "--poll", "500ms", "--status", "2s")
            agent = ("agent", "--data-dir", str(tmp_path / site), "--control", url, "--join-file", str(token))
            stack.enter_context(_running(tmp_path / f"{site}.log", off, *agent, *public))
        for version in ("1", "2"):
            model = str(adder(tmp_path / version, float(version)))
            key = ("--key", str(keys / "releaser.pem"))
            _say("model", "push", "adder", "--version", version, model, *key, *here)
            spec = {"model": "adder", "version": version, "placement": {"sites": ["lisbon"]}}
            _say("apply", "-f", "-", *here, stdin=json.dumps(resource("Deployment", "adder", spec)))
            _say("wait", "deployment/adder", "--for", "ready", "--timeout", "60s", *here)
            wanted = ("lisbon", 1.0 + float(version))
            eventually(lambda wanted=wanted: _asked(ports["lisbon"]) == wanted, "an answer at its site")
            eventually(lambda wanted=wanted: _asked(ports["madrid"]) == wanted, "an answer over TLS between sites")
        found = json.loads(_say("status", "-o", "json", *here))["sites"]
        assert {site["name"]: site["ready"] for site in found} == {"lisbon": True, "madrid": True}
        wanted_off = {"control": control, "lisbon": lisbon, "madrid": madrid}
        for name, off in wanted_off.items():
            assert round(_hours_off(tmp_path / f"{name}.log")) == {"": 0, "-1h": -1, "+1h": 1}[off], name
