"""Two control planes over PostgreSQL and S3, a site, and the command line: one of them is killed, again and again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.local_fleet import eventually, resource
from e2e.tiny_models import adder
from servers.postgresql import postgresql_server
from servers.s3 import s3_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
NEARCAST = (sys.executable, "-m", "nearcast")


class Replica:
    """One control plane; its secrets are shared, its directory is not."""

    def __init__(self, folder: Path, name: str, environment: dict[str, str]) -> None:
        self.data_dir, self.secrets, self.log = folder / name, folder / "secrets", folder / f"{name}.log"
        self.environment = environment
        self.start()

    def start(self) -> None:
        (self.data_dir / "control.json").unlink(missing_ok=True)
        command = [*NEARCAST, "control", "--data-dir", str(self.data_dir), "--secrets", str(self.secrets)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--publish-interval", "100ms"], stdout=log, stderr=log, env=self.environment
            )

    def url(self) -> str:
        eventually((self.data_dir / "control.json").exists, f"{self.log.read_text()}", timeout_s=90)
        return str(json.loads((self.data_dir / "control.json").read_text())["url"])

    def end(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(60)


class Shell:
    """`nearcast` with both replicas named."""

    def __init__(self, urls: str, secrets: Path, ca_file: Path, scratch: Path) -> None:
        self.scratch = scratch
        token = (secrets / "admin.token").read_text().strip()
        given = {"NEARCAST_CONTROL": urls, "NEARCAST_TOKEN": token, "NEARCAST_CA_FILE": str(ca_file)}
        given["NEARCAST_DATA_DIR"] = str(scratch / "nothing")
        self.environment = {**os.environ, **given}

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*NEARCAST, *arguments], capture_output=True, text=True, timeout=90, check=False, env=self.environment
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def apply(self, document: dict[str, Any]) -> bool:
        path = self.scratch / "manifest.json"
        path.write_text(json.dumps(document))
        return self.run("apply", "-f", str(path), check=False).returncode == 0

    def site(self, name: str) -> dict[str, Any]:
        sites = json.loads(self.run("status", "-o", "json").stdout)["sites"]
        return next((site for site in sites if site["name"] == name), {})


@contextmanager
def replicas(folder: Path) -> Iterator[tuple[Replica, Replica]]:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql_server())
        store = stack.enter_context(s3_server())
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **store.environment,
            "NEARCAST_DATABASE": database.database(),
            "NEARCAST_REPOSITORY": f"{store.bucket('fleet')}/nearcast",
        }
        made = [Replica(folder, name, environment) for name in ("one", "two")]  # at once: one makes keys and schema
        try:
            yield made[0], made[1]
        finally:
            for each in made:
                each.end(signal.SIGKILL)


def test_any_replica_may_die(tmp_path: Path) -> None:
    with replicas(tmp_path) as (one, two), ExitStack() as stack:
        urls = f"{one.url()},{two.url()}"
        shell = Shell(urls, one.secrets, one.data_dir / "ca.pem", tmp_path)
        assert "secret@" not in one.log.read_text() + two.log.read_text()
        shell.run("releaser", "init", "--keys", str(tmp_path / "releaser"))
        assert shell.apply(resource("Site", "lisbon", {"country": "PT"}))
        token = tmp_path / "token"
        token.write_text(shell.run("join-token", "lisbon").stdout)
        log = stack.enter_context((tmp_path / "agent.log").open("wb"))
        agent = subprocess.Popen(
            [
                *(*NEARCAST, "agent", "--data-dir", str(tmp_path / "node"), "--control", urls),
                *("--join-file", str(token), "--poll", "500ms", "--status", "2s"),
            ],
            stdout=log,
            stderr=log,
        )
        stack.callback(agent.wait, 60)
        stack.callback(agent.send_signal, signal.SIGTERM)
        key = ("--key", str(tmp_path / "releaser" / "releaser.pem"))
        for version in ("1", "2", "3"):
            model = adder(tmp_path / f"model-{version}", float(version))
            shell.run("model", "push", "adder", "--version", version, str(model), *key)
        deployment = {"model": "adder", "placement": {"sites": ["lisbon"]}}
        assert shell.apply(resource("Deployment", "adder", {**deployment, "version": "1"}))
        shell.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
        gateway = shell.site("lisbon")["gateway_url"]
        versions = [shell.site("lisbon")["nodes"][0]["plan_version"]]
        acknowledged: list[str] = []
        story: list[str] = []
        for number, (victim, version) in enumerate([(one, "2"), (two, "3")]):
            acknowledged += [f"site-{number}-{n}" for n in range(2) if write(shell, f"site-{number}-{n}")]
            victim.end(signal.SIGKILL)
            began_s = time.monotonic()
            assert shell.apply(resource("Deployment", "adder", {**deployment, "version": version}))
            acknowledged += [f"site-{number}-x" for _ in range(1) if write(shell, f"site-{number}-x")]
            shell.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
            story.append(f"{time.monotonic() - began_s:.1f} s")
            assert ask(gateway) == float(version)
            versions.append(shell.site("lisbon")["nodes"][0]["plan_version"])
            victim.start()
            victim.url()
        assert versions == sorted(set(versions))
        held = {
            item["metadata"]["name"] for item in json.loads(shell.run("get", "sites", "-o", "json").stdout)["items"]
        }
        assert held >= {"lisbon", *acknowledged}
        assert len(acknowledged) == 6
        (tmp_path / "story").write_text("from a kill to the next version: " + ", ".join(story))


def write(shell: Shell, name: str) -> bool:
    return shell.apply(resource("Site", name, {"country": "PT"}))


def ask(gateway: str) -> float:
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}]}
    answer = httpx.post(f"{gateway}/v2/models/adder/infer", json=body, trust_env=False)
    return float(answer.json()["outputs"][0]["data"][0])
