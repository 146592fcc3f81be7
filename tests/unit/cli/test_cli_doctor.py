"""``nearcast doctor``: each thing that can be wrong is provoked, and the advice is there. Works on ruins, too."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest

from nearcast.agent.book import ProcessBook
from nearcast.agent.identity import Membership, load_or_make_key, signing_request
from nearcast.agent.layout import layout_of
from nearcast.cli.doctor import CHECKS, connections, machine, processes, trust, versions
from nearcast.cli.doctor.finding import Finding, Ground, examined, ground_of
from nearcast.control.authority import load_or_create_authority
from nearcast.gateway.process import started_at
from nearcast.resources import wire
from nearcast.resources.status import (
    ConditionReport,
    EngineStatus,
    GatewayStatus,
    ModelStatus,
    NodeStatus,
    PeerObservation,
)

NOW = datetime.now(UTC)


def only(findings: Iterable[Finding], check: str) -> Finding:
    """The one finding of ``check``; whatever is not well has advice."""
    found = [each for each in findings if each.check == check]
    assert len(found) == 1, found
    assert found[0].verdict == "ok" or found[0].advice
    return found[0]


def verdict(findings: Iterable[Finding], check: str) -> str:
    return only(findings, check).verdict


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """A node that has joined, with nothing running and nothing wrong."""
    runtime = tmp_path / "r"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    layout = layout_of(tmp_path / "node")
    layout.make()
    authority = load_or_create_authority(tmp_path / "keys", "fleet.test", NOW)
    csr = signing_request(load_or_make_key(layout), "n1")
    layout.certificate.write_text(authority.issue_node(csr, "fra", "n1", NOW).pem)
    layout.authority.write_text(authority.pem)
    for root in (layout.releases_root, layout.plans_root):
        root.write_text('{"signed": {"_type": "root", "expires": "2020-01-01T00:00:00Z"}}')
    member = Membership(
        fleet="fleet.test", site="fra", node="n1", control="", repository=(tmp_path / "repo").as_uri(),
        ca_sha256="", releases_root_sha256="", plans_root_sha256="",
    )  # fmt: skip
    layout.node.write_bytes(msgspec.json.encode(member))
    (tmp_path / "repo").mkdir()
    return ground_of(layout.data_dir)


def layout(ground: Ground):
    return next(iter(ground.nodes.values()))


def runs_agent(ground: Ground) -> None:
    layout(ground).lock.write_text(f"{os.getpid()}\n")


def says(ground: Ground, **changes: object) -> None:
    status = NodeStatus(
        site="fra", node="n1", software="x", started_at="", plan_version=3, plan_revision="r", routed_version=3,
        gateway=GatewayStatus(url="", peer_address="", ready=True), engine=EngineStatus(ready=True),
    )  # fmt: skip
    layout(ground).status.write_bytes(msgspec.json.encode(msgspec.structs.replace(status, **changes)))


# --- software ---


def test_requirements_that_are_missing_or_old_are_named():
    assert list(versions.unmet(["msgspec>=0.1", "pydantic[x]>=2", "tool>=1; extra == 'dev'"])) == []
    assert list(versions.unmet(["no-such-package>=1"])) == ["no-such-package is missing"]
    (old,) = versions.unmet(["msgspec>=99.1"])
    assert "expected >=99.1" in old
    assert len(list(versions.unmet(["msgspec==0.1"]))) == 1


def test_the_software_of_this_environment_is_well(node: Ground):
    for check in (versions.python, versions.libraries, versions.envoy, versions.onnxruntime):
        assert [each.verdict for each in check(node)] == ["ok"]


def test_an_envoy_that_does_not_run_is_a_problem(node: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "envoy"
    broken.write_text("#!/bin/sh\necho no such library >&2; exit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr(versions, "binary", lambda: broken)
    found = only(versions.envoy(node), "envoy")
    assert (found.verdict, "no such library" in found.found) == ("problem", True)
    monkeypatch.setattr(versions, "binary", lambda: tmp_path / "absent")
    assert verdict(versions.envoy(node), "envoy") == "problem"


# --- the machine ---


def test_documents_of_a_newer_nearcast(node: Ground):
    assert verdict(versions.documents(node), "documents") == "ok"
    (node.data_dir / "run.json").write_text('{"format": 2}')
    found = only(versions.documents(node), "documents")
    assert found.verdict == "problem"
    assert "run.json is of format 2" in found.found


def test_a_disk_without_room(node: Ground, monkeypatch: pytest.MonkeyPatch):
    assert verdict(machine.disk(replace(node, data_dir=node.data_dir / "not" / "yet")), "disk") in {"ok", "warning"}
    monkeypatch.setattr(machine, "LEAST_BYTES", 1 << 62)
    assert verdict(machine.disk(node), "disk") == "problem"
    monkeypatch.setattr(machine, "LITTLE_INODES", 2.0)
    assert verdict(machine.disk(node), "inodes") == "problem"


def test_limits_that_are_too_low(node: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, 1024))
    assert verdict(machine.open_files(node), "open files") == "warning"
    limit = tmp_path / "proc" / "sys" / "fs" / "inotify" / "max_user_instances"
    limit.parent.mkdir(parents=True)
    limit.write_text("8\n")
    assert verdict(machine.inotify(replace(node, proc=tmp_path / "proc")), "inotify") == "problem"
    limit.write_text("1024\n")
    assert verdict(machine.inotify(replace(node, proc=tmp_path / "proc")), "inotify") == "ok"


def test_a_directory_of_somebody_else(node: Ground, monkeypatch: pytest.MonkeyPatch):
    assert verdict(machine.ownership(node), "data directory") == "ok"
    monkeypatch.setattr(machine.os, "getuid", lambda: 4711)
    assert verdict(machine.ownership(node), "data directory") == "problem"


def test_a_key_that_others_may_read(node: Ground):
    assert verdict(machine.secrets(node), "secrets") == "ok"
    layout(node).key.chmod(0o644)
    found = only(machine.secrets(node), "secrets")
    assert (found.verdict, "chmod 600" in found.advice) == ("problem", True)


# --- trust ---


def test_certificates(node: Ground):
    assert verdict(trust.certificates(node), "certificate") == "ok"
    assert verdict(trust.certificates(replace(node, now=NOW + timedelta(days=4000))), "certificate") == "problem"
    early = only(trust.certificates(replace(node, now=NOW - timedelta(days=4))), "certificate")
    assert (early.verdict, "clock" in early.advice) == ("problem", True)
    layout(node).certificate.write_text("no certificate")
    assert verdict(trust.certificates(node), "certificate") == "problem"
    layout(node).certificate.unlink()
    assert verdict(trust.certificates(node), "certificate") == "problem"


def test_a_certificate_for_another_key(node: Ground):
    layout(node).key.unlink()
    load_or_make_key(layout(node))
    assert "not for the key" in only(trust.certificates(node), "certificate").found


def test_metadata_that_ended_or_are_lost(node: Ground):
    assert verdict(trust.metadata(node), "trust") == "ok"
    metadata = layout(node).trust / "plans" / "timestamp.json"
    metadata.parent.mkdir()
    metadata.write_text('{"signed": {"_type": "timestamp", "expires": "2020-01-01T00:00:00Z"}}')
    assert verdict(trust.metadata(node), "trust") == "warning"
    metadata.write_text("{half a file")
    assert [each.verdict for each in examined(trust.metadata, node)] == ["problem"]
    layout(node).plans_root.unlink()
    assert verdict(trust.metadata(node), "trust") == "problem"


# --- processes ---


def test_processes_that_live_died_or_are_alone(node: Ground):
    assert verdict(processes.nodes(node), "processes") == "warning"
    book = ProcessBook(layout(node).processes)
    book.note("engine", os.getpid())
    assert "serve on without one" in only(processes.nodes(node), "processes").found
    runs_agent(node)
    assert verdict(processes.nodes(node), "processes") == "ok"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    book.note("gateway", child.pid)
    child.communicate()
    assert started_at(child.pid) is None
    assert "not alive: gateway" in only(processes.nodes(node), "processes").found


def test_sockets_that_nobody_answers(node: Ground):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(layout(node).run_dir / wire.ENGINE_ADMIN))
    assert "gone" in only(processes.sockets(node), "sockets").found
    runs_agent(node)
    assert verdict(processes.sockets(node), "sockets") == "problem"


def test_a_port_that_somebody_else_has(node: Ground):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        layout(node).ports.write_text(json.dumps({"public": port, "peer": port}))
        other.listen()
        assert verdict(processes.ports(node), "ports") == "problem"
    assert verdict(processes.ports(node), "ports") == "ok"
    ProcessBook(layout(node).processes).note("gateway", os.getpid())
    assert "nobody listens" in only(processes.ports(node), "ports").found


def test_a_fleet_whose_supervisor_is_gone(tmp_path: Path):
    (tmp_path / "fleet.json").write_text('{"control_port": 1}')
    assert verdict(processes.fleet(ground_of(tmp_path)), "fleet") == "warning"
    gone = '{"supervisor": {"pid": 999999999, "started": "x"}}'
    (tmp_path / "processes.json").write_text(gone)
    assert "stale" in only(processes.fleet(ground_of(tmp_path)), "fleet").found
    (tmp_path / "fleet.json").write_text("{half")
    assert verdict(processes.fleet(ground_of(tmp_path)), "fleet") == "problem"


# --- connections ---


def answers(monkeypatch: pytest.MonkeyPatch, status: int, date: datetime | None) -> None:
    headers = {"date": date.strftime("%a, %d %b %Y %H:%M:%S GMT")} if date else {}
    real = httpx.Client

    def client(**options: object) -> httpx.Client:
        options.pop("verify")
        transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, text="trouble"))
        return real(transport=transport, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(connections.httpx, "Client", client)


def joined_to(node: Ground, url: str) -> None:
    member = msgspec.json.decode(layout(node).node.read_bytes())
    layout(node).node.write_bytes(msgspec.json.encode({**member, "control": url}))


@pytest.mark.parametrize(
    ("ahead_s", "expected"), [(0, "ok"), (20, "warning"), (-20, "warning"), (3600, "problem"), (-3600, "problem")]
)
def test_clocks_are_compared(node: Ground, monkeypatch: pytest.MonkeyPatch, ahead_s: float, expected: str):
    joined_to(node, "https://control.test")
    answers(monkeypatch, 200, datetime.now(UTC) + timedelta(seconds=ahead_s))
    found = list(connections.control(node))
    assert (verdict(found, "clock"), verdict(found, "control")) == (expected, "ok")


def test_a_control_plane_that_cannot_take_changes_or_does_not_answer(node: Ground, monkeypatch: pytest.MonkeyPatch):
    joined_to(node, "https://127.0.0.1:1")
    assert verdict(connections.control(node), "control") == "problem"
    answers(monkeypatch, 503, None)
    found = list(connections.control(node))
    assert (verdict(found, "control"), verdict(found, "clock")) == ("problem", "warning")


def test_plans_conditions_models_and_peers(node: Ground):
    assert verdict(connections.plan(node), "plan") == "warning"
    says(node)
    assert verdict(connections.plan(node), "plan") == "ok"
    says(node, plan_version=0)
    assert verdict(connections.plan(node), "plan") == "warning"
    says(node, plan_version=4)
    assert verdict(connections.plan(node), "plan") == "warning"
    condition = ConditionReport(type="PlanTrusted", status=False, reason="UntrustedPlan", message="rolled back")
    failed = ModelStatus(model="m", version="1", release="d", state="failed", reason="DigestMismatch")
    away = PeerObservation(site="iad", reachable=False, round_trip_s=0.0, age_s=1.0, message="503")
    says(node, conditions=(condition,), models=(failed,), peers=(away,))
    found = list(connections.plan(node))
    assert (verdict(found, "condition"), verdict(found, "model")) == ("problem", "problem")
    assert verdict(connections.peers(node), "peers") == "warning"
    says(node, peers=(msgspec.structs.replace(away, reachable=True),))
    assert verdict(connections.peers(node), "peers") == "ok"
    runs_agent(node)
    os.utime(layout(node).status, (1, 1))
    assert "old" in only(connections.plan(node), "plan").found


def test_a_repository_that_is_not_there(node: Ground, tmp_path: Path):
    assert verdict(connections.repository(node), "repository") == "ok"
    (tmp_path / "repo").rmdir()
    assert verdict(connections.repository(node), "repository") == "problem"


# --- all of it ---


def test_ruins_are_looked_at_to_the_end(node: Ground, monkeypatch: pytest.MonkeyPatch):
    """Every file of a node holds garbage: each check ends in findings, none in a traceback."""
    for path in node.data_dir.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x00garbage{")
    for name in ("status.json", "run.json", "ports.json", "fleet.json", "processes.json", "agent.lock"):
        (node.data_dir / name).write_bytes(b"\xff\x00")
    ground = ground_of(node.data_dir)
    slow = {versions.envoy, versions.onnxruntime}
    found = [each for check in CHECKS if check not in slow for each in examined(check, ground)]
    assert {"certificate", "trust", "connections"} & {each.check for each in found if each.verdict == "problem"}
    assert all(each.advice for each in found if each.verdict != "ok")


def test_the_command_speaks_json_and_its_exit_code_counts_problems(node: Ground):
    command = [sys.executable, "-m", "nearcast", "doctor", "-o", "json", "--data-dir", str(node.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)
    assert {"check", "subject", "verdict", "found", "advice"} == set(found[0])
    problems = [each for each in found if each["verdict"] == "problem"]
    assert done.returncode == (1 if problems else 0), problems
