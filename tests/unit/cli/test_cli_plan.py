"""``nearcast plan``: a record from a file is planned again, and a plan that differs is said so by the exit code."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from nearcast.cli import screen
from nearcast.cli.plan import show_explanation
from nearcast.planning.fleet.decision import decide
from nearcast.planning.fleet.explain import explain_plan
from nearcast.planning.fleet.explanation import PlanExplanation
from nearcast.planning.fleet.guidance import UNGUIDED
from nearcast.planning.fleet.record import Pace, Record, Scope, encode_record
from nearcast.planning.fleet.snapshot import SeenDemand, SeenModel, SeenNode, SeenRelease, Snapshot


def explained(record: Record, placement: dict[str, Any], *demand: SeenDemand) -> PlanExplanation:
    """What is decided for the fleet of ``record`` with another placement and demand."""
    *sites, _ = record.snapshot.resources
    deployment = document("Deployment", "m", {"model": "m", "version": "1", "placement": placement})
    snapshot = msgspec.structs.replace(record.snapshot, resources=(*sites, deployment), demand=demand)
    decided = decide(snapshot, None, UNGUIDED, (), Pace())
    again = msgspec.structs.replace(record, snapshot=snapshot, plan=decided.record, guidance=decided.guidance)
    return explain_plan(again, "m")


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def record() -> Record:
    resources = (
        document("Site", "ashburn", {"country": "US"}),
        document("Site", "frankfurt", {"country": "DE", "emulate": {"roundTripMs": {"ashburn": 88}}}),
        document("Site", "singapore", {"country": "SG", "tenants": ["acme"]}),
        document("Deployment", "m", {"model": "m", "version": "1", "placement": {"auto": {}}}),
    )
    snapshot = Snapshot(
        fleet="f",
        at="2026-11-28T12:00:00Z",
        resources=resources,
        releases=(SeenRelease("m", "1", 1000),),
        nodes=tuple(SeenNode(site, "n", True, False, 1.0, 1 << 30) for site in ("ashburn", "frankfurt", "singapore")),
        demand=(SeenDemand("frankfurt", "m", 3.0),),
    )
    decided = decide(snapshot, None, UNGUIDED, (), Pace())
    return Record(
        id=7,
        at=snapshot.at,
        reason=decided.reason,
        snapshot=snapshot,
        before=None,
        guided=UNGUIDED,
        unwanted=(),
        pace=Pace(),
        plan=decided.record,
        guidance=decided.guidance,
    )


def test_a_saved_record_is_planned_again_offline(record: Record, tmp_path: Path, run: Any) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(encode_record(record))
    done = run("plan", "replay", "--file", str(file), "-o", "json")
    assert done.code == 0
    assert json.loads(done.out)["same"] is True
    file.write_bytes(encode_record(msgspec.structs.replace(record, guidance=UNGUIDED)))
    done = run("plan", "replay", "--file", str(file), "-o", "json")
    assert done.code == 1
    assert json.loads(done.out)["differences"] == ["guidance.placements"]


def test_what_is_no_record_is_refused(tmp_path: Path, run: Any) -> None:
    file = tmp_path / "record.json"
    file.write_text("{}")
    done = run("plan", "replay", "--file", str(file))
    assert done.code == 2
    assert f"{file}: expected a decision record" in done.err
    assert "plan replay ID --save FILE" in done.err
    missing = run("plan", "replay", "--file", str(tmp_path / "none.json"))
    assert (missing.code, "there is no such file" in missing.err) == (4, True)
    folder = run("plan", "replay", "--file", "/proc/self/mem")
    assert (folder.code, "cannot be read" in folder.err) == (2, True)
    both = run("plan", "replay", "3", "--file", str(file))
    assert (both.code, "got both" in both.err) == (2, True)


def test_a_record_of_another_release_is_told_so(record: Record, tmp_path: Path, run: Any) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(encode_record(msgspec.structs.replace(record, schema="nearcast.dev/decision/v0")))
    done = run("plan", "replay", "--file", str(file))
    assert done.code == 2
    assert "got 'nearcast.dev/decision/v0'" in done.err
    assert "replay it with that one" in done.err


def test_where_nothing_can_be_written_is_said(record: Record, tmp_path: Path, run: Any) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(encode_record(record))
    for save, said in (
        (file / "below", f"the folder {file} is no folder"),
        (tmp_path / "none" / "d.json", f"the folder {tmp_path / 'none'} does not exist"),
        (Path("/proc/d.json"), "/proc/d.json cannot be written"),
        (Path("json"), "which is a format"),
    ):
        done = run("plan", "replay", "--file", str(file), "--save", str(save))
        assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / "none").exists()


def test_an_explanation_tells_every_place_and_why_not(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation(explain_plan(record, "m", "frankfurt"))
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "the site takes acme, not deployments without a tenant" in lines["singapore"]
    assert "3 requests/s" in out
    assert "decision 7" in out
    assert "planned anew  the whole fleet" in out


def test_an_explanation_tells_how_much_of_the_fleet_was_planned(
    record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    part = Scope(planned="part", changed=("frankfurt",), why="demand: frankfurt")
    show_explanation(explain_plan(msgspec.structs.replace(record, scope=part), "m"))
    assert "planned anew  1 site and whom it touches: demand: frankfurt" in capsys.readouterr().out


def test_sites_that_the_placement_leaves_out_are_told_with_what_is_asked_there(record: Record) -> None:
    asked = (SeenDemand("frankfurt", "m", 3.0), SeenDemand("ashburn", "m", 2.0))
    found = explained(record, {"auto": {"countries": ["DE"]}}, *asked)
    places = {place.site: place for place in found.places}
    assert places.keys() == {"ashburn", "frankfurt", "singapore"}
    assert (places["ashburn"].role, places["ashburn"].why) == ("outside", "the placement leaves it out")
    assert sum(place.demand_per_s for place in found.places) == found.demand_per_s == 5.0
    assert found.closed_per_s == 0.0


def test_what_no_place_may_answer_is_no_lack_of_room(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(record, {"auto": {"countries": ["FR"]}}, SeenDemand("frankfurt", "m", 3.0))
    assert {place.role for place in found.places} == {"outside"}
    show_explanation(found)
    out = capsys.readouterr().out
    assert "3 requests/s, of which no place may answer 3" in out
    assert "room" not in out
    assert "auto; countries FR" in out
    crowded = explained(record, {"auto": {"countries": ["DE"]}}, SeenDemand("frankfurt", "m", 1e5))
    assert crowded.unserved_per_s > 0.0
    show_explanation(crowded)
    out = capsys.readouterr().out
    assert "of which no place has room for" in out
    assert "no place may answer" not in out


def test_how_busy_a_place_is_follows_from_what_it_serves_and_the_work_of_it(record: Record) -> None:
    profiled = SeenModel("m", "1", True, 0.013, 0.033, 1000, 1.0)
    node = SeenNode("frankfurt", "n", True, False, 2.0, 1 << 30, "", (profiled,))
    busy = msgspec.structs.replace(record, snapshot=msgspec.structs.replace(record.snapshot, nodes=(node,)))
    found = explained(busy, {"sites": ["frankfurt"]}, SeenDemand("frankfurt", "m", 30.0))
    (place,) = (each for each in found.places if each.site == "frankfurt")
    assert place.work_ms == 33.0
    assert place.utilization == pytest.approx(30.0 * 0.033 / 2.0, rel=1e-3)


def test_what_changed_since_the_decision_is_told(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain_plan(record, "m")
    show_explanation(msgspec.structs.replace(found, age_s=247.0, since=("m: its deployment changed",)))
    out = capsys.readouterr().out
    assert ", 4 min ago" in out
    assert "since then" in out
    assert "m: its deployment changed" in out
    show_explanation(msgspec.structs.replace(found, demand_now_per_s=30.0))
    out = capsys.readouterr().out
    assert "3 requests/s; now 30" in out
    assert "since then" not in out


def test_an_explanation_fits_a_terminal_and_names_are_whole(
    record: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screen, "data_console", lambda: Console(file=sys.stdout, width=80, highlight=False))
    show_explanation(explain_plan(record, "m", "frankfurt"))
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out
    assert "the site takes acme, not deployments without a tenant" in out
