"""``nearcast plan``: a record from a file is planned again, and a plan that differs is said so by the exit code."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nearcast.cli.plan import show_explanation
from nearcast.planning.fleet.decision import decide
from nearcast.planning.fleet.explain import explain_plan
from nearcast.planning.fleet.guidance import UNGUIDED
from nearcast.planning.fleet.record import Pace, Record, encode_record
from nearcast.planning.fleet.snapshot import SeenDemand, SeenNode, SeenRelease, Snapshot


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
    assert "expected a decision record" in done.err
    assert run("plan", "replay", "--file", str(tmp_path / "none.json")).code == 2


def test_an_explanation_tells_every_place_and_why_not(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    show_explanation(explain_plan(record, "m", "frankfurt"))
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "the site takes acme, not deployments without a tenant" in lines["singapore"]
    assert "3 requests/s" in out
    assert "decision 7" in out
