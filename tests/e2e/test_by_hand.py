"""A fleet without `nearcast up`: a control plane, a releaser and one site, each started by its own command."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from e2e.local_fleet import eventually
from e2e.tiny_models import adder

NEARCAST = (sys.executable, "-m", "nearcast")
SITE = (
    '{"apiVersion": "nearcast.dev/v1alpha1", "kind": "Site", "metadata": {"name": "lisbon"}, "spec": {"country": "PT"}}'
)
DEPLOYMENT = """
apiVersion: nearcast.dev/v1alpha1
kind: Deployment
metadata: {name: adder}
spec: {model: adder, version: "1", placement: {sites: [lisbon]}}
"""


def nearcast(*arguments: str, ok: bool = True, stdin: str = "") -> str:
    done = subprocess.run([*NEARCAST, *arguments], capture_output=True, text=True, timeout=90, input=stdin, check=False)
    assert not ok or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if ok else done.stderr


@contextmanager
def running(log: Path, *arguments: str) -> Iterator[None]:
    with log.open("wb") as out, subprocess.Popen([*NEARCAST, *arguments], stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_a_control_plane_a_releaser_and_a_site_by_hand(tmp_path: Path) -> None:
    control, node, releaser = tmp_path / "control", tmp_path / "node", tmp_path / "releaser"
    here = ("--data-dir", str(control))
    public = f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(running(tmp_path / "control.log", "control", *here))
        eventually((control / "control.json").exists, "a control plane")
        nearcast("apply", "-f", "-", *here, stdin=SITE)
        assert "releaser init" in nearcast("join-token", "lisbon", *here, ok=False)
        nearcast("releaser", "init", "--keys", str(releaser), *here)
        assert [(releaser / name).stat().st_mode & 0o777 for name in ("root.pem", "releaser.pem")] == [0o600, 0o600]
        nearcast("releaser", "init", "--keys", str(releaser), *here)
        token = tmp_path / "token"
        token.write_text(nearcast("join-token", "lisbon", *here))
        url = next(line for line in nearcast("status", *here).splitlines() if "https://" in line).split()[2]
        stack.enter_context(
            running(
                tmp_path / "agent.log",
                *("agent", "--data-dir", str(node), "--control", url, "--join-file", str(token)),
                *("--public", public, "--poll", "500ms"),
            )
        )
        manifest = tmp_path / "deployment.yaml"
        manifest.write_text(DEPLOYMENT)
        key = ("--key", str(releaser / "releaser.pem"))
        nearcast("model", "push", "adder", "--version", "1", str(adder(tmp_path / "model", 1.0)), *key, *here)
        nearcast("apply", "-f", str(manifest), *here)
        nearcast("wait", "deployment/adder", "--for", "ready", *here)
        body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
        answer = httpx.post(f"http://{public}/v2/models/adder/infer", json=body, trust_env=False)
        assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]
        assert answer.headers["x-nearcast-site"] == "lisbon"
        nearcast("releaser", "rotate", "--root", "--keys", str(releaser), *here)
        two = ("model", "push", "adder", "--version", "2", str(adder(tmp_path / "model2", 2.0)), *here)
        assert "none of the releasers" in nearcast(
            *two, "--key", str(releaser / "retired" / "1.releaser.pem"), ok=False
        )
        nearcast(*two, *key)
        manifest.write_text(DEPLOYMENT.replace('"1"', '"2"'))
        nearcast("apply", "-f", str(manifest), *here)
        nearcast("wait", "deployment/adder", "--for", "ready", *here)
        answer = httpx.post(f"http://{public}/v2/models/adder/infer", json=body, trust_env=False)
        assert answer.headers["x-nearcast-model"] == "adder@2", "the site has followed to the new keys"
        joined = json.loads(nearcast("status", "-o", "json", *here))["sites"][0]["nodes"][0]["name"]
        nearcast("revoke", f"lisbon/{joined}", *here)
        assert json.loads(nearcast("status", "-o", "json", *here))["sites"][0]["nodes"] == []
