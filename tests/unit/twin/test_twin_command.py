"""`nearcast twin run`: help, errors, table, JSON, page, and a fleet's snapshot with a change."""

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from nearcast.cli.main import main
from nearcast.planning.fleet.snapshot import SeenDemand, SeenModel, SeenNode, SeenRelease, Snapshot
from unit.twin.tiny import document, model, named


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(document(models=[model(), model("b", objective="realtime")])))
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["twin", "run", *arguments])
    return int(caught.value.code or 0)


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    assert "twin run examples/twin/smart-cameras.yaml" in capsys.readouterr().out


def test_a_table_with_every_policy_and_objective(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(scenario)) == 0
    shown = capsys.readouterr().out
    for name in ("nearcast", "central", "nearest-spill", "clairvoyant (bound)", "realtime", "interactive"):
        assert name in shown


def test_json_is_the_same_twice_and_another_seed_is_not(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for seed in ("5", "5", "6"):
        assert run(str(scenario), "--policy", "nearcast", "--seed", seed, "--load", "0.3", "-o", "json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] != found[2]
    assert found[0]["load"] == pytest.approx(0.3)
    assert found[0]["policies"][0]["policy"] == "nearcast"
    assert found[0]["bound"] is None


def test_the_page_is_written(scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "page.html"
    assert run(str(scenario), "--policy", "nearest", "--duration", "6", "--report", str(report)) == 0
    assert report.read_text().startswith("<!doctype html>")
    assert str(report) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere.yaml"], 4, "nowhere.yaml"),
        ([], 2, "expected a SCENARIO"),
        (["{scenario}", "--policy", "nearst"], 2, "Did you mean 'nearest'?"),
        (["{scenario}", "--change", "x.yaml"], 2, "goes with --from"),
        (["{scenario}", "--from", "nowhere.json"], 2, "leave SCENARIO and --policy out"),
        (["--from", "nowhere.json"], 4, "nowhere.json"),
        (["--from", "nowhere.json"], 4, "twin snapshot -o FILE"),
        (["--from", "{scenario}"], 2, "{scenario}: expected a snapshot"),
        (["--from", "{fleet}", "--change", "nowhere.yaml"], 4, "nowhere.yaml"),
        (["--from", "{fleet}", "--change", "{scenario}"], 2, "Scenario"),
        (["--from", "{old}"], 2, "take a new one"),
        (["{scenario}", "--report", "/proc/none/page.html", "--policy", "nearest"], 2, "cannot be written"),
    ],
)
def test_errors_say_what_to_do(
    scenario: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    fleet, old = scenario.with_name("fleet.json"), scenario.with_name("old.json")
    fleet.write_bytes(msgspec.json.encode(a_snapshot()))
    old.write_bytes(msgspec.json.encode(msgspec.structs.replace(a_snapshot(), schema="nearcast.dev/fleet-snapshot/v0")))
    names = {"scenario": scenario, "fleet": fleet, "old": old}
    assert run(*(argument.format(**names) for argument in arguments)) == code
    shown = " ".join(capsys.readouterr().err.split())
    assert said.format(**names) in shown


def a_snapshot() -> Snapshot:
    def resource(kind: str, name: str, spec: dict[str, object]) -> dict[str, object]:
        return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

    cities = ("berlin", "paris")
    sites = [
        resource("Site", name, {key: value for key, value in named(name).items() if key in ("country", "location")})
        for name in cities
    ]
    deployment = resource("Deployment", "m", {"model": "m", "version": "1", "placement": {"sites": ["berlin"]}})
    held = SeenModel("m", "1", True, 0.02, 0.01, 1_000_000, 2.0)
    return Snapshot(
        fleet="here.example",
        at="2026-01-01T00:00:00Z",
        resources=(*sites, resource("Model", "m", {}), deployment),
        releases=(SeenRelease("m", "1", 1_000_000),),
        nodes=tuple(SeenNode(name, "n", True, False, 2.0, 8_000_000_000, "cpu", (held,)) for name in cities),
        demand=tuple(SeenDemand(name, "m", 30.0, 1000.0, 100.0) for name in cities),
    )


def test_a_change_is_run_beside_the_fleet_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet, change = tmp_path / "fleet.json", tmp_path / "change.yaml"
    fleet.write_bytes(msgspec.json.encode(a_snapshot()))
    everywhere = {"model": "m", "version": "1", "placement": {"everywhere": True}}
    wanted = {
        "apiVersion": "nearcast.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "m"},
        "spec": everywhere,
    }
    change.write_text(yaml.safe_dump(wanted))
    assert run("--from", str(fleet), "--change", str(change), "--duration", "30", "-o", "json") == 0
    now, changed = json.loads(capsys.readouterr().out)["policies"]
    assert (now["policy"], changed["policy"]) == ("nearcast, now", "nearcast, changed")
    assert now["requests"] == changed["requests"] > 1000
    assert now["network"]["mean_ms"] > 5.0
    assert changed["network"]["mean_ms"] < 0.5  # a burst may go on to a neighbour
    assert changed["wan_bytes"] < 0.05 * now["wan_bytes"]


def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    scenario: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr("nearcast.twin.compare.compare", never)
    assert run(str(scenario), "--report", str(scenario / "page.html")) == 2
    assert f"the folder {scenario} is no folder" in " ".join(capsys.readouterr().err.split())


def test_a_version_that_is_not_released_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, change = tmp_path / "fleet.json", tmp_path / "change.yaml"
    fleet.write_bytes(msgspec.json.encode(a_snapshot()))
    spec = {"model": "other", "version": "2", "placement": {"everywhere": True}}
    wanted = {"apiVersion": "nearcast.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "o"}, "spec": spec}
    change.write_text(yaml.safe_dump(wanted))
    assert run("--from", str(fleet), "--change", str(change), "--duration", "10") == 0
    assert "other@2 is not released" in capsys.readouterr().err
