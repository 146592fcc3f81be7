"""The network map: what a round trip between any two sites costs the plan, measured or not.

Decides when what was measured is learned anew, and how a measurement that ages gives way to the estimate. A fresh
measurement is taken as it is. Its deviation grows with its age, as that of a random walk does, and by as much as it may
have drifted, the estimate speaks, too; after `measurements.FORGET_S` nothing is left of it. A pair that is measured in
one direction is measured: both directions cross the same way there and back. Where both are measured, each has its own.

Does not decide whether a site can be reached: a site that is dead is as far away as before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.network.coordinates import MEMBERS, Coordinates, begun
from nearcast.planning.network.measurements import (
    NOTHING,
    Measurements,
    Pairs,
    RoundTrip,
    merged,
    moved,
    pairs_of,
)
from nearcast.planning.network.model import Model, adjusted, estimated, learned
from nearcast.resources.kinds import Location

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

REFIT_S: Final = 1800.0
"""All sites are placed anew at least this often, if anything was measured anew."""
REFIT_GROWTH: Final = 1.2
"""And when so many times the pairs are known as at the last time."""
MOST_ADJUSTED: Final = 0.25
"""Where more than this part of the sites has news, all are placed anew."""
CLEAR: Final = 0.05
"""A measurement that is nearer than this to the one before, as a part of it, is no news."""
NOISE: Final = 0.03
"""Deviation of a fresh measurement, as a part of it."""
DRIFT_PER_DAY: Final = 0.15
"""By how much a round trip drifts in a day, as a part of it; it grows with the root of the time."""
_DAY_S: Final = 86400.0


@dataclass(frozen=True, eq=False)
class RoundTrips:
    """The map at one moment. Rows are origins, columns are places.

    Attributes:
        sites: names, in the order of the arrays.
        round_trip_s: float32[S, S]: 0 on the diagonal.
        deviation_s: float32[S, S]: 90 of 100 truths lie within 1.64 of it.
        measured: bool[S, S]: whether either direction was measured lately enough.
    """

    sites: tuple[str, ...]
    round_trip_s: Singles
    deviation_s: Singles
    measured: Truths

    def planning_s(self, risk: float = 1.0) -> Floats:
        """float64[S, S]: what a plan reckons with: the estimate and ``risk`` deviations."""
        found: Floats = (self.round_trip_s + np.float32(risk) * self.deviation_s).astype(np.float64)
        return found


@dataclass(frozen=True, eq=False)
class NetworkMap:
    """What is known of the network. Arrays only, so it can be kept; or made anew from the statuses of nodes.

    Attributes:
        sites: names, sorted.
        locations: of each.
        measurements: what was measured.
        model: what was learned from it.
        estimate_s, deviation_s: float32[S, S]: of every pair, as if nobody had measured it.
        learned_at_s: when all sites were placed last.
        learned_pairs: how many pairs were measured then.
    """

    sites: tuple[str, ...]
    locations: tuple[Location | None, ...]
    measurements: Measurements
    model: Model
    estimate_s: Singles
    deviation_s: Singles
    learned_at_s: float
    learned_pairs: int

    def at(self, now_s: float) -> RoundTrips:
        """The map as it is to be believed at ``now_s``. Cost: O(S x S)."""
        value, deviation = self.estimate_s.copy(), self.deviation_s.copy()
        measured = np.zeros(value.shape, bool)
        known = self.measurements
        drift = DRIFT_PER_DAY**2 * np.maximum(now_s - known.measured_at_s, 0.0) / _DAY_S
        estimate = self.estimate_s[known.origin, known.place].astype(np.float64)
        doubt = (self.deviation_s[known.origin, known.place] / estimate) ** 2
        gain = drift / (drift + doubt)
        believed = known.round_trip_s * (estimate / known.round_trip_s) ** gain
        apart = believed * np.sqrt(NOISE**2 + gain * doubt)
        # The other direction first: it is overwritten where it was measured itself.
        for origin, place in ((known.place, known.origin), (known.origin, known.place)):
            value[origin, place] = believed
            deviation[origin, place] = apart
            measured[origin, place] = True
        return RoundTrips(self.sites, value, deviation, measured)


def step(
    before: NetworkMap | None,
    sites: Mapping[str, Location | None],
    round_trips: Sequence[RoundTrip],
    now_s: float,
) -> NetworkMap:
    """The map after ``round_trips`` were measured.

    Args:
        before: the map until now; None for the first.
        sites: all sites of the fleet, each with its location where that is known. What was measured of others is
            forgotten.
        round_trips: what came in since, in any order.
        now_s: seconds on the clock of ``measured_at_s``.

    Returns:
        A map; the same for the same arguments. Cost: that of placing the sites that have news, or all of them.
    """
    names = tuple(sorted(sites))
    locations = tuple(sites[name] for name in names)
    index = {name: number for number, name in enumerate(names)}
    same = before is not None and before.sites == names and before.locations == locations
    held = before.measurements if before else NOTHING
    if before is not None and not same:
        held = moved(held, np.array([index.get(name, -1) for name in before.sites], np.int64))
    measurements = merged(held, index, round_trips, now_s)
    pairs = pairs_of(measurements)
    if before is None or not same:
        start = _carried(before, index, locations) if before else None
        return _learned(names, locations, measurements, pairs, start, now_s)
    news = _news(before.measurements, measurements, len(names))
    is_due = len(news) > 0 and now_s - before.learned_at_s >= REFIT_S
    if is_due or len(pairs) > REFIT_GROWTH * before.learned_pairs or len(news) > max(1, MOST_ADJUSTED * len(names)):
        # What was placed by a handful of pairs is no start for many: it may be a tangle that no small step undoes.
        start = before.model.coordinates if len(pairs) <= 2 * before.learned_pairs else None
        return _learned(names, locations, measurements, pairs, start, now_s)
    return _adjusted(before, measurements, pairs, news)


def _learned(
    names: tuple[str, ...],
    locations: tuple[Location | None, ...],
    measurements: Measurements,
    pairs: Pairs,
    start: Coordinates | None,
    now_s: float,
) -> NetworkMap:
    model = learned(locations, pairs, start)
    estimate_s, deviation_s = estimated(model, pairs, np.arange(len(names)))
    return NetworkMap(names, locations, measurements, model, estimate_s, deviation_s, now_s, len(pairs))


def _adjusted(before: NetworkMap, measurements: Measurements, pairs: Pairs, news: NDArray[np.int64]) -> NetworkMap:
    model, estimate_s, deviation_s = before.model, before.estimate_s, before.deviation_s
    if len(news):
        model = adjusted(model, pairs, news)
        rows_s, apart_s = estimated(model, pairs, news)
        estimate_s, deviation_s = estimate_s.copy(), deviation_s.copy()
        for whole, rows in ((estimate_s, rows_s), (deviation_s, apart_s)):
            whole[news] = rows
            whole[:, news] = rows.T
    return NetworkMap(
        before.sites,
        before.locations,
        measurements,
        model,
        estimate_s,
        deviation_s,
        before.learned_at_s,
        before.learned_pairs,
    )


def _carried(
    before: NetworkMap, index: Mapping[str, int], locations: tuple[Location | None, ...]
) -> Coordinates | None:
    """The coordinates of sites that stay; None where most are new, and it is better to begin anew."""
    old = np.array([number for number, name in enumerate(before.sites) if name in index], np.int64)
    if 2 * len(old) < len(locations) or before.learned_pairs == 0:
        return None
    new = np.array([index[before.sites[number]] for number in old], np.int64)
    fresh = begun(locations, before.model.coordinates.unit_s)
    position, height = fresh.position.copy(), fresh.height.copy()
    for member in range(MEMBERS):
        position[member, new] = before.model.coordinates.position[member, old]
        height[member, new] = before.model.coordinates.height[member, old]
    return Coordinates(position, height, fresh.unit_s)


def _news(before: Measurements, after: Measurements, count: int) -> NDArray[np.int64]:
    """int64[R], sorted: sites of which a round trip is new, or another than before."""
    known = before.origin * count + before.place
    key = after.origin * count + after.place
    if len(known) == 0:
        changed = np.ones(len(key), bool)
    else:
        at = np.minimum(np.searchsorted(known, key), len(known) - 1)
        old = before.round_trip_s[at]
        changed = (known[at] != key) | (np.abs(after.round_trip_s - old) > CLEAR * old)
    return np.unique(np.concatenate([after.origin[changed], after.place[changed]]))
