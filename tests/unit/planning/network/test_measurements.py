"""What is kept of what agents measured: the newest, a bounded number, and nothing that makes no sense."""

import numpy as np

from nearcast.planning.network.measurements import (
    FORGET_S,
    MAX_PER_SITE,
    NOTHING,
    Measurements,
    RoundTrip,
    merged,
    moved,
    observed,
    pairs_of,
)
from nearcast.resources.status import EngineStatus, GatewayStatus, NodeStatus, PeerObservation

SITES = {"a": 0, "b": 1, "c": 2}


def told(measurements: Measurements) -> dict[tuple[int, int], tuple[float, float]]:
    return {
        (int(o), int(p)): (float(r), float(t))
        for o, p, r, t in zip(
            measurements.origin,
            measurements.place,
            measurements.round_trip_s,
            measurements.measured_at_s,
            strict=True,
        )
    }


def test_statuses_become_round_trips() -> None:
    def peer(site: str, round_trip_s: float) -> PeerObservation:
        return PeerObservation(site=site, reachable=True, round_trip_s=round_trip_s, age_s=2.0)

    status = NodeStatus(
        site="a",
        node="n1",
        software="1",
        started_at="",
        plan_version=1,
        plan_revision="",
        routed_version=1,
        gateway=GatewayStatus(url="", peer_address="", ready=True),
        engine=EngineStatus(ready=True),
        peers=(peer("b", 0.1), peer("never-answered", 0.0), peer("a/n2", 0.001)),
    )
    assert observed([(status, 100.0)]) == (RoundTrip("a", "b", 0.1, 98.0),)


def test_the_newest_of_a_direction_stands_whatever_the_order() -> None:
    trips = [RoundTrip("a", "b", 0.1, 5.0), RoundTrip("a", "b", 0.3, 7.0), RoundTrip("b", "a", 0.2, 6.0)]
    wanted = {(0, 1): (0.3, 7.0), (1, 0): (0.2, 6.0)}
    assert told(merged(NOTHING, SITES, trips, 10.0)) == wanted
    assert told(merged(merged(NOTHING, SITES, trips[1:], 10.0), SITES, trips[:1], 10.0)) == wanted


def test_what_is_old_or_unknown_or_senseless_is_left_out() -> None:
    trips = [
        RoundTrip("a", "b", 0.1, 0.0),
        RoundTrip("a", "gone", 0.1, FORGET_S),
        RoundTrip("a", "a", 0.1, FORGET_S),
        RoundTrip("a", "c", -1.0, FORGET_S),
    ]
    assert told(merged(NOTHING, SITES, trips[1:], FORGET_S)) == {}
    held = merged(NOTHING, SITES, trips, 1.0)
    assert len(held) == 1
    assert len(merged(held, SITES, [], FORGET_S + 1.0)) == 0


def test_a_clock_that_is_ahead_holds_nothing_for_ever() -> None:
    held = merged(NOTHING, SITES, [RoundTrip("a", "b", 0.1, 1e9)], 10.0)
    assert told(merged(held, SITES, [RoundTrip("a", "b", 0.2, 11.0)], 11.0)) == {(0, 1): (0.2, 11.0)}


def test_a_site_keeps_a_bounded_number_the_newest() -> None:
    sites = {f"s{n:03}": n for n in range(100)}
    trips = [RoundTrip("s000", f"s{n:03}", 0.1, float(n)) for n in range(1, 100)]
    held = merged(NOTHING, sites, trips, 100.0)
    assert sorted(held.place.tolist()) == list(range(100 - MAX_PER_SITE, 100))


def test_indices_follow_the_sites() -> None:
    held = merged(NOTHING, SITES, [RoundTrip("a", "b", 0.1, 1.0), RoundTrip("c", "a", 0.2, 1.0)], 1.0)
    assert told(moved(held, np.array([1, -1, 0]))) == {(0, 1): (0.2, 1.0)}


def test_pairs_have_no_direction_and_the_newer_value() -> None:
    trips = [RoundTrip("b", "a", 0.1, 5.0), RoundTrip("a", "b", 0.3, 4.0), RoundTrip("c", "b", 0.2, 6.0)]
    pairs = pairs_of(merged(NOTHING, SITES, trips, 10.0))
    assert pairs.one.tolist() == [0, 1]
    assert pairs.other.tolist() == [1, 2]
    assert pairs.round_trip_s.tolist() == [0.1, 0.2]
