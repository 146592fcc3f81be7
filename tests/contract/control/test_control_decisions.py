"""Decisions of the planner in a control plane: made when something changed, kept, explained, repeated, survived."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import event, update

from fleets.three_sites import SITES, World
from nearcast.control.planner import Planner
from nearcast.control.tables import Decision
from nearcast.errors import IntegrityError, Unavailable
from nearcast.planning.fleet.decision import differences, replayed
from nearcast.planning.fleet.gather import gather
from nearcast.planning.fleet.record import decode_record
from nearcast.planning.fleet.scope import Tolerance
from nearcast.planning.fleet.snapshot import decode_snapshot

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def test_records_explain_and_repeat(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=70.0)
    world.pass_on()
    newest = fleet.call("GET", "/v1/decisions").json()["items"][0]
    assert any("m: placed on" in reason for reason in newest["reason"])
    found = fleet.call("GET", "/v1/decisions/explain?name=m&site=frankfurt").json()
    places = {place["site"]: place for place in found["places"]}
    assert places["frankfurt"]["role"] == places["ashburn"]["role"] == "chosen"
    assert places["singapore"]["role"] == "open"
    assert places["singapore"]["why"] == "no requests enter here"
    assert found["demand_per_s"] == 70.0
    ways = {way["site"]: way for way in found["ways"]}
    assert ways["ashburn"]["round_trip_ms"] == 88.0
    assert sum(way["share_percent"] for way in ways.values()) == pytest.approx(100.0, abs=0.1)
    record = decode_record(fleet.call("GET", f"/v1/decisions/{newest['id']}").content)
    assert differences(record, replayed(record)) == ()
    busier = msgspec.structs.replace(record.snapshot, demand=())
    assert differences(record, replayed(msgspec.structs.replace(record, snapshot=busier))) != ()


def test_a_pass_in_which_nothing_changed_plans_nothing(fleet: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=5.0)
    for _ in range(5):
        world.pass_on()
    with monkeypatch.context() as patched:
        patched.setattr("nearcast.planning.fleet.scope.plan_fleet", None)
        assert not world.pass_on()
        assert not world.pass_on()
        world.report("frankfurt", frankfurt=5.1)
        with pytest.raises(TypeError):
            world.pass_on()
    assert not world.pass_on(), "after a pass that failed everything goes on"


def test_a_change_of_few_sites_is_told_of_as_such_and_can_be_repeated(fleet: Any, make: Any) -> None:
    fleet.planner = Planner(fleet.plane, fleet.seconds, Tolerance(many=0, few=0.5, drift=1e6))
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=5.0)
    for _ in range(5):
        world.pass_on()
    first = fleet.call("GET", "/v1/decisions/explain?name=m").json()
    assert (first.get("planned", "whole"), first["planned_why"]) == ("whole", "the desired state changed")
    world.report("frankfurt", frankfurt=70.0)
    assert world.pass_on()
    (newest, *_) = fleet.call("GET", "/v1/decisions").json()["items"]
    why = "demand: frankfurt; places that are full now: frankfurt"
    assert newest["reason"][-1] == f"planned anew: 1 site and whom it touches ({why})"
    found = fleet.call("GET", "/v1/decisions/explain?name=m").json()
    assert (found["planned"], found["planned_sites"]) == ("part", ["frankfurt"])
    record = decode_record(fleet.call("GET", f"/v1/decisions/{newest['id']}").content)
    assert (record.scope.planned, record.scope.changed) == ("part", ("frankfurt",))
    assert differences(record, replayed(record)) == ()

    world.report("frankfurt", "ashburn", frankfurt=70.0)
    for _ in range(30):
        world.report("frankfurt", "ashburn", frankfurt=2.0)
        world.pass_on(25.0)
    assert world.planned() == {"frankfurt"}, "what is held for a while goes, whatever is planned anew"
    for heading in fleet.call("GET", "/v1/decisions").json()["items"]:
        record = decode_record(fleet.call("GET", f"/v1/decisions/{heading['id']}").content)
        assert differences(record, replayed(record)) == (), heading


def test_a_placement_by_name_is_explained_as_soon_as_it_is_planned(fleet: Any, make: Any) -> None:
    fleet.start_releases()
    fleet.push("m", "1")
    fleet.applied(*(make.site(name, country) for name, country in SITES.items()))
    assert not fleet.planner.step()
    assert fleet.call("GET", "/v1/decisions").json()["items"] == [], "nothing to plan is no decision"
    named = {"model": "m", "version": "1", "placement": {"sites": ["frankfurt"]}}
    fleet.applied(make.manifest("Deployment", "m", **named))
    assert not fleet.planner.step(), "sites and shares stay as they are"
    (first,) = fleet.call("GET", "/v1/decisions").json()["items"]
    assert first["reason"] == ["m: planned from now on"]
    assert fleet.call("GET", "/v1/decisions/explain?name=m").json()["target_ms"] == 200.0
    fleet.applied(make.manifest("Deployment", "m", **named, latencyTarget="150ms"))
    fleet.join("frankfurt").report(demand={"m": {"rate_per_s": 7.0}})
    fleet.pass_time(3.0)
    stale = fleet.call("GET", "/v1/decisions/explain?name=m").json()
    assert (stale["target_ms"], stale["since"], stale["age_s"]) == (200.0, ["m: its deployment changed"], 3.0)
    assert (stale["demand_per_s"], stale["demand_now_per_s"]) == (0.0, 7.0)
    fleet.planner.step()
    found = fleet.call("GET", "/v1/decisions/explain?name=m").json()
    assert (found["target_ms"], found.get("since", []), found["age_s"]) == (150.0, [], 0.0)
    assert fleet.call("GET", "/v1/decisions").json()["items"][0]["reason"] == ["m: its deployment changed"]
    fleet.restart()
    fleet.planner.step()
    assert len(fleet.call("GET", "/v1/decisions").json()["items"]) == 2, "the same again is no other decision"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/decisions/7", 404),
        ("/v1/decisions/0", 400),
        ("/v1/decisions/x", 400),
        ("/v1/decisions?limit=0", 400),
        ("/v1/decisions/explain?name=x", 404),
        ("/v1/decisions/explain", 400),
    ],
)
def test_what_is_not_there_is_said_so(fleet: Any, path: str, status: int) -> None:
    assert fleet.call("GET", path).status_code == status


def test_a_restarted_control_plane_continues_where_it_was(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=70.0)
    world.pass_on()
    world.report("frankfurt", "ashburn", frankfurt=70.0)
    world.pass_on()
    before = fleet.plane.decisions.in_force
    fleet.restart()
    assert fleet.plane.decisions.in_force.guidance == before.guidance
    fleet.controllers.step()
    assert world.planned() == {"frankfurt", "ashburn"}
    world.pass_on()
    assert world.planned() == {"frankfurt", "ashburn"}, "demand is remembered from the record, and plans are kept"
    (heading, *_) = fleet.plane.decisions.headings()
    assert heading.id >= before.id
    record = fleet.plane.decisions.record()
    assert record.before is None or record.before.models == ("m",)


def test_killed_between_decision_and_publication_the_decision_is_published_next(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report(frankfurt=5.0)
    fleet.pass_time(5.0)
    assert fleet.planner.step()
    assert world.planned() == set()
    decided = fleet.plane.decisions.in_force
    fleet.restart()
    assert (fleet.plane.decisions.in_force.id, fleet.plane.decisions.in_force.guidance) == (
        decided.id,
        decided.guidance,
    )
    fleet.controllers.step()
    assert world.planned() == {"frankfurt"}


def _damage(fleet: Any, number: int, **columns: str) -> None:
    with fleet.plane.database.write() as session:
        session.execute(update(Decision).where(Decision.id == number).values(**columns))


def test_damaged_guidance_gives_way_to_the_decision_before(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report(frankfurt=5.0)
    assert world.pass_on()
    first = fleet.plane.decisions.in_force
    world.report("frankfurt", frankfurt=70.0)
    assert world.pass_on()
    assert fleet.plane.decisions.in_force.id == first.id + 1
    _damage(fleet, first.id + 1, guidance="{", reason="{")
    fleet.restart()
    assert fleet.plane.decisions.in_force.id == first.id
    assert fleet.plane.decisions.in_force.guidance == first.guidance
    (heading, *_) = fleet.call("GET", "/v1/decisions").json()["items"]
    assert heading["reason"] == ["its reason is damaged in the database"]
    _damage(fleet, first.id, guidance="{")
    with pytest.raises(IntegrityError, match="all are damaged"):
        fleet.plane.decisions.reload()
    assert fleet.plane.decisions.in_force.guidance == first.guidance


def test_a_damaged_record_is_told_and_planning_goes_on(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=5.0)
    assert world.pass_on()
    number = fleet.plane.decisions.in_force.id
    with fleet.plane.database.write() as session:
        session.execute(update(Decision).values(record=b"no zlib"))
    answer = fleet.call("GET", f"/v1/decisions/{number}")
    assert answer.status_code == 422, answer.text
    assert "damaged" in answer.text
    fleet.restart()
    world.report("frankfurt", frankfurt=70.0)
    assert world.pass_on()
    assert world.planned() == {"frankfurt", "ashburn"}


def test_the_history_is_bounded(fleet: Any, make: Any) -> None:
    fleet.plane.decisions._kept = 3
    world = World(fleet, make, {"auto": {}})
    for n in range(6):
        world.report("frankfurt", **{"frankfurt": 5.0} if n % 2 else {"frankfurt": 5.0, "singapore": 70.0})
        world.pass_on(700.0)
    kept = [item["id"] for item in fleet.call("GET", "/v1/decisions").json()["items"]]
    assert len(kept) == 3
    assert fleet.call("GET", f"/v1/decisions/{kept[-1]}").status_code == 200
    assert fleet.call("GET", f"/v1/decisions/{kept[-1] - 1}").status_code == 404


def test_who_does_not_lead_decides_nothing(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=5.0)
    fleet.plane.leader.resign()
    assert not fleet.planner.step()
    assert fleet.plane.decisions.in_force.id == 0
    fleet.plane.leader.hold()
    world.pass_on()
    record = fleet.plane.decisions.record()
    fleet.plane.leader.resign()
    with pytest.raises(Unavailable):
        fleet.plane.decisions.add(record, fleet.plane.leader)


def test_a_snapshot_has_the_fleet_and_no_secrets(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"everywhere": True})
    world.report("frankfurt", frankfurt=5.0)
    answer = fleet.call("GET", "/v1/snapshot")
    snapshot = decode_snapshot(answer.content)
    assert {node.site for node in snapshot.nodes} == set(SITES)
    assert [(seen.site, seen.rate_per_s) for seen in snapshot.demand] == [("frankfurt", 5.0)]
    text = answer.text
    for secret in (fleet.admin, world.nodes["frankfurt"].credential, "192.0.2.1", "BEGIN"):
        assert secret not in text
    assert fleet.call("GET", "/v1/snapshot", token=world.nodes["frankfurt"].credential).status_code == 403


def test_what_a_site_measured_an_hour_ago_still_counts_also_after_a_restart(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"everywhere": True})
    fleet.applied(*(make.site(name, country) for name, country in SITES.items()))  # nothing is emulated

    def measured(seconds: float, **round_trips_s: float) -> None:
        fleet.pass_time(seconds)
        world.report("frankfurt", "ashburn", "singapore", frankfurt=5.0)
        world.nodes["frankfurt"].report(
            capacity={"workers": 1.0, "memory_bytes": 1 << 30},
            peers=[
                {"site": name, "reachable": True, "round_trip_s": seconds, "age_s": 1.0}
                for name, seconds in round_trips_s.items()
            ],
        )
        world.pass_on(0.0)

    def known() -> dict[str, tuple[float, float]]:
        return {way.place: (way.round_trip_s, way.age_s) for way in fleet.planner.snapshot().learned}

    measured(5.0, singapore=0.2)
    measured(3600.0, ashburn=0.09)
    assert known() == {"singapore": (0.2, 3601.0), "ashburn": (0.09, 1.0)}
    measured(700.0, ashburn=0.09)
    record = fleet.plane.decisions.record()
    assert record.snapshot.learned_age_s == 700.0
    problem = gather(record.snapshot).problem
    row = dict(zip(problem.sites, problem.round_trip_s[problem.sites.index("frankfurt")], strict=True))
    assert row["singapore"] == pytest.approx(0.2, rel=0.1)
    assert row["ashburn"] == 0.09, "what is measured now is taken as it is"
    assert differences(record, replayed(record)) == ()

    fleet.restart()
    measured(100.0, ashburn=0.09)
    assert known() == {"singapore": (0.2, 4401.0), "ashburn": (0.09, 1.0)}
    fleet.plane.leader.resign()
    assert not fleet.planner.step()
    fleet.pass_time(10.0)
    followed = fleet.planner.snapshot()
    assert followed.learned == record.snapshot.learned, "who does not lead tells of the last record's map"
    assert followed.learned_age_s == 810.0


def test_a_decision_that_finds_no_room_is_not_in_force_and_is_made_once_there_is(fleet: Any, make: Any) -> None:
    """The disk is full just then: SQLite's own bound on pages stands for it."""
    world = World(fleet, make, {"auto": {"sites": list(SITES)}})
    places = [{"latitude": n * n / 7 % 90, "longitude": n * n / 3 % 180} for n in range(150)]
    fleet.applied(*(make.site(f"s{n}", location=place) for n, place in enumerate(places)))  # a record of several pages
    world.report(frankfurt=5.0)
    assert world.pass_on()
    first = fleet.plane.decisions.in_force
    world.report("frankfurt", frankfurt=70.0)
    fleet.pass_time(5.0)
    engine = fleet.plane.database.engine

    def full(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # no lower than what there is

    event.listen(engine, "checkout", full)

    def fill() -> None:
        """What is free inside of the file is no room either."""
        for n in range(1000):
            fleet.plane.database.set_setting(f"filler-{n}", "x" * 4000)

    with pytest.raises(Unavailable, match="full"):
        fill()
    with pytest.raises(Unavailable, match="full"):
        fleet.planner.step()
    assert fleet.plane.decisions.in_force == first
    fleet.controllers.step()
    assert world.planned() == {"frankfurt"}, "what cannot be written down is not published"
    event.remove(engine, "checkout", full)
    engine.dispose()  # the bound is of the connection
    assert world.pass_on()
    assert fleet.plane.decisions.in_force.id == first.id + 1
    assert world.planned() == {"frankfurt", "ashburn"}
