"""A local fleet as files: what it shall be, which processes it needs, its logs, and what ``up`` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nearcast.agent.layout import layout_of
from nearcast.cli.children import STEADY_S, Deaths, agent_name, wanted_children
from nearcast.cli.connect import target_of
from nearcast.cli.fleet import FleetFile, LocalPaths, LocalSite
from nearcast.cli.session import Given, Session, session_of
from nearcast.cli.tail import last_lines, read_end, read_on
from nearcast.cli.up import planned_fleet, read_sites
from nearcast.cli.welcome import lines
from nearcast.documents import TooNew
from nearcast.errors import IntegrityError, InvalidInput

if TYPE_CHECKING:
    from unit.cli.conftest import Run

CITIES = ["frankfurt", "ashburn", "singapore"]


def fleet_of(*sites: str) -> FleetFile:
    return FleetFile(
        control_port=1,
        sites={site: LocalSite(public_port=10 + n, peer_port=20 + n, country="DE") for n, site in enumerate(sites)},
    )


@pytest.fixture
def paths(tmp_path: Path) -> LocalPaths:
    found = LocalPaths(tmp_path / "data")
    found.data_dir.mkdir()
    return found


# --- the session


def test_options_win_over_the_environment_and_that_over_the_default(tmp_path: Path) -> None:
    environment = {"NEARCAST_DATA_DIR": str(tmp_path / "e"), "NEARCAST_CONTROL": "https://e/", "NEARCAST_TOKEN": ""}
    session = session_of(Given(data_dir=tmp_path / "o"), environment)
    assert (session.data_dir, session.control, session.token) == (tmp_path / "o", "https://e", None)
    assert session_of(Given(), environment).data_dir == tmp_path / "e"
    default = session_of(Given(), {})
    assert default.is_default_dir
    assert default.data_dir.name == "nearcast"


def test_a_command_for_people_means_the_same_fleet(tmp_path: Path) -> None:
    assert Session(tmp_path, is_default_dir=True).command("up") == "nearcast up"
    assert Session(tmp_path).command("up") == f"nearcast up --data-dir {tmp_path}"


# --- what the fleet shall be


def test_the_packaged_sites_are_three_cities_with_symmetric_round_trips() -> None:
    sites = {site.name: site.spec for site in read_sites(None)}
    assert list(sites) == CITIES
    trips = {
        (name, other): delay
        for name, spec in sites.items()
        if spec.emulate
        for other, delay in spec.emulate.round_trip_ms.items()
    }
    assert trips == {
        ("frankfurt", "ashburn"): 88,
        ("ashburn", "frankfurt"): 88,
        ("frankfurt", "singapore"): 160,
        ("singapore", "frankfurt"): 160,
        ("ashburn", "singapore"): 220,
        ("singapore", "ashburn"): 220,
    }


def test_sites_come_from_a_file_that_holds_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    file.write_text("apiVersion: nearcast.dev/v1alpha1\nkind: Model\nmetadata: {name: m}\n")
    with pytest.raises(InvalidInput, match="expected only sites"):
        read_sites(file)


def test_ports_are_chosen_once() -> None:
    first = planned_fleet(None, read_sites(None))
    ports = [first.control_port, *(p for site in first.sites.values() for p in (site.public_port, site.peer_port))]
    assert len(set(ports)) == 7
    assert planned_fleet(first, []) == first
    assert planned_fleet(first, read_sites(None)) == first


def test_sites_that_were_not_applied_yet_are_not_forgotten(paths: LocalPaths) -> None:
    paths.write_fleet(planned_fleet(None, read_sites(None)))
    known = paths.read_fleet()
    assert known is not None
    again = planned_fleet(known, [])
    assert [manifest["metadata"]["name"] for manifest in again.pending] == CITIES
    assert again.pending[0]["spec"]["country"] == "DE"
    changed = planned_fleet(again, read_sites(None)[:1])
    assert len(changed.pending) == 3


def test_a_fleet_file_is_read_as_it_was_written_and_refused_when_damaged(paths: LocalPaths) -> None:
    assert paths.read_fleet() is None
    paths.write_fleet(fleet_of("a"))
    assert paths.read_fleet() == fleet_of("a")
    assert fleet_of("a").gateway_url("a") == "http://127.0.0.1:10"
    paths.fleet.write_text("{")
    with pytest.raises(IntegrityError, match=r"fleet\.json"):
        paths.read_fleet()


def test_documents_of_a_newer_nearcast_are_refused_and_stop_no_down(paths: LocalPaths) -> None:
    node = layout_of(paths.site("a"))
    node.make()
    paths.write_fleet(fleet_of("a"))
    assert {paths.fleet, paths.processes, node.node, node.ports} <= set(paths.documents())
    paths.fleet.write_text('{"format": 2}')
    with pytest.raises(TooNew, match=r"fleet\.json is of format 2"):
        paths.read_fleet()
    paths.processes.write_text('{"format": 2, "supervisor": {"pid": 1, "started": "1"}}')
    assert paths.read_processes() is None, "processes are found without it"
    (paths.data_dir / "control.json").write_text('{"format": 2, "url": "https://x"}')
    with pytest.raises(TooNew, match=r"control\.json is of format 2"):
        target_of(Session(paths.data_dir))


def test_a_control_plane_with_its_secrets_elsewhere_is_found_by_its_description(tmp_path: Path) -> None:
    secrets, own = tmp_path / "secrets", tmp_path / "one"
    for folder in (secrets, own):
        folder.mkdir()
    (secrets / "admin.token").write_text("t\n")
    (secrets / "ca.pem").write_text("pem")
    files = f'"ca_file": "{secrets}/ca.pem", "admin_token_file": "{secrets}/admin.token"'
    (own / "control.json").write_text(f'{{"url": "https://x", {files}}}')
    found = target_of(Session(own))
    assert (found.url, found.token, found.ca_pem) == ("https://x", "t", "pem")


def test_a_damaged_description_of_a_control_plane_is_told(tmp_path: Path) -> None:
    (tmp_path / "control.json").write_text('{"url": "https://')
    with pytest.raises(IntegrityError, match=r"control\.json is not what nearcast wrote there"):
        target_of(Session(tmp_path))


# --- which processes it needs


def test_an_agent_is_wanted_once_it_can_join(paths: LocalPaths) -> None:
    fleet = fleet_of("a", "b")
    assert [child.name for child in wanted_children(paths, fleet)] == ["control"]
    paths.site("b").mkdir(parents=True)
    paths.join_token("b").write_text("ncj_secret")
    control, agent = wanted_children(paths, fleet)
    assert agent.name == agent_name("b")
    assert "ncj_secret" not in " ".join(agent.command)
    assert str(paths.join_token("b")) in agent.command
    assert str(paths.control) in control.command
    (paths.site("b") / "identity").mkdir()
    (paths.site("b") / "identity" / "node.json").write_text("{}")
    paths.join_token("b").unlink()
    assert not any("join" in word for word in wanted_children(paths, fleet)[1].command)


def test_deaths_in_a_row_make_pauses_longer_and_a_good_run_forgets_them() -> None:
    deaths = Deaths()
    pauses = []
    for _ in range(10):
        deaths = deaths.after("x", ran_s=1.0, now_s=100.0)
        pauses.append(deaths.not_before_s - 100.0)
    assert pauses[0] <= 0.2
    assert max(pauses) <= 15.0
    assert pauses[3] > pauses[0]
    assert deaths.after("x", STEADY_S, 100.0).count == 1


# --- logs


def test_the_end_of_a_log_and_what_comes_after(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log, 5) == []
    log.write_text("".join(f"line {n} {'x' * 100}\n" for n in range(5000)))
    found, offset = read_end(log, 3)
    assert [line.split()[1] for line in found] == ["4997", "4998", "4999"]
    assert read_end(log, 0)[0] == []
    with log.open("a") as file:
        file.write("whole\nhal")
    assert read_on(log, offset) == (["whole"], offset + 6)
    log.write_text("new\n")
    assert read_on(log, offset) == (["new"], 4)


def test_logs_say_whose_line_it_is(
    run: "Run", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, paths: LocalPaths
) -> None:
    paths.write_fleet(fleet_of("frankfurt", "ashburn"))
    for path in (paths.control_log, paths.site("ashburn") / "logs" / "engine.log"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[bold]first[/bold]\nsecond\n")
    assert run("logs", "control", "--tail", "1").out == "second\n"
    assert run("logs", "ashburn", "--component", "engine").out == "[bold]first[/bold]\nsecond\n"
    assert "ashburn/engine    | second" in run("logs").out
    assert "Did you mean 'ashburn'?" in run("logs", "ashburm").err
    assert run("logs", "control", "--component", "engine").code == 2
    assert "no such logs yet" in run("logs", "frankfurt").err


# --- what up prints


def test_the_three_lines_name_this_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEARCAST_DATA_DIR", raising=False)
    found = lines(Session(tmp_path / "with space"), fleet_of("a", "b"))
    assert len(found) == 3
    assert all(f"--data-dir '{tmp_path}/with space'" in line for line in found if "nearcast" in line)
    assert "{" not in "".join(found)
    monkeypatch.setenv("NEARCAST_DATA_DIR", str(tmp_path))
    assert "--data-dir" not in "".join(lines(Session(tmp_path), fleet_of("a")))


def test_down_without_a_fleet_says_so(run: "Run") -> None:
    assert run("down").code == 4


def test_up_refuses_a_control_plane_elsewhere(run: "Run") -> None:
    done = run("up")
    assert done.code == 2
    assert "--control has no meaning" in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["status", "--data-dir", "{file}/x"],
        ["logs", "--data-dir", "{file}/x"],
        ["up", "--detach", "--data-dir", "{file}/x"],
        ["backup", "{file}/x.tar"],
        ["backup", "{tmp}/none/x.tar"],
    ],
)
def test_a_path_through_a_file_is_no_defect(
    run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.delenv("NEARCAST_CONTROL")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "control.db").write_bytes(b"")
    done = run(*(word.format(file=file, tmp=tmp_path) for word in command))
    assert (done.code, "defect" in done.err) == (2, False), done.err
    assert str(tmp_path) in done.err
