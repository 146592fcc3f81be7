"""The network map: what was measured stands, what was not is estimated, what is old gives way, and the same comes of
the same."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest

from nearcast.planning.distance import UNKNOWN_S, guessed_round_trip_s
from nearcast.planning.network.map import NOISE, NetworkMap, step
from nearcast.planning.network.measurements import FORGET_S, RoundTrip
from nearcast.planning.network.scouts import TURN_S, scouts
from nearcast.resources.kinds import Location

NOW_S = 1e6
DAY_S = 86400.0


def plane(count: int, seed: int = 1) -> dict[str, tuple[float, float]]:
    """Sites on a plane, 200 ms wide."""
    dice = np.random.default_rng(seed)
    return {f"s{n:03}": (float(x), float(y)) for n, (x, y) in enumerate(dice.uniform(0.0, 0.2, (count, 2)))}


def truth(places: dict[str, tuple[float, float]], one: str, other: str) -> float:
    return 0.004 + math.dist(places[one], places[other])


def by_scouts(places: dict[str, tuple[float, float]], turns: int) -> list[RoundTrip]:
    return [
        RoundTrip(origin, place, truth(places, origin, place), NOW_S)
        for turn in range(turns)
        for origin, others in scouts(places, turn * TURN_S).items()
        for place in others
    ]


def but(trips: list[RoundTrip], one: str, other: str) -> list[RoundTrip]:
    return [item for item in trips if {item.origin, item.place} != {one, other}]


def nowhere(places: dict[str, tuple[float, float]]) -> dict[str, Location | None]:
    return dict.fromkeys(places)


def errors(made: NetworkMap, places: dict[str, tuple[float, float]], now_s: float = NOW_S) -> np.ndarray:
    """Relative errors of the pairs that nobody measured."""
    trips = made.at(now_s)
    return np.array(
        [
            abs(trips.round_trip_s[i, j] / truth(places, trips.sites[i], trips.sites[j]) - 1.0)
            for i, j in combinations(range(len(trips.sites)), 2)
            if not trips.measured[i, j]
        ]
    )


def test_few_measurements_tell_the_rest_where_sites_lie_on_a_plane() -> None:
    places = plane(120)
    found = errors(step(None, nowhere(places), by_scouts(places, 8), NOW_S), places)
    assert len(found) > 0.7 * 120 * 119 / 2
    assert np.median(found) < 0.05
    assert np.percentile(found, 90) < 0.2


def test_deviations_hold_nine_of_ten_truths() -> None:
    places = plane(120)
    trips = step(None, nowhere(places), by_scouts(places, 5), NOW_S).at(NOW_S)
    inside = [
        abs(trips.round_trip_s[i, j] - truth(places, trips.sites[i], trips.sites[j])) <= 1.645 * trips.deviation_s[i, j]
        for i, j in combinations(range(120), 2)
        if not trips.measured[i, j]
    ]
    assert 0.8 <= np.mean(inside) <= 0.99


def test_a_fresh_measurement_stands_as_it_is_for_both_directions() -> None:
    places = plane(30)
    odd = RoundTrip("s000", "s001", 1.234, NOW_S)
    trips = step(None, nowhere(places), [*but(by_scouts(places, 6), "s000", "s001"), odd], NOW_S).at(NOW_S)
    for i, j in ((0, 1), (1, 0)):
        assert trips.round_trip_s[i, j] == pytest.approx(1.234)
        assert trips.deviation_s[i, j] == pytest.approx(1.234 * NOISE)
        assert trips.measured[i, j]


def test_where_both_directions_are_measured_each_has_its_own() -> None:
    both = [RoundTrip("a", "b", 0.1, NOW_S), RoundTrip("b", "a", 0.2, NOW_S - 5)]
    trips = step(None, {"a": None, "b": None}, both, NOW_S).at(NOW_S)
    assert trips.round_trip_s.tolist() == pytest.approx(np.array([[0.0, 0.1], [0.2, 0.0]]), rel=1e-3)


def test_an_old_measurement_gives_way_to_the_estimate_and_is_forgotten_at_last() -> None:
    places = plane(60)
    odd = RoundTrip("s000", "s001", 0.9, NOW_S)
    others = but(by_scouts(places, 8), "s000", "s001")
    made = step(None, nowhere(places), [*others, odd], NOW_S)
    values = [made.at(NOW_S + age_s) for age_s in (0.0, DAY_S, 5 * DAY_S)]
    assert [bool(a.round_trip_s[0, 1] > b.round_trip_s[0, 1]) for a, b in pairwise(values)] == [
        True,
        True,
    ]
    relative = [float(at.deviation_s[0, 1] / at.round_trip_s[0, 1]) for at in values]
    assert relative[0] < relative[1]
    later_s = NOW_S + FORGET_S + 1.0
    fresh = [RoundTrip(item.origin, item.place, item.round_trip_s, later_s) for item in others]
    after = step(made, nowhere(places), fresh, later_s).at(later_s)
    assert not after.measured[0, 1]
    assert after.round_trip_s[0, 1] < 0.4


def test_without_any_measurement_the_distance_is_all_there_is() -> None:
    sites = {
        "frankfurt": Location(latitude=50.1, longitude=8.7),
        "sydney": Location(latitude=-33.9, longitude=151.2),
        "unknown": None,
    }
    trips = step(None, sites, [], NOW_S).at(NOW_S)
    assert trips.round_trip_s[0, 1] == pytest.approx(
        guessed_round_trip_s(sites["frankfurt"], sites["sydney"]), rel=1e-2
    )
    assert 0.25 < trips.deviation_s[0, 1] / trips.round_trip_s[0, 1] < 0.5
    assert 0.1 * UNKNOWN_S < trips.round_trip_s[0, 2] < 10 * UNKNOWN_S
    assert trips.deviation_s[0, 2] >= trips.round_trip_s[0, 2]
    assert not trips.measured.any()


def test_locations_help_where_little_was_measured() -> None:
    dice = np.random.default_rng(3)
    sites: dict[str, Location | None] = {
        f"s{n:03}": Location(latitude=float(dice.uniform(-50, 60)), longitude=float(dice.uniform(-180, 180)))
        for n in range(80)
    }
    few = [
        RoundTrip(a, b, 1.2 * guessed_round_trip_s(sites[a], sites[b]), NOW_S)
        for turn in range(2)
        for a, others in scouts(sites, turn * TURN_S).items()
        for b in others
    ]
    worse = step(None, dict.fromkeys(sites), few, NOW_S).at(NOW_S)
    better = step(None, sites, few, NOW_S).at(NOW_S)

    def miss(found: np.ndarray) -> float:
        return float(
            np.median(
                [
                    abs(found[i, j] / (1.2 * guessed_round_trip_s(sites[f"s{i:03}"], sites[f"s{j:03}"])) - 1.0)
                    for i, j in combinations(range(80), 2)
                ]
            )
        )

    assert miss(better.round_trip_s) < 0.7 * miss(worse.round_trip_s)
    assert miss(better.round_trip_s) < 0.15, "the guess alone is 17 % off"


def test_the_plan_reckons_with_the_deviation_as_far_as_it_fears_it() -> None:
    places = plane(20)
    trips = step(None, nowhere(places), by_scouts(places, 2), NOW_S).at(NOW_S)
    brave, careful = trips.planning_s(0.0), trips.planning_s(2.0)
    assert careful.dtype == np.float64
    assert np.all(np.diag(careful) == 0.0)
    assert careful[0, 1] == pytest.approx(trips.round_trip_s[0, 1] + 2 * trips.deviation_s[0, 1])
    assert np.array_equal(brave, trips.round_trip_s)
    apart = ~np.eye(20, dtype=bool)
    doubt = trips.deviation_s / np.where(apart, trips.round_trip_s, 1.0)
    assert doubt[apart & ~trips.measured].mean() > 3 * doubt[apart & trips.measured].mean()


def test_a_few_news_move_only_the_sites_that_they_are_about() -> None:
    places = plane(100)
    made = step(None, nowhere(places), by_scouts(places, 8), NOW_S)
    moved = [
        RoundTrip("s000", place, truth(places, "s000", place) + 0.1, NOW_S + 60) for place in ("s010", "s020", "s030")
    ]
    after = step(made, nowhere(places), moved, NOW_S + 60)
    same = [n for n in range(100) if n not in {0, 10, 20, 30}]
    assert np.array_equal(after.estimate_s[np.ix_(same, same)], made.estimate_s[np.ix_(same, same)])
    assert after.estimate_s[0, 40] > made.estimate_s[0, 40], "the site seems to have got a longer way to the core"
    assert np.allclose(after.estimate_s, after.estimate_s.T, rtol=1e-3)


def test_no_news_changes_no_estimate() -> None:
    places = plane(40)
    trips = by_scouts(places, 4)
    made = step(None, nowhere(places), trips, NOW_S)
    again = [RoundTrip(item.origin, item.place, item.round_trip_s * 1.01, NOW_S + 9) for item in trips]
    after = step(made, nowhere(places), again, NOW_S + 9)
    assert after.estimate_s is made.estimate_s
    assert after.measurements.measured_at_s.max() == NOW_S + 9


def test_sites_come_and_go() -> None:
    places = plane(60)
    stay = {name: place for name, place in places.items() if name != "s007"}
    made = step(None, nowhere(places), by_scouts(places, 8), NOW_S)
    less = step(made, nowhere(stay), [], NOW_S)
    assert less.sites == tuple(stay)
    assert np.median(errors(less, stay)) < 0.1
    joined = {**stay, "zz": (0.1, 0.1)}
    heard = [RoundTrip("zz", name, truth(joined, "zz", name), NOW_S) for name in list(stay)[::6]]
    more = step(less, nowhere(joined), heard, NOW_S)
    assert more.sites[-1] == "zz"
    trips = more.at(NOW_S)
    found = [
        abs(trips.round_trip_s[-1, n] / truth(joined, "zz", name) - 1.0)
        for n, name in enumerate(trips.sites[:-1])
        if not trips.measured[-1, n]
    ]
    assert np.median(found) < 0.15


def test_the_same_observations_make_the_same_map_in_whatever_order() -> None:
    places = plane(40)
    trips = by_scouts(places, 4)
    one, other = step(None, nowhere(places), trips, NOW_S), step(None, nowhere(places), trips[::-1], NOW_S)
    assert np.array_equal(one.estimate_s, other.estimate_s)
    assert np.array_equal(one.deviation_s, other.deviation_s)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fleets_of_a_few_sites(count: int) -> None:
    places = plane(count)
    trips = step(None, nowhere(places), by_scouts(places, 1), NOW_S).at(NOW_S)
    assert trips.round_trip_s.shape == (count, count)
    assert np.all(np.isfinite(trips.planning_s()))
