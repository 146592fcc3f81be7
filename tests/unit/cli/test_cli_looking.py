"""``status`` and ``route explain``: what a fleet looks like."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from nearcast.cli import status
from nearcast.cli.fleet import FleetFile, LocalPaths, LocalSite
from nearcast.resources.status import EngineStatus, GatewayStatus, ModelStatus, NodeStatus

if TYPE_CHECKING:
    from unit.cli.conftest import Run
    from unit.cli.fake_control import FakeControl

CONDITION = {"type": "GatewayReady", "status": "False", "reason": "NoReport", "message": "m"}
PEER = {"site": "ashburn", "reachable": True, "round_trip_s": 0.088, "age_s": 1.0}
SITES: list[dict[str, Any]] = [
    {
        "name": "frankfurt",
        "country": "DE",
        "tier": "edge",
        "gateway_url": "http://127.0.0.1:1",
        "ready": True,
        "nodes": [{"name": "n"}],
        "models": [
            {"model": "magika", "version": "3.3", "state": "ready"},
            {"model": "iris", "version": "1", "state": "loading"},
        ],
        "conditions": [],
    },
    {"name": "ashburn", "country": "US", "gateway_url": None, "ready": False, "conditions": [CONDITION]},
]
EXPLANATION = {
    "model": "magika",
    "site": "singapore",
    "verdict": "routed",
    "reported": True,
    "unlisted": 7,
    "places": [
        {
            "site": "frankfurt", "standing": "serving", "share_percent": 100, "total_ms": 163.25,
            "round_trip_ms": 160.0, "transfer_ms": 0.0, "wait_ms": 0.25, "service_ms": 3.0, "cold_ms": 0.0,
            "rule": None,
        },
        {"site": "ashburn", "standing": "refused", "rule": "policy/eu-only"},
    ],
}  # fmt: skip


@pytest.fixture
def fleet(control: "FakeControl") -> "FakeControl":
    control.nodes = [{"site": "frankfurt", "name": "n", "status": {"peers": [PEER]}}]
    control.status = {"fleet": "f.test", "control": {"url": "https://c", "version": "1.0"}, "sites": SITES}
    return control


def test_status_for_programs_is_what_the_control_plane_says(fleet: "FakeControl", run: "Run") -> None:
    found = json.loads(run("status", "-o", "json").out)
    assert found["control"] == {"url": "https://c", "version": "1.0", "reachable": True}
    assert [(s["name"], s["country"], s["gateway_url"], s["ready"]) for s in found["sites"]] == [
        ("frankfurt", "DE", "http://127.0.0.1:1", True),
        ("ashburn", "US", None, False),
    ]


def test_status_for_people(fleet: "FakeControl", run: "Run") -> None:
    done = run("status")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["frankfurt", "DE", "yes", "http://127.0.0.1:1", "magika@3.3"] in rows
    assert ["ashburn", "US", "no", "–", "–", "GatewayReady:", "NoReport"] in rows
    assert ["frankfurt", "ashburn", "88.0", "reachable"] in rows


def test_status_tells_of_deployments_with_trouble(fleet: "FakeControl", run: "Run") -> None:
    def condition(kind: str, status: str, reason: str, message: str) -> dict[str, str]:
        return {"type": kind, "status": status, "reason": reason, "message": message}

    well = [condition("Accepted", "True", "Placed", "on frankfurt"), condition("Ready", "True", "Serving", "fine")]
    ill = [condition("Accepted", "False", "NoSite", "nobody"), condition("Ready", "False", "NotAccepted", "nobody")]
    few = [well[0], condition("MinSites", "False", "TooFewSites", "1 of 2"), well[1]]
    fleet.status["deployments"] = [
        {"name": name, "model": name, "version": "1", "ready": True, "conditions": conditions}
        for name, conditions in (("well", well), ("ill", ill), ("few", few))
    ]
    rows = [line.split() for line in run("status").out.splitlines()]
    assert ["ill", "Accepted:", "nobody"] in rows, "what both conditions say is said once"
    assert ["few", "MinSites:", "1", "of", "2"] in rows
    assert not [row for row in rows if row[:1] == ["well"]]


def test_placements_in_a_word(control: "FakeControl", run: "Run") -> None:
    for name, placement in (
        ("a", {"auto": {}}),
        ("b", {"auto": {"countries": ["DE", "FR"], "tiers": ["edge"], "minSites": 2}}),
        ("c", {"everywhere": True}),
        ("d", {"tiers": ["edge", "cloud"]}),
    ):
        control.put("Deployment", name, {"model": name, "version": "1", "placement": placement}, Ready="True")
    rows = {line.split()[0]: " ".join(line.split()[3:-1]) for line in run("get", "deployments").out.splitlines()}
    assert [rows[name] for name in "abcd"] == ["auto", "auto; edge; DE, FR", "everywhere", "edge, cloud"]


def test_round_trips_of_a_site_with_several_nodes_name_the_node(fleet: "FakeControl", run: "Run") -> None:
    fleet.nodes = [node | {"name": name} for node in fleet.nodes[:1] for name in ("n1", "n2")]
    rows = [line.split() for line in run("status").out.splitlines()]
    assert ["frankfurt/n2", "ashburn", "88.0", "reachable"] in rows


@pytest.fixture
def silent(run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, control: "FakeControl") -> LocalPaths:
    """A local fleet whose control plane does not answer."""
    monkeypatch.delenv("NEARCAST_CONTROL")
    paths = LocalPaths(tmp_path / "data")
    paths.control.mkdir(parents=True)
    (paths.control / "admin.token").write_text("t")
    (paths.control / "ca.pem").write_text("pem")
    site = LocalSite(public_port=1, peer_port=2, country="DE")
    paths.write_fleet(FleetFile(control_port=3, sites={"frankfurt": site}))
    report = NodeStatus(
        site="frankfurt",
        node="n",
        software="1",
        started_at="t",
        plan_version=1,
        plan_revision="r",
        routed_version=1,
        gateway=GatewayStatus(url="u", peer_address="p", ready=True),
        engine=EngineStatus(ready=True),
        models=(ModelStatus(model="magika", version="3.3", release="d", state="ready"),),
    )
    folder = paths.site("frankfurt")
    folder.mkdir(parents=True)
    (folder / "status.json").write_bytes(msgspec.json.encode(report))
    control.failures = [httpx.ConnectError("refused"), httpx.ConnectError("refused")]
    return paths


def test_status_asks_the_nodes_while_the_control_plane_is_silent(
    silent: LocalPaths, run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "gateway_answers", lambda fleet, site: fleet.gateway_url(site) == "http://127.0.0.1:1")
    done = run("status", "-o", "json")
    found = json.loads(done.out)
    assert found["control"] == {"url": "https://127.0.0.1:3", "version": "", "reachable": False}
    assert found["sites"][0]["ready"] is True
    assert found["sites"][0]["models"][0]["model"] == "magika"
    assert "this is what the nodes say themselves" in done.err


def test_a_status_that_a_newer_nearcast_wrote_is_named(silent: LocalPaths, run: "Run") -> None:
    file = silent.site("frankfurt") / "status.json"
    file.write_text('{"format": 2}')
    done = run("status")
    assert done.code == 5
    assert "status.json is of format 2" in done.err.replace("\n", "")


def test_status_of_a_fleet_that_is_down_says_how_to_start_it(
    silent: LocalPaths, run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "gateway_answers", lambda _fleet, _site: False)
    done = run("status")
    assert done.code == 6
    assert f"no fleet is running in {silent.data_dir}" in done.err
    assert "nearcast up --detach" in done.err


def test_route_explain_shows_every_term_and_every_refusal(control: "FakeControl", run: "Run") -> None:
    control.explanation = EXPLANATION
    done = run("route", "explain", "magika", "--site", "singapore")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["frankfurt", "serving", "100", "%", "163", "160", "0.00", "0.25", "3.00", "0.00"] in rows
    assert ["ashburn", "refused", "policy/eu-only"] in rows
    assert max(map(len, done.out.splitlines())) <= 100, "it fits a usual terminal"
    assert "7 more sites" in done.err
    assert run("route", "explain", "magika", "--site", "singapore", "-o", "wide").out == done.out, "as for a pipe"
    found = json.loads(run("route", "explain", "magika", "--site", "singapore", "-o", "json").out)
    assert found == msgspec.json.decode(msgspec.json.encode(EXPLANATION)) | {
        "places": [
            {**EXPLANATION["places"][0], "base_percent": None, "expected_ms": None},  # type: ignore[index]
            found["places"][1],
        ],
        "node": "",
        "outside": [],
    }
    assert found["places"][1]["rule"] == "policy/eu-only"


def test_route_explain_tells_which_word_is_unknown(control: "FakeControl", run: "Run") -> None:
    control.put("Site", "singapore", {"country": "SG"})
    control.put("Model", "magika", {})
    assert "Did you mean 'singapore'?" in run("route", "explain", "magika", "--site", "singapor").err
    assert "Did you mean 'magika'?" in run("route", "explain", "magica", "--site", "singapore").err
