"""Whatever is measured, in whatever order, by however many sites: the map is whole, bounded, and can be made anew."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.planning.network.map import NetworkMap, step
from nearcast.planning.network.measurements import FORGET_S, MAX_PER_SITE, RoundTrip
from nearcast.planning.network.scouts import SCOUTS, scouts
from nearcast.resources.kinds import Location

NAMES = [f"s{n}" for n in range(9)]
locations = st.one_of(
    st.none(),
    st.builds(lambda lat, lon: Location(latitude=lat, longitude=lon), st.floats(-90, 90), st.floats(-180, 180)),
)
fleets = st.dictionaries(st.sampled_from(NAMES), locations, max_size=len(NAMES))
measured = st.builds(
    RoundTrip,
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.floats(-1.0, 100.0),
    st.floats(0.0, 2 * FORGET_S),
)
stories = st.lists(st.tuples(fleets, st.lists(measured, max_size=40), st.floats(0.0, FORGET_S)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(stories)
def test_every_map_is_whole(story: list[tuple[dict[str, Location | None], list[RoundTrip], float]]) -> None:
    made: NetworkMap | None = None
    now_s = 0.0
    for sites, round_trips, passed_s in story:
        now_s += passed_s
        made = step(made, sites, round_trips, now_s)
        count = len(sites)
        trips = made.at(now_s)
        assert trips.sites == tuple(sorted(sites))
        assert trips.round_trip_s.shape == trips.deviation_s.shape == trips.measured.shape == (count, count)
        apart = ~np.eye(count, dtype=bool)
        assert np.all(np.isfinite(trips.planning_s(1.0)))
        assert np.all(trips.round_trip_s[apart] > 0.0)
        assert np.all(trips.deviation_s[apart] > 0.0)
        assert np.all(np.diag(trips.planning_s(1.0)) == 0.0)
        assert np.array_equal(trips.measured, trips.measured.T)
        assert len(made.measurements) <= MAX_PER_SITE * count
        age_s = now_s - made.measurements.measured_at_s
        assert np.all((age_s >= 0.0) & (age_s <= FORGET_S))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=6), max_size=30), st.floats(0, 2e9))
def test_scouts_are_few_for_both_ends(sites: set[str], now_s: float) -> None:
    found = scouts(sites, now_s)
    assert set(found) == sites
    asked = [other for others in found.values() for other in others]
    for name, others in found.items():
        assert name not in others
        assert len(set(others)) == len(others) == min(SCOUTS, len(sites) - 1)
        assert asked.count(name) <= 2 * SCOUTS
