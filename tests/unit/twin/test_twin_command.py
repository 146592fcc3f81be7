"""`nearcast twin run`: help, errors, table, JSON, page, and a fleet's snapshot with a change."""

import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from nearcast.cli import twin
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


def test_what_was_run_is_told_with_its_crowds_failures_and_warm_up(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crowd = {"atS": 5, "lastsS": 10, "times": 3, "where": {"countries": ["DE"]}}
    failures = [{"atS": 8, "lastsS": 2, "sites": ["paris"]}, {"atS": 30, "lastsS": 5, "link": ["berlin", "paris"]}]
    value = document(demand={"load": 0.2, "crowds": [crowd]}, failures=failures)
    scenario.write_text(yaml.safe_dump(value))
    assert run(str(scenario), "--policy", "nearest", "--duration", "12", "-o", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["asked_per_s"] == found["requests"] / 12 > 1.2 * found["load"] * found["capacity_per_s"]
    assert run(str(scenario), "--policy", "nearest", "--duration", "6") == 0
    said = capsys.readouterr()
    assert "3 sites, 1 model, " in said.out
    assert "at 5 s for 10 s: 3 times the demand at 1 of 2 sites" in said.out
    assert "at 8 s for 2 s: lost: paris; never, since the run ends at 6 s" in said.out
    assert "at 30 s for 5 s: no way between berlin and paris; never" in said.out
    assert "the first 1.5 s warm up" in said.out
    assert "are chance: --duration and --load bring more" in said.out
    assert "the warm-up is 1.5 s, a quarter of --duration, instead of 2 s" in said.err


def test_what_costs_nothing_has_no_cost(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cost() -> str:
        assert run(str(scenario), "--policy", "nearest", "--duration", "6") == 0
        head, row, *_ = [
            line for line in capsys.readouterr().out.splitlines() if line.startswith(("POLICY", "nearest"))
        ]
        return re.split(r"\s{2,}", row.strip())[re.split(r"\s{2,}", head.strip()).index("COST/MILLION")]

    assert float(cost()) > 0
    value = document(nodes={"box": {"workers": 2, "memoryGb": 8}}, pricePerGb=0)
    scenario.write_text(yaml.safe_dump(value))
    assert cost() == "–"


def test_a_folder_of_data_that_is_not_there_is_refused(
    scenario: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(scenario), "--data", "nowhere") == 4
    assert "folder of data files in --data nowhere; there is none" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("NEARCAST_TWIN_DATA", "elsewhere")
    assert run(str(scenario)) == 4
    assert "NEARCAST_TWIN_DATA elsewhere" in " ".join(capsys.readouterr().err.split())


def test_long_work_is_told_where_nobody_watches_a_bar(
    scenario: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(str(scenario), "--policy", "nearest", "--duration", "6") == 0
    assert "of 1: " not in capsys.readouterr().err
    monkeypatch.setattr(twin, "TELL_S", 0.0)
    assert run(str(scenario), "--policy", "nearest", "--duration", "6") == 0
    assert "nearest, 1 of 1: " in capsys.readouterr().err


def test_a_fleet_that_serves_nobody_is_asked_with_a_change_that_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = {"model": "m", "version": "1", "placement": {"sites": ["berlin"]}, "tenant": "acme"}
    live = a_snapshot()
    fleet, change = tmp_path / "fleet.json", tmp_path / "change.yaml"
    head = {"apiVersion": "nearcast.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "m"}}
    site = [item for item in live.resources if item["kind"] == "Site"]
    site = [{**item, "spec": {**item["spec"], "tenants": ["others"]}} for item in site]
    broken = (*site, {**head, "kind": "Model", "spec": {}}, {**head, "spec": closed})
    fleet.write_bytes(msgspec.json.encode(msgspec.structs.replace(live, resources=broken)))
    change.write_text(yaml.safe_dump({**head, "spec": {**closed, "tenant": "others"}}))
    assert run("--from", str(fleet)) == 2
    refused = capsys.readouterr().err
    assert "no place may answer" in refused
    assert "--change FILE runs the fleet as it would be" in refused
    assert run("--from", str(fleet), "--change", str(change), "--duration", "10", "-o", "json") == 0
    said = capsys.readouterr()
    assert [one["policy"] for one in json.loads(said.out)["policies"]] == ["nearcast, changed"]
    assert "the fleet as it is cannot be run, only the change is shown: no place may answer" in said.err


def test_both_fleets_tell_what_they_could_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet, change = tmp_path / "fleet.json", tmp_path / "change.yaml"
    fleet.write_bytes(msgspec.json.encode(a_snapshot()))
    wanted = {
        "apiVersion": "nearcast.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "m"},
        "spec": {"model": "m", "version": "1", "placement": {"everywhere": True}},
    }
    change.write_text(yaml.safe_dump(wanted))
    assert run("--from", str(fleet), "--change", str(change), "--duration", "10") == 0
    out = capsys.readouterr().out
    assert re.search(r"^now: .*/s of 200/s that the fleet could serve at most", out, re.MULTILINE)
    assert re.search(r"^changed: .*/s of 400/s that the fleet could serve at most", out, re.MULTILINE)


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
