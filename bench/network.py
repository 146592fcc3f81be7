"""How well round trips that nobody measured are estimated: on the real matrix of 490 PlanetLab nodes.

Of all pairs a random part is measured, and the estimates of the others are held against the truth; beside it simpler
ways with the same number of measurements. Then as a fleet measures: each site its eight nearest and its scouts, of
which more are known the longer it runs. And how long a map of 4,200 sites takes.

Data: uofa-rzhu3/NetLatency-Data, PlanetLabData_1 (MIT); R. Zhu et al., IEEE/ACM Transactions on Networking 25, 2017.
"""

import gzip
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import network_peers
from bench.machine import record
from nearcast.planning.distance import guessed_round_trip_s
from nearcast.planning.network.coordinates import begun, fitted, iterations_for
from nearcast.planning.network.map import RoundTrips, step
from nearcast.planning.network.measurements import NOTHING, RoundTrip, merged, pairs_of
from nearcast.planning.network.scouts import TURN_S, scouts
from nearcast.resources.kinds import Location

NAME = "planetlab_rtt_490.txt.gz"
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)
SEEDS = (1, 2, 3)
WITHIN = 1.645
LARGE = 4200
NEAREST = 8
Floats = NDArray[np.float64]
Index = NDArray[np.int64]


def matrix_s() -> Floats:
    """float64[490, 490]: the measured round trips in seconds.

    Raises:
        FileNotFoundError: the data set is neither beside the checkout nor where NEARCAST_DATA_SETS says.
    """
    told = os.environ.get("NEARCAST_DATA_SETS")
    beside = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    for folder in [Path(told)] if told else beside:
        if (folder / NAME).is_file():
            with gzip.open(folder / NAME, "rt") as text:
                return np.loadtxt(text) / 1000.0
    raise FileNotFoundError(f"{NAME} is not here: set NEARCAST_DATA_SETS to the folder that holds it")


def run(folder: Path) -> dict[str, Any]:
    """All ways at all fractions; the map as it grows in a fleet; times."""
    real = matrix_s()
    before = os.getloadavg()[0]
    points = []
    for fraction in FRACTIONS:
        for name, way in WAYS.items():
            found = [_point(real, fraction, seed, name, way) for seed in SEEDS]
            middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
            points.append({"way": name, "fraction": fraction, **middle, "seeds": found})
            print(f"  {fraction:.0%} {name}: median error {middle['median']:.1%}", file=sys.stderr)
    return {
        "processor": record()["processor"],
        "sites": len(real),
        "seeds": list(SEEDS),
        "points": points,
        "fleet": [_fleet(real, hours) for hours in (1, 4, 12, 24)],
        "large": _large(),
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
    }


# --- ways: number of sites, and (one, other, seconds) of what was measured -> round trips, and deviations or None

Estimate = tuple[Floats, Floats | None]
Way = Callable[[int, Index, Index, Floats], Estimate]


def _trips(count: int, one: Index, other: Index, value: Floats) -> list[RoundTrip]:
    """Half of the pairs from one end, half from the other, as it is in a fleet."""
    ends = [(i, j) if (i * 7 + j * 3) % 2 else (j, i) for i, j in zip(one.tolist(), other.tolist(), strict=True)]
    return [RoundTrip(_name(i), _name(j), r, 0.0) for (i, j), r in zip(ends, value.tolist(), strict=True)]


def _name(number: int) -> str:
    return f"n{number:04}"


def _ours(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    sites = {_name(number): None for number in range(count)}
    found = step(None, sites, _trips(count, one, other, value), 0.0).at(0.0)
    return found.round_trip_s.astype(np.float64), found.deviation_s.astype(np.float64)


def _coordinates(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    index = {_name(number): number for number in range(count)}
    pairs = pairs_of(merged(NOTHING, index, _trips(count, one, other, value), 0.0))
    start = begun((None,) * count, 0.5 * float(np.quantile(value, 0.9)))
    placed = fitted(start, np.zeros((count, 3)), pairs, iterations_for(len(pairs)))
    rows, columns = np.indices((count, count))
    return placed.of(rows.ravel(), columns.ravel()).mean(axis=0).reshape(count, count), None


WAYS: dict[str, Way] = {
    "nearcast": _ours,
    "its coordinates alone": _coordinates,
    "Vivaldi": network_peers.vivaldi,
    "low rank": network_peers.low_rank,
    "landmarks": network_peers.landmarks,
    "global median": network_peers.global_median,
}


def _point(real: Floats, fraction: float, seed: int, name: str, way: Way) -> dict[str, float]:
    count = len(real)
    one, other = np.triu_indices(count, 1)
    budget = round(fraction * len(one))
    if name == "landmarks":  # they choose whom to measure: all sites the same few, within the budget
        few = np.random.default_rng(seed).permutation(count)[: max(1, round(budget / count))]
        mask = np.isin(one, few) | np.isin(other, few)
    else:
        mask = np.zeros(len(one), bool)
        mask[np.random.default_rng(seed).permutation(len(one))[:budget]] = True
    began_s = time.process_time()
    value, deviation = way(count, one[mask], other[mask], real[one[mask], other[mask]])
    took_s = time.process_time() - began_s
    return {**_errors(real, value, deviation, one[~mask], other[~mask]), "cpu_s": took_s}


def _errors(real: Floats, value: Floats, deviation: Floats | None, one: Index, other: Index) -> dict[str, float]:
    truth = real[one, other]
    apart = np.abs(value[one, other] - truth)
    found = {
        "median": float(np.median(apart / truth)),
        "p90": float(np.percentile(apart / truth, 90)),
        "median_ms": 1e3 * float(np.median(apart)),
        "p90_ms": 1e3 * float(np.percentile(apart, 90)),
    }
    if deviation is not None:
        found["coverage"] = float(np.mean(apart <= WITHIN * deviation[one, other]))
        found["deviation_ms"] = 1e3 * float(np.median(deviation[one, other]))
    return found


def _fleet(real: Floats, hours: int) -> dict[str, float]:
    """The map of a fleet after some hours: each site has measured its nearest, and two other scouts each hour."""
    count = len(real)
    names = [_name(number) for number in range(count)]
    nearest = np.argsort(real, axis=1)[:, 1 : NEAREST + 1]
    now_s = hours * TURN_S
    trips = [RoundTrip(names[i], names[j], float(real[i, j]), now_s) for i in range(count) for j in nearest[i].tolist()]
    for hour in range(hours):
        for origin, others in scouts(names, hour * TURN_S).items():
            i = int(origin[1:])
            trips += [RoundTrip(origin, name, float(real[i, int(name[1:])]), (hour + 1) * TURN_S) for name in others]
    found: RoundTrips = step(None, dict.fromkeys(names), trips, now_s).at(now_s)
    one, other = np.triu_indices(count, 1)
    left = ~found.measured[one, other]
    value, deviation = found.round_trip_s.astype(np.float64), found.deviation_s.astype(np.float64)
    measured = float(found.measured[one, other].mean())
    return {"hours": hours, "measured": measured, **_errors(real, value, deviation, one[left], other[left])}


def _large() -> dict[str, float]:
    """CPU seconds for a made-up fleet: neighbours by longitude and a day's part of scouts. The errors mean nothing."""
    dice = np.random.default_rng(0)
    names = [_name(number) for number in range(LARGE)]
    at = [
        Location(latitude=float(lat), longitude=float(lon))
        for lat, lon in zip(dice.uniform(-45, 65, LARGE), dice.uniform(-180, 180, LARGE), strict=True)
    ]
    order = np.argsort([place.longitude for place in at]).tolist()
    ends = [(i, order[(rank + k) % LARGE]) for rank, i in enumerate(order) for k in range(1, NEAREST + 1)]
    for hour in range(3):
        found = scouts(names, hour * TURN_S)
        ends += [(int(name[1:]), int(other[1:])) for name, others in found.items() for other in others]
    stretch = dice.uniform(0.8, 1.6, len(ends)).tolist()
    trips = [
        RoundTrip(names[i], names[j], guessed_round_trip_s(at[i], at[j]) * by, 0.0)
        for (i, j), by in zip(ends, stretch, strict=True)
    ]
    sites: dict[str, Location | None] = dict(zip(names, at, strict=True))
    began_s = time.process_time()
    made = step(None, sites, trips, 0.0)
    whole_s = time.process_time() - began_s
    same = [RoundTrip(item.origin, item.place, item.round_trip_s, 2.0) for item in trips[:1400]]
    news = [RoundTrip(item.origin, item.place, item.round_trip_s * 1.3, 2.0) for item in trips[: 20 * NEAREST]]
    took = []
    for given in (same, news):
        began_s = time.process_time()
        step(made, sites, given, 2.0)
        took.append(time.process_time() - began_s)
    began_s = time.process_time()
    made.at(2.0).planning_s(1.0)
    return {
        "sites": LARGE,
        "measured": len(trips),
        "whole_s": whole_s,
        "no_news_s": took[0],
        "news_s": took[1],
        "view_s": time.process_time() - began_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
