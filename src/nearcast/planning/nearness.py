"""Whom a site without a location has near it, as the network map says: what peers are chosen by where distance says
nothing.

Decides a few near sites for each, and that they stay until the map clearly says otherwise, since each change is a new
site plan. Does not decide peers (`peers`): a near site need not hold a model. Where nothing was measured either, it
says nothing, and peers are chosen in turn.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from nearcast.planning.distance import UNKNOWN_S
from nearcast.planning.fleet.problem import Floats
from nearcast.planning.fleet.snapshot import SeenWay
from nearcast.resources.kinds import Site

NearSites = Mapping[str, Mapping[str, float]]
"""Site -> near site -> round trip in seconds, as it was when the site was chosen."""

NEAR: Final = 8
MOST_SITES: Final = 1000
"""More sites without a location are left to chance: what is decided is kept with every decision."""
CLEAR_RATIO: Final = 1.3
CLEAR_S: Final = 0.002
"""What the map must say of other sites, each on the average, to have them instead."""


def near_sites(
    sites: Sequence[Site], estimate_s: Floats, learned: Sequence[SeenWay], before: NearSites
) -> dict[str, dict[str, float]]:
    """The nearest sites of each that has no location, at most :data:`NEAR`.

    Args:
        sites: all sites.
        estimate_s: float64[S, S]: the network map, in the order of ``sites``.
        learned: what the map was learned from; sites that are in none of it are near to nobody.
        before: what was decided before.
    """
    lost = _without_distance(sites)
    names = {site.name for site in sites}
    if not lost or len(lost) > MOST_SITES:
        return {}
    if not learned:
        return {sites[n].name: dict(old) for n in lost if (old := before.get(sites[n].name)) and old.keys() <= names}
    measured = {name for way in learned for name in (way.origin, way.place)}
    index = {site.name: n for n, site in enumerate(sites)}
    known = np.array([site.name in measured for site in sites])
    found = {}
    for n in lost:
        row = np.where(known, estimate_s[n], np.inf)
        row[n] = np.inf
        nearest = np.argsort(row, kind="stable")[:NEAR]
        new = {sites[to].name: _rounded(float(row[to])) for to in nearest if np.isfinite(row[to])} if known[n] else {}
        old = before.get(sites[n].name, {})
        if len(old) >= len(new) and old.keys() <= names and not _clearly_nearer(row, index, new, old):
            new = dict(old)
        if new:
            found[sites[n].name] = new
    return found


def told(round_trip_s: Floats, index: Mapping[str, int], near: NearSites) -> Floats:
    """``round_trip_s`` (float64[S, S], by ``index``) with what ``near`` says of pairs whose distance is unknown."""
    if not near:
        return round_trip_s
    found = round_trip_s.copy()
    for name, others in near.items():
        for other, seconds in others.items():
            if name in index and other in index:
                at, to = index[name], index[other]
                for pair in ((at, to), (to, at)):
                    if round_trip_s[pair] == UNKNOWN_S:
                        found[pair] = seconds
    return found


def _without_distance(sites: Sequence[Site]) -> list[int]:
    """Sites without a location, some pair of which is not emulated either."""
    lost = [n for n, site in enumerate(sites) if site.spec.location is None]
    if not lost:
        return []
    named = {site.name: site.spec.emulate.round_trip_ms for site in sites if site.spec.emulate}
    pairs = {frozenset((name, other)) for name, others in named.items() for other in others}
    if not pairs:
        return lost
    names = [site.name for site in sites]
    return [n for n in lost if any(frozenset((names[n], other)) not in pairs for other in names if other != names[n])]


def _clearly_nearer(row: Floats, index: Mapping[str, int], new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    """Whether ``new`` sites are so much nearer now than ``old`` ones that a change pays. Those that nobody has measured
    for long count as they did."""
    now = [row[index[name]] for name in old]
    held = sum(float(seconds if np.isfinite(seconds) else old[name]) for name, seconds in zip(old, now, strict=True))
    return held > CLEAR_RATIO * sum(new.values()) + CLEAR_S * len(new)


def _rounded(seconds: float) -> float:
    """To three digits: what is kept should be short."""
    return float(f"{seconds:.3g}")
