"""What must survive: `kill -9` of anything under load, a version change, a lost uplink, tampered bytes.

One fleet for the whole module, and every test leaves it whole. Loads come from a client that never retries, except
where a client's own connection dies with the gateway that it is connected to.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet, eventually, local_fleet, resource
from e2e.tiny_models import adder, embedder
from e2e.traffic import Calls, Load, load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HOLDERS = ("frankfurt", "ashburn")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with local_fleet(tmp_path_factory.mktemp("survival")) as running:
        for version, constant in (("1", 1.0), ("2", 2.0)):
            running.push("adder", version, adder(running.data_dir / "models" / version, constant))
        running.deploy("adder", "1", *HOLDERS)
        yield running


@pytest.mark.parametrize("kind", [Load, Calls])
def test_kill_an_engine(fleet: LocalFleet, kind: type[Load]) -> None:
    with load(fleet.gateway("frankfurt"), "adder", kind=kind) as running:
        eventually(lambda: running.outcome.total > 50, "a load")
        died = fleet.kill("frankfurt", "engine")
        eventually(lambda: "ashburn" in running.outcome.sites, "answers from the other place")
        eventually(lambda: fleet.pids("frankfurt").get("engine", died) != died, "a new engine")
        before = running.fresh()
        eventually(lambda: "frankfurt" in running.outcome.sites, "answers from the new engine")
    assert before.failures == []
    assert running.outcome.failures == []


def test_kill_the_gateway_of_a_peer(fleet: LocalFleet) -> None:
    with load(fleet.gateway("singapore"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        nearest = running.outcome.answers.most_common(1)[0][0][0]
        died = fleet.kill(nearest, "gateway")
        eventually(lambda: fleet.pids(nearest).get("gateway", died) != died, "a new gateway")
        before = running.fresh()
        eventually(lambda: nearest in running.outcome.sites, "answers through the new gateway")
    assert before.failures == []
    assert running.outcome.failures == []


def test_stop_a_peer_in_order(fleet: LocalFleet) -> None:
    """Its listener sends new requests elsewhere, and what it has taken is finished."""
    with load(fleet.gateway("singapore"), "adder", clients=8, pause_s=0.01) as running:
        eventually(lambda: running.outcome.total > 100, "a load")
        nearest = HOLDERS[0]
        eventually(lambda: _all_from(running, nearest), "a load on the nearest place", timeout_s=90)
        agent, gateway = fleet.pids(nearest)["agent"], fleet.pids(nearest)["gateway"]
        os.kill(agent, signal.SIGTERM)
        eventually(lambda: fleet.pids(nearest).get("gateway", gateway) != gateway, "a new gateway")
        before = running.fresh()
        eventually(lambda: nearest in running.outcome.sites, "answers through the new gateway", timeout_s=90)
    assert before.failures == []
    assert len(before.sites) > 1
    assert running.outcome.failures == []


def _all_from(running: Load, site: str) -> bool:
    """Whether a second of answers came from ``site`` alone: tests before this one may have sent them elsewhere."""
    running.fresh()
    time.sleep(1.0)
    return running.outcome.sites == {site}


def test_kill_the_gateway_that_clients_are_connected_to(fleet: LocalFleet) -> None:
    """The connection dies with its gateway; the retries that OpenAI's client makes by default cover the restart."""
    import openai

    fleet.push("embedder", "1", embedder(fleet.data_dir / "models" / "embedder"))
    fleet.deploy("embedder", "1", *HOLDERS)
    with openai.OpenAI(base_url=f"http://{fleet.gateway('frankfurt')}/v1", api_key="none") as client:
        for n in range(60):
            if n == 10:
                died = fleet.kill("frankfurt", "gateway")
            answer = client.embeddings.create(model="embedder", input="hello edge world")
            assert len(answer.data[0].embedding) == 8
    eventually(lambda: fleet.pids("frankfurt").get("gateway", died) != died, "a new gateway")


def test_kill_an_agent(fleet: LocalFleet) -> None:
    before = fleet.pids("frankfurt")
    with load(fleet.gateway("frankfurt"), "adder") as running:
        eventually(lambda: running.outcome.total > 50, "a load")
        died = fleet.kill("frankfurt", "agent")
        eventually(lambda: fleet.pids("frankfurt").get("agent", died) != died, "a new agent")
        eventually(lambda: all(site["ready"] for site in fleet.status()["sites"]), "a ready fleet")
    assert running.outcome.failures == []
    after = fleet.pids("frankfurt")
    assert (after["gateway"], after["engine"]) == (before["gateway"], before["engine"]), "adopted, not restarted"


def test_kill_the_control_plane(fleet: LocalFleet) -> None:
    fleet.apply(resource("Model", "acknowledged", {"description": "before the crash"}))
    pids = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_control(entry, fleet.data_dir)
    ]
    with load(fleet.gateway("singapore"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: fleet.run("get", "model", "acknowledged", check=False).returncode == 0, "a control plane")
    assert len(pids) == 1
    assert running.outcome.failures == []
    fleet.deploy("adder", "1", *HOLDERS)


def _is_control(entry: Path, data_dir: Path) -> bool:
    try:
        line = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return False
    return "nearcast.control" in line and str(data_dir) in line


def test_change_the_version_under_load(fleet: LocalFleet) -> None:
    with load(fleet.gateway("frankfurt"), "adder") as home, load(fleet.gateway("singapore"), "adder") as away:
        eventually(lambda: home.outcome.total > 50 and away.outcome.total > 10, "a load")
        assert home.outcome.values == {2.0}
        for version, value in (("2", 3.0), ("1", 2.0), ("2", 3.0), ("1", 2.0)):
            fleet.deploy("adder", version, *HOLDERS)
            outcomes = home.fresh(), away.fresh()
            eventually(lambda value=value: home.outcome.values | away.outcome.values == {value}, "the new version only")
            for outcome in outcomes:
                assert outcome.failures == []
        time.sleep(3)  # long enough for the old version to be drained and unloaded under the load
    assert home.outcome.failures == []
    assert away.outcome.failures == []


def test_move_a_model_under_load(fleet: LocalFleet) -> None:
    with load(fleet.gateway("frankfurt"), "adder") as running:
        eventually(lambda: running.outcome.total > 50, "a load")
        fleet.deploy("adder", "1", "singapore")
        eventually(lambda: "singapore" in running.outcome.sites, "answers from the new place", timeout_s=60)
        fleet.deploy("adder", "1", *HOLDERS)
        moved = running.fresh()
        eventually(lambda: "frankfurt" in running.outcome.sites, "answers from home again", timeout_s=60)
    assert moved.failures == []
    assert running.outcome.failures == []


def test_a_tampered_blob_is_refused_and_what_runs_keeps_running(fleet: LocalFleet) -> None:
    folder = adder(fleet.data_dir / "models" / "tampered", 9.0)
    fleet.push("adder", "9", folder)
    digest = next(
        item["digest"] for item in fleet.json("model", "inspect", "adder", "--version", "9")["files"]
    ).removeprefix("sha256:")
    blob = next((fleet.data_dir / "control").rglob(digest))
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.write_bytes(content)
    try:
        fleet.deploy("adder", "9", *HOLDERS, wait=False)
        eventually(
            lambda: "DigestMismatch" in str(fleet.condition("deployment", "adder", "Ready").get("message", "")),
            "a condition that says so",
        )
        assert fleet.condition("deployment", "adder", "Ready")["status"] == "False"
        with load(fleet.gateway("frankfurt"), "adder") as running:
            eventually(lambda: running.outcome.total > 50, "a load")
        assert running.outcome.failures == []
        assert running.outcome.values == {2.0}, "the old version"
    finally:
        fleet.deploy("adder", "1", *HOLDERS)


def test_an_unsigned_release_is_refused(fleet: LocalFleet) -> None:
    """Whoever owns the store replaces a manifest and cannot sign for it: sites keep what they verified."""
    fleet.push("adder", "10", adder(fleet.data_dir / "models" / "10", 10.0))
    manifest = next((fleet.data_dir / "control").rglob("releases/targets/adder/*.10.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b'"task"', b'"tusk"'))
    try:
        fleet.deploy("adder", "10", *HOLDERS, wait=False)
        eventually(
            lambda: "DigestMismatch" in str(fleet.condition("deployment", "adder", "Ready").get("message", "")),
            "a condition that says so",
        )
        with load(fleet.gateway("ashburn"), "adder") as running:
            eventually(lambda: running.outcome.total > 50, "a load")
        assert running.outcome.failures == []
        assert running.outcome.values == {2.0}
    finally:
        fleet.deploy("adder", "1", *HOLDERS)


def test_residency_holds_while_places_die(fleet: LocalFleet) -> None:
    fleet.apply(
        resource(
            "Policy",
            "home-only",
            {"match": {"models": ["adder"], "originSites": ["frankfurt"]}, "residency": {"countries": ["DE"]}},
        )
    )
    try:
        eventually(
            lambda: (
                {place["site"]: place["standing"] for place in explained(fleet, "frankfurt")}["ashburn"] == "refused"
            ),
            "the rule to be known",
        )
        with load(fleet.gateway("frankfurt"), "adder") as running:
            eventually(lambda: running.outcome.total > 50, "a load")
            fleet.run("wait", "policy/home-only", "--for", "ready", "--timeout", "60s")
            running.fresh()  # the rule binds from here on
            agent = fleet.pids("frankfurt")["agent"]
            os.kill(agent, signal.SIGSTOP)  # nobody starts another engine before its absence was seen
            try:
                fleet.kill("frankfurt", "engine")
                eventually(lambda: len(running.outcome.failures) > 0, "refusals")
            finally:
                os.kill(agent, signal.SIGCONT)
            refused = running.fresh()
            eventually(lambda: "frankfurt" in running.outcome.sites, "answers at home again")
        assert refused.sites | running.outcome.sites == {"frankfurt"}, "never a silent detour"
        assert refused.failures, "with its only place dead there is no answer"
        assert all(failure.startswith("503") for failure in refused.failures), set(refused.failures)
        fleet.deploy("adder", "1", "ashburn")
        answer = ask(fleet.gateway("frankfurt"))
        assert answer.returncode == 0
        assert answer.stdout.startswith("403"), answer.stdout
        assert "home-only" in answer.stdout
        assert ask(fleet.gateway("singapore")).stdout.startswith("200"), "other origins are not bound"
    finally:
        fleet.run("delete", "policy", "home-only")
        fleet.deploy("adder", "1", *HOLDERS)


def explained(fleet: LocalFleet, site: str) -> list[dict[str, object]]:
    return list(fleet.json("route", "explain", "adder", "--site", site)["places"])


def ask(gateway: str) -> subprocess.CompletedProcess[str]:
    """One request by curl; prints the status, then the body."""
    body = '{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,1,1,1]}]}'
    command = ["curl", "-sS", "--max-time", "20", "-w", "\\n%{http_code}", "-d", body]
    done = subprocess.run(
        [*command, f"http://{gateway}/v2/models/adder/infer"], capture_output=True, text=True, timeout=30, check=False
    )
    text, _, status = done.stdout.rpartition("\n")
    return subprocess.CompletedProcess(done.args, done.returncode, f"{status} {text}", done.stderr)


def test_zz_a_site_boots_without_an_uplink(fleet: LocalFleet) -> None:
    """Last, since it takes the fleet down: everything off, then one agent alone, with nobody to call."""
    gateway = fleet.gateway("frankfurt")
    fleet.run("down")
    assert fleet.pids("frankfurt") == {}, "down leaves no process"
    folder = fleet.data_dir / "sites" / "frankfurt"
    command = [sys.executable, "-m", "nearcast.agent", "--data-dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as agent:
        try:
            eventually(lambda: ask(gateway).stdout.startswith("200"), "an answer from a site that is alone")
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(30)
    eventually(lambda: fleet.pids("frankfurt") == {}, "a clean stop")
