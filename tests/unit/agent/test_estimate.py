"""What a row of probes says about a peer."""

from hypothesis import given
from hypothesis import strategies as st

from nearcast.agent.estimate import FAILURES, Estimate, Probe, updated
from nearcast.resources.load import LoadReport


def after(*probes: Probe) -> Estimate:
    estimate: Estimate | None = None
    for probe in probes:
        estimate = updated(estimate, probe)
    assert estimate is not None
    return estimate


def test_the_first_answer_is_the_estimate() -> None:
    load = LoadReport(rps_fractional=3.0)
    found = after(Probe(at_s=1.0, round_trip_s=0.1, load=load)).observation()
    assert found is not None
    assert (found.measured_at_s, found.reachable, found.round_trip_s, found.load) == (1.0, True, 0.1, load)


def test_one_slow_answer_moves_little_and_a_fast_one_much() -> None:
    steady = [Probe(at_s=float(n), round_trip_s=0.1) for n in range(5)]
    assert after(*steady, Probe(at_s=9.0, round_trip_s=1.0)).round_trip_s < 0.25
    assert after(*steady, Probe(at_s=9.0, round_trip_s=0.02)).round_trip_s < 0.07


def test_a_longer_path_is_believed_after_a_few_probes() -> None:
    probes = [Probe(at_s=float(n), round_trip_s=0.1) for n in range(5)]
    probes += [Probe(at_s=5.0 + n, round_trip_s=0.5) for n in range(6)]
    assert after(*probes).round_trip_s > 0.4


def test_one_lost_probe_is_an_accident_and_two_are_not() -> None:
    good, lost = Probe(at_s=1.0, round_trip_s=0.1), Probe(at_s=2.0, message="timeout")
    assert after(good, lost).is_reachable
    gone = after(good, lost, lost)
    assert not gone.is_reachable
    seen = gone.observation()
    assert seen is not None
    assert not seen.reachable
    assert seen.round_trip_s == 0.1, "the distance is not forgotten"
    assert gone.report("peer", 5.0).age_s == 4.0
    assert after(good, lost, lost, good).is_reachable


def test_of_a_peer_that_never_answered_nothing_is_said_at_first() -> None:
    lost = Probe(at_s=2.0, message="timeout")
    assert after(lost).observation() is None
    found = after(lost, lost).observation()
    assert found is not None
    assert not found.reachable


@given(st.lists(st.one_of(st.none(), st.floats(0.0001, 10.0)), min_size=1, max_size=50))
def test_an_estimate_stays_within_what_was_measured(trips: list[float | None]) -> None:
    estimate = after(*(Probe(at_s=float(n), round_trip_s=trip) for n, trip in enumerate(trips)))
    measured = [trip for trip in trips if trip is not None]
    if measured:
        assert min(measured) * 0.999999 <= estimate.round_trip_s <= max(measured) * 1.000001
    lost = next((n for n, trip in enumerate(reversed(trips)) if trip is not None), len(trips))
    assert estimate.is_reachable == (lost < FAILURES)
