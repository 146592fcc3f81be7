"""Round trips between all sites of a snapshot: measured where they were, else emulated, else as the network map says.

Vectorised: thousands of sites have millions of pairs. What agents measured counts both ways; where both ends measured,
each row has its own. A peer that its site could not reach a moment ago is no way at all (inf).
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from nearcast.planning.distance import EARTH_RADIUS_KM, FIBRE_KM_PER_S, LAST_MILE_S, PATH_STRETCH, UNKNOWN_S
from nearcast.planning.fleet.problem import Floats
from nearcast.planning.fleet.snapshot import SeenWay
from nearcast.planning.network.map import step
from nearcast.planning.network.measurements import RoundTrip
from nearcast.resources.kinds import Site

FRESH_S: Final = 120.0
"""An attempt that failed longer ago says nothing about now."""


def round_trips(sites: Sequence[Site], ways: Iterable[SeenWay], estimate_s: Floats) -> Floats:
    """float64[S, S]: seconds from each site (row) to each place (column), in the order of ``sites``; 0 to itself.

    ``estimate_s`` is :func:`estimated` of the same sites: what holds where nobody has measured lately.
    """
    found = estimate_s.copy()
    index = {site.name: n for n, site in enumerate(sites)}
    measured = [(index[way.origin], index[way.place], way) for way in ways if {way.origin, way.place} <= index.keys()]
    for at, to, way in measured:
        if way.reachable and way.round_trip_s > 0.0:
            found[at, to] = found[to, at] = way.round_trip_s
    for at, to, way in measured:  # the own word wins over that of the other end
        if way.reachable and way.round_trip_s > 0.0:
            found[at, to] = way.round_trip_s
        elif not way.reachable and way.age_s <= FRESH_S:
            found[at, to] = np.inf
    np.fill_diagonal(found, 0.0)
    return found


def estimated(sites: Sequence[Site], learned: Iterable[SeenWay]) -> Floats:
    """float64[S, S]: the network map of the measurements ``learned``, its uncertainty added; without any, what is
    :func:`expected`. Emulated pairs are as they are emulated. Cost: seconds for thousands of sites.
    """
    plain = expected(sites)
    trips = [
        RoundTrip(way.origin, way.place, way.round_trip_s, -way.age_s)
        for way in learned
        if way.reachable and way.round_trip_s > 0.0
    ]
    if not trips:
        return plain
    found = step(None, {site.name: site.spec.location for site in sites}, trips, 0.0).at(0.0).planning_s()
    order = np.argsort(np.argsort([site.name for site in sites], kind="stable"), kind="stable")
    found = np.round(found[np.ix_(order, order)], 6)
    for at, to, seconds in _emulated(sites):
        found[at, to] = seconds
    np.fill_diagonal(found, 0.0)
    return found


def expected(sites: Sequence[Site]) -> Floats:
    """float64[S, S]: before anybody has measured: emulated (where both ends name a pair, each row has its own), else
    guessed. To the microsecond, so that machines which round differently say the same."""
    found = np.round(guessed(sites), 6)
    for at, to, seconds in _emulated(sites):
        found[at, to] = seconds
    np.fill_diagonal(found, 0.0)
    return found


def _emulated(sites: Sequence[Site]) -> list[tuple[int, int, float]]:
    """(row, column, seconds) of emulated pairs, those that count more coming later: the own word wins."""
    index = {site.name: n for n, site in enumerate(sites)}
    named = [
        (at, index[name], ms / 1000.0)
        for at, site in enumerate(sites)
        for name, ms in (site.spec.emulate.round_trip_ms.items() if site.spec.emulate else ())
        if name in index and ms > 0.0
    ]
    return [*((to, at, seconds) for at, to, seconds in named), *named]


def guessed(sites: Sequence[Site]) -> Floats:
    """float64[S, S]: what `distance` expects of each pair."""
    places = [site.spec.location for site in sites]
    at = np.radians([(place.latitude, place.longitude) if place else (np.nan, np.nan) for place in places])
    at = at.reshape(len(sites), 2)
    lat, lon = at[:, 0], at[:, 1]
    chord = np.sin((lat[:, None] - lat) / 2) ** 2
    chord += np.cos(lat)[:, None] * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(1.0, chord)))
    found: Floats = np.nan_to_num(LAST_MILE_S + 2 * PATH_STRETCH * km / FIBRE_KM_PER_S, nan=UNKNOWN_S)
    return found
