"""What the control plane remembers of round trips: longer than a scout is measured, bounded, and across a restart."""

from dataclasses import replace

import msgspec
import pytest

from nearcast.control.nodes import NodeView
from nearcast.control.watch import MAX_ROUND_TRIP_S, Watched, recalled, snapshot_of, watched
from nearcast.planning.fleet.snapshot import Snapshot
from nearcast.planning.fleet.ways import estimated
from nearcast.planning.network.measurements import FORGET_S, MAX_PER_SITE
from nearcast.planning.network.scouts import TURN_S, scouts
from nearcast.resources.manifest import resource_from_document
from nearcast.resources.state import DesiredState
from nearcast.resources.status import EngineStatus, GatewayStatus, ModelProfile, NodeStatus, PeerObservation

NAMES = tuple(f"s{n:03d}" for n in range(100))


def state_of(*names: str) -> DesiredState:
    documents = (
        {"apiVersion": "nearcast.dev/v1alpha1", "kind": "Site", "metadata": {"name": name}, "spec": {"country": "DE"}}
        for name in names
    )
    return DesiredState.of([resource_from_document(document, "test") for document in documents])


def view(site: str, connected: bool = True, age_s: float = 1.0, **round_trips_s: float) -> NodeView:
    """A node whose peers answered after ``round_trips_s``; 0 for one that never did."""
    peers = tuple(
        PeerObservation(site=name, reachable=seconds > 0.0, round_trip_s=seconds, age_s=age_s)
        for name, seconds in round_trips_s.items()
    )
    status = NodeStatus(
        site=site,
        node="n",
        software="",
        started_at="",
        plan_version=0,
        plan_revision="",
        routed_version=0,
        gateway=GatewayStatus(url="", peer_address="", ready=True),
        engine=EngineStatus(ready=True),
        peers=peers,
    )
    return NodeView(site, "n", connected, status)


def look(before: Watched, now_s: float, *nodes: NodeView, names: tuple[str, ...] = NAMES) -> Watched:
    return watched(before, nodes, state_of(*names), now_s, fall_s=60.0)


def known(memory: Watched) -> dict[tuple[str, str], tuple[float, float]]:
    """(origin, place) -> (round trip, age)."""
    return {(way.origin, way.place): (way.round_trip_s, way.age_s) for way in memory.ways()}


def snapshot_with(memory: Watched, learned_age_s: float = 0.0) -> Snapshot:
    found = Snapshot(fleet="f", at="", resources=(), learned=memory.ways(), learned_age_s=learned_age_s)
    return msgspec.json.decode(msgspec.json.encode(found), type=Snapshot)


def test_a_scout_that_moved_on_is_remembered_and_ages() -> None:
    first = look(Watched(), 0.0, view("s000", s001=0.1, s002=0.02))
    second = look(first, 3600.0, view("s000", s002=0.03, s003=0.2))
    assert known(second) == {
        ("s000", "s001"): (0.1, 3601.0),
        ("s000", "s002"): (0.03, 1.0),
        ("s000", "s003"): (0.2, 1.0),
    }
    later = look(second, 3600.0 + FORGET_S)
    assert later.ways() == (), "not for ever"


def test_what_is_remembered_is_bounded_by_the_number_of_sites() -> None:
    memory = Watched()
    for turn in range(50):
        peers = {NAMES[1 + (2 * turn + n) % 99]: 0.1 for n in range(2)}
        memory = look(memory, 3600.0 * turn, view("s000", **peers), view("s001", s000=0.1))
    assert len(memory.ways()) == MAX_PER_SITE + 1


def test_what_cannot_be_and_who_is_gone_are_not_remembered() -> None:
    odd = view("s000", **{"s001": 0.0, "s000/n2": 0.01, "elsewhere": 0.01, "s002": 2 * MAX_ROUND_TRIP_S, "s003": 0.1})
    memory = look(Watched(), 0.0, odd, view("s004", connected=False, s000=0.1), view("gone", s000=0.1))
    assert known(memory).keys() == {("s000", "s003")}
    assert known(look(memory, 1.0, names=("s000", "s003", "z"))).keys() == {("s000", "s003")}
    assert known(look(memory, 1.0, names=("a", "s000"))) == {}


def test_a_successor_remembers_as_old_as_it_is_and_keeps_what_is_newer() -> None:
    memory = look(Watched(), 7000.0, view("s000", s001=0.1, s002=0.2))
    record = snapshot_with(memory, learned_age_s=100.0)
    fresh = recalled(Watched(5.0), record, 600.0, 5.0)
    assert known(look(fresh, 15.0)) == {("s000", "s001"): (0.1, 711.0), ("s000", "s002"): (0.2, 711.0)}
    own = recalled(look(Watched(), 0.0, view("s000", s001=0.3)), record, 600.0, 0.0)
    assert known(own)["s000", "s001"] == (0.3, 1.0)
    assert known(own)["s000", "s002"] == (0.2, 701.0)
    again = recalled(own, record, 600.0, 0.0)
    assert again.ways() == own.ways()


def test_a_day_of_scouts_and_a_restart_make_the_map_of_a_day() -> None:
    """Sites on a line: whoever saw only the last turn knows little of it."""
    place = {name: 0.002 * n for n, name in enumerate(NAMES)}

    def turn(memory: Watched, hour: int) -> Watched:
        asked = scouts(NAMES, hour * TURN_S)
        nodes = [
            view(name, **{other: 0.005 + abs(place[name] - place[other]) for other in asked[name]}) for name in NAMES
        ]
        return look(memory, hour * TURN_S, *nodes)

    day = Watched()
    for hour in range(24):
        day = turn(day, hour)
    restarted = look(recalled(Watched(), snapshot_with(day), 30.0, 0.0), 0.0)
    sites = state_of(*NAMES).sites
    last = estimated(sites, turn(Watched(), 23).ways())
    whole = estimated(sites, restarted.ways())
    truth = [[0.005 + abs(place[one] - place[other]) for other in NAMES] for one in NAMES]
    error = [
        sum(abs(found[n, m] / truth[n][m] - 1) for n in range(100) for m in range(100) if n != m) / 9900
        for found in (last, whole)
    ]
    assert error[1] < 0.3 * error[0]
    assert whole == pytest.approx(estimated(sites, day.ways()), rel=0.05)


def told(memory: Watched, service_s: float, now_s: float) -> tuple[Watched, float]:
    """What is remembered after node ``n`` told that a request takes ``service_s``, and what planning sees of it."""
    profile = ModelProfile(model="m", version="1", service_s=service_s, work_s=service_s, full_s=service_s)
    node = view("s000")
    assert node.status is not None
    node = replace(node, status=msgspec.structs.replace(node.status, profiles=(profile,)))
    after = look(memory, now_s, node)
    (seen,) = snapshot_of("f", "", state_of(*NAMES), {}, [node], after).nodes[0].models
    assert seen.service_s == seen.work_s == seen.full_s
    return after, seen.service_s


def test_times_of_profiles_are_averaged_so_that_plans_do_not_swing_with_them() -> None:
    memory, seen_s = told(Watched(), 0.01, 0.0)
    assert seen_s == 0.01, "what is told first is all there is"
    for n in range(1, 20):
        memory, seen_s = told(memory, 0.012 if n % 2 else 0.008, 3.0 * n)
        assert seen_s == pytest.approx(0.01, rel=0.03)
    for n in range(20, 70):
        memory, seen_s = told(memory, 0.03, 3.0 * n)
    assert seen_s == pytest.approx(0.03, rel=0.02), "what lasts is believed"
    assert told(memory, 0.0, 300.0)[1] == 0.0, "nothing told is nothing known"
    assert told(look(memory, 300.0), 0.01, 301.0)[1] == 0.01, "a node that loads it anew begins anew"
