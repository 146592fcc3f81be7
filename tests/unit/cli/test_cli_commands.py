"""Commands against a control plane in memory: what they print where, and how they end."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
import yaml

from nearcast.cli.main import COMMANDS
from nearcast.cli.options import help_text
from nearcast.planning.fleet.snapshot import SeenDemand, Snapshot

if TYPE_CHECKING:
    from unit.cli.conftest import Run
    from unit.cli.fake_control import FakeControl

DEPLOYMENT = {"model": "magika", "version": "3.3", "placement": {"sites": ["frankfurt"]}}
MANIFEST = """
apiVersion: nearcast.dev/v1alpha1
kind: Deployment
metadata: {name: magika}
spec: {model: magika, version: "3.3", placement: {sites: [frankfurt]}}
"""


@pytest.fixture
def deployed(control: "FakeControl") -> "FakeControl":
    control.put("Deployment", "magika", DEPLOYMENT, Accepted="True", Ready="False")
    return control


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_examples_that_begins_with_its_summary(name: str, run: "Run") -> None:
    done = run(name, "--help")
    assert done.code == 0
    text = " ".join(done.out.split())
    if name in {"model", "plan", "releaser", "route", "twin"}:
        assert "Commands" in text
        return
    assert COMMANDS[name].summary.rstrip(".") in text
    assert "Examples" in text
    assert f"nearcast {name}" in text
    assert "--data-dir" in text


def test_help_lists_every_command_and_imports_none(run: "Run") -> None:
    done = run("--help")
    for name, entry in COMMANDS.items():
        assert f" {name} " in done.out
        assert entry.summary.split()[0] in done.out


def test_an_unknown_command_offers_the_nearest(run: "Run") -> None:
    done = run("stats")
    assert done.code == 2
    assert "status" in done.err


def test_get_lists_and_prints_nothing_but_data_on_standard_output(deployed: "FakeControl", run: "Run") -> None:
    table = run("get", "deployments")
    assert [line.split()[:4] for line in table.out.splitlines()][1] == ["magika", "magika", "3.3", "frankfurt"]
    assert "\x1b" not in table.out
    assert table.err == ""
    assert json.loads(run("get", "deployments", "-o", "json").out)["items"][0]["metadata"]["name"] == "magika"


@pytest.mark.parametrize("words", [("deployment", "magika"), ("deployment/magika",), ("Deployments/magika",)])
def test_get_prints_one_resource_that_can_be_applied_again(
    words: tuple[str, ...], deployed: "FakeControl", run: "Run", tmp_path: Path
) -> None:
    printed = run("get", *words, "-o", "yaml").out
    assert yaml.safe_load(printed)["spec"] == DEPLOYMENT
    (tmp_path / "again.yaml").write_text(printed)
    applied = run("apply", "-f", str(tmp_path / "again.yaml"), "-o", "json")
    assert json.loads(applied.out)["resources"][0]["action"] == "unchanged"


@pytest.mark.parametrize(
    "command", [("get", "deployment", "magica"), ("describe", "deployment/magica"), ("delete", "deployment", "magica")]
)
def test_an_unknown_name_is_answered_with_the_nearest(
    command: tuple[str, ...], deployed: "FakeControl", run: "Run"
) -> None:
    done = run(*command)
    assert done.code == 4
    assert "there is no deployment 'magica'" in done.err
    assert "Did you mean 'magika'?" in done.err
    assert done.out == ""


def test_an_unknown_kind_is_answered_with_the_nearest(run: "Run") -> None:
    done = run("get", "deploymnet")
    assert done.code == 2
    assert "Did you mean 'deployment'?" in done.err


def test_describe_tells_the_conditions(deployed: "FakeControl", run: "Run") -> None:
    done = run("describe", "deployment", "magika")
    assert "Ready is False" in done.out
    assert "placement.sites" in done.out


def test_describe_shows_records_as_a_table(deployed: "FakeControl", run: "Run") -> None:
    nodes = [
        {
            "site": "frankfurt",
            "node": "n1",
            "connected": True,
            "sizeBytes": 7,
            "of": f"sha256:{'a' * 64}",
            "at": "2026-01-02T03:04:05.678Z",
        }
    ]
    document = deployed.resources["deployments", "magika"]
    document["status"]["details"] = {"revision": "sha256:1", "updatedAt": "2026-01-02T03:04:05.678Z", "nodes": nodes}
    rows = [line.split() for line in run("describe", "deployment", "magika").out.splitlines()]
    assert ["SITE", "NODE", "CONNECTED", "SIZE", "BYTES", "OF", "AT"] in rows
    assert ["frankfurt", "n1", "yes", "7", "sha256:aaaaaaaaaaaa…", "2026-01-02T03:04:05Z"] in rows
    assert ["updatedAt", "2026-01-02T03:04:05Z"] in rows


def test_paragraphs_of_help_flow_and_examples_do_not() -> None:
    text = help_text("One.\n\nTwo begins\nand ends.", ("get sites", "get models"))
    assert text.split("\n\n")[:2] == ["One.", "Two begins and ends."]
    assert text.endswith("  nearcast get sites\n  nearcast get models")


def test_delete_removes_only_what_it_looked_at(deployed: "FakeControl", run: "Run") -> None:
    assert run("delete", "deployment/magika").code == 0
    assert deployed.resources == {}

    def change(key: tuple[str, str]) -> None:
        deployed.on_get = None
        del deployed.resources[key]

    deployed.put("Deployment", "magika", DEPLOYMENT)
    deployed.on_get = change
    assert run("delete", "deployment/magika").code == 4


def test_apply_says_what_happened_and_dry_run_changes_nothing(
    control: "FakeControl", run: "Run", tmp_path: Path
) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text(MANIFEST)
    dry = run("apply", "-f", str(file), "--dry-run")
    assert "+new: [2]" in dry.out
    assert "1 would be created" in dry.err
    assert control.resources == {}
    assert "deployment/magika   created" in run("apply", "-f", str(tmp_path)).out
    assert run("apply", "-f", str(file)).out.split()[-1] == "unchanged"


def test_apply_warns_of_what_cannot_be_had(control: "FakeControl", run: "Run", tmp_path: Path) -> None:
    spec = {"model": "m", "version": "1", "placement": {"auto": {"countries": ["DE", "FR"], "minSites": 2}}}
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "m"}, "spec": spec}
    (tmp_path / "m.yaml").write_text(json.dumps(document))

    def told(min_sites: str, reason: str) -> str:
        conditions = [
            {"type": "Accepted", "status": "True", "reason": "Placed", "message": "on a"},
            {"type": "MinSites", "status": min_sites, "reason": reason, "message": "1 of 2 sites"},
        ]
        control.on_get = lambda key: control.resources[key].update(status={"conditions": conditions})
        return run("apply", "-f", str(tmp_path / "m.yaml")).err

    assert "warning: deployment/m: 1 of 2 sites" in told("False", "TooFewSites")
    assert "warning" not in told("False", "NotPlanned"), "the planner has not looked yet"
    assert "warning" not in told("True", "Placed")


def test_apply_reads_standard_input(control: "FakeControl", run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(MANIFEST))
    assert run("apply", "-f", "-").code == 0
    assert list(control.resources) == [("deployments", "magika")]


def test_apply_names_every_problem_of_every_file_and_changes_nothing(
    control: "FakeControl", run: "Run", tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(MANIFEST)
    (tmp_path / "b.yaml").write_text(MANIFEST.replace("version:", "verison:"))
    (tmp_path / "c.yaml").write_text(MANIFEST.replace("Deployment", "Deplyment"))
    done = run("apply", "-f", str(tmp_path))
    assert done.code == 2
    assert "b.yaml:5" in done.err
    assert "c.yaml:3" in done.err
    assert control.calls == []


def test_apply_of_nothing_says_so(run: "Run", tmp_path: Path) -> None:
    assert "found none" in run("apply", "-f", str(tmp_path)).err
    assert "there is no" in run("apply", "-f", str(tmp_path / "absent.yaml")).err


def test_wait_ends_when_the_condition_holds(deployed: "FakeControl", run: "Run") -> None:
    asked = []

    def change(key: tuple[str, str]) -> None:
        asked.append(key)
        if len(asked) == 3:
            deployed.put("Deployment", "magika", DEPLOYMENT, Ready="True")

    deployed.on_get = change
    done = run("wait", "deployment/magika", "--for", "ready", "--timeout", "60s")
    assert done.code == 0
    assert len(asked) == 3
    assert "Ready is False" in done.err


def test_wait_exits_with_6_and_prints_the_conditions_when_the_time_is_up(deployed: "FakeControl", run: "Run") -> None:
    done = run("wait", "deployment/magika", "--timeout", "0s")
    assert done.code == 6
    assert "Ready=False NotYet: Ready is False" in done.err
    assert "Accepted=True" in done.err


def test_wait_takes_any_condition(deployed: "FakeControl", run: "Run") -> None:
    assert run("wait", "deployment/magika", "--for", "condition=accepted", "--timeout", "0s").code == 0
    assert run("wait", "deployment/magika", "--for", "condition=Ready=False", "--timeout", "0s").code == 0
    assert run("wait", "deployment/magika", "--for", "condition=Ready=Perhaps").code == 2
    assert run("wait", "deployment/magika", "--for", "readiness").code == 2
    assert run("wait", "deployment/magika", "--timeout", "soon").code == 2
    assert run("wait", "deployment/absent", "--timeout", "0s").code == 4


def test_nobody_there_names_the_address_and_for_a_local_fleet_the_way_out(
    control: "FakeControl", run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    control.failures = [httpx.ConnectError("refused"), httpx.ConnectError("refused")]
    done = run("get", "sites")
    assert done.code == 6
    assert "nobody answers at https://control.test" in done.err
    monkeypatch.delenv("NEARCAST_CONTROL")
    done = run("get", "sites")
    assert done.code == 4
    assert f"there is no fleet in {tmp_path / 'data'}" in done.err
    assert "nearcast up --detach --data-dir" in done.err


def test_a_wrong_token_exits_with_3(control: "FakeControl", run: "Run") -> None:
    assert run("get", "sites", "--token", "wrong").code == 3
    assert run("--token", "wrong", "get", "sites").code == 3
    assert run("--token", "wrong", "get", "sites", "--token", "admin-token").code == 0


def test_a_defect_ends_in_one_line_and_a_file(control: "FakeControl", run: "Run", tmp_path: Path) -> None:
    control.failures = [ZeroDivisionError("oops")]
    done = run("get", "sites")
    assert done.code == 70
    assert "ZeroDivisionError: oops" in done.err
    assert "Traceback" not in done.err
    kept = Path(done.err.split("the traceback is in ")[1].split(";")[0])
    assert "ZeroDivisionError: oops" in kept.read_text()
    kept.unlink()


def test_schema_prints_json_schema_or_the_kinds(run: "Run") -> None:
    assert json.loads(run("schema", "deployments").out)["title"]
    assert {row["kind"] for row in json.loads(run("schema", "-o", "json").out)} >= {"Site", "Policy"}
    assert "Deployment" in run("schema").out
    assert run("schema", "nonsense").code == 2


def test_version_tells_both_sides(control: "FakeControl", run: "Run") -> None:
    control.status = {"fleet": "f", "control": {"url": "https://control.test", "version": "9.9"}, "sites": []}
    found = json.loads(run("version", "-o", "json").out)
    assert found["control"] == "9.9"
    assert "control" not in json.loads(run("version", "--client", "-o", "json").out)
    assert run("--version").out == f"nearcast {found['nearcast']}\n"


def test_join_token_prints_the_token_alone_on_standard_output(control: "FakeControl", run: "Run") -> None:
    control.put("Site", "frankfurt", {"country": "DE"})
    done = run("join-token", "frankfurt")
    assert done.out == "ncj_frankfurt\n"
    assert "nearcast agent" in done.err


def test_describe_tells_about_a_node(control: "FakeControl", run: "Run") -> None:
    peer = {"site": "porto", "reachable": True, "round_trip_s": 0.004}
    report = {
        "site": "lisbon",
        "node": "n1",
        "software": "nearcast/1",
        "conditions": [],
        "peers": [peer],
        "routes": {"m": []},
    }
    control.nodes = [{"site": "lisbon", "name": "n1", "phase": "Ready", "status": report}]
    done = run("describe", "node/lisbon/n1")
    assert "porto" in done.out
    assert "nearcast/1" in done.out
    assert "routes" not in done.out
    assert json.loads(run("describe", "node", "lisbon/n1", "-o", "json").out)["status"] == report
    assert run("describe", "node/lisbon/n2").code == 4
    assert run("describe", "node").code == 2


def test_revoke_takes_a_node_of_a_site(control: "FakeControl", run: "Run") -> None:
    control.nodes = [{"site": "lisbon", "name": "n1"}, {"site": "lisbon", "name": "n2"}]
    assert run("revoke", "lisbon/n1").code == 0
    assert control.nodes == [{"site": "lisbon", "name": "n2"}]
    assert run("revoke", "lisbon/n1").code == 4
    wrong = run("revoke", "lisbon")
    assert wrong.code == 2
    assert "expected SITE/NODE" in wrong.err


def test_options_of_the_session_are_taken_before_and_after_the_command(run: "Run", tmp_path: Path) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    for arguments in (("--data-dir", str(here), "logs"), ("logs", "--data-dir", str(here))):
        done = run(*arguments)
        assert f"there is no fleet in {here}" in done.err


def test_weights_that_change_nothing_are_told(control: "FakeControl", run: "Run", tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(
        "apiVersion: nearcast.dev/v1alpha1\nkind: Deployment\nmetadata: {name: d}\n"
        'spec: {model: m, version: "1", placement: {everywhere: true}, weights: {price: 100, carbon: 1}}\n'
    )
    control.put("Site", "fra", {"country": "DE", "rates": {"carbon": 300}})
    said = run("apply", "-f", str(file)).err
    assert "warning: deployment/d: weights.price changes nothing: no site has rates.price" in said
    assert "weights.carbon changes nothing: no site has rates.carbon and rates.energy" in said
    control.put("Site", "fra", {"country": "DE", "rates": {"carbon": 300, "energy": 90, "price": 2}})
    assert "weights" not in run("apply", "-f", str(file)).err


def test_a_snapshot_of_an_idle_fleet_is_told_at_once(control: "FakeControl", run: "Run", tmp_path: Path) -> None:
    file = tmp_path / "fleet.json"
    idle = Snapshot(
        fleet="f", at="2026-01-01T00:00:00Z", resources=(), releases=(), nodes=(), demand=(SeenDemand("fra", "m", 0.0),)
    )
    busy = msgspec.structs.replace(idle, demand=(SeenDemand("fra", "m", 3.0),))
    for seen, warned in ((idle, True), (busy, False)):
        control.failures = [httpx.Response(200, content=msgspec.json.encode(seen))]
        done = run("twin", "snapshot", "-o", str(file))
        assert (done.code, "nobody asks at this moment" in done.err) == (0, warned), done.err
