"""What agents measured, as arrays: for each pair of sites the last round trip, and when it was.

Decides what is kept: of each direction of a pair the newest, none older than :data:`FORGET_S`, and of each site the
newest :data:`MAX_PER_SITE`. So it is bounded by the number of sites. Does not decide what is believed of pairs that
nobody measured (`map`). Everything can be made anew out of the statuses that nodes report.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.resources.status import NodeStatus

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FORGET_S: Final = 7 * 86400.0
MAX_PER_SITE: Final = 64
LEAST_ROUND_TRIP_S: Final = 1e-5
"""Nothing is nearer than this; relative errors of less say nothing."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One measurement: ``round_trip_s`` from ``origin`` to ``place`` and back, made at ``measured_at_s``."""

    origin: str
    place: str
    round_trip_s: float
    measured_at_s: float


@dataclass(frozen=True, eq=False)
class Measurements:
    """The last round trip of each measured direction.

    Attributes:
        origin, place: int64[N]: indices of sites; no direction twice, sorted by origin, then place.
        round_trip_s: float64[N].
        measured_at_s: float64[N], on the clock of the map.
    """

    origin: Indices
    place: Indices
    round_trip_s: Floats
    measured_at_s: Floats

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Measured pairs without a direction: ``one < other``; of two directions the newer measurement stands.

    Attributes:
        one, other: int64[P].
        round_trip_s: float64[P].
        measured_at_s: float64[P].
    """

    one: Indices
    other: Indices
    round_trip_s: Floats
    measured_at_s: Floats

    def __len__(self) -> int:
        return len(self.one)

    def where(self, chosen: NDArray[np.bool_]) -> "Pairs":
        """Those of bool[P] ``chosen``."""
        return Pairs(self.one[chosen], self.other[chosen], self.round_trip_s[chosen], self.measured_at_s[chosen])


NOTHING: Final = Measurements(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.float64)
)


def observed(statuses: Iterable[tuple[NodeStatus, float]]) -> tuple[RoundTrip, ...]:
    """What nodes measured, out of their statuses.

    Args:
        statuses: each with the moment at which it was made, on the clock of the map.

    Returns:
        One per peer that ever answered. Siblings are left out: they are the same site.
    """
    return tuple(
        RoundTrip(status.site, peer.site, peer.round_trip_s, made_at_s - peer.age_s)
        for status, made_at_s in statuses
        for peer in status.peers
        if peer.round_trip_s > 0.0 and "/" not in peer.site and peer.site != status.site
    )


def merged(
    before: Measurements, sites: Mapping[str, int], round_trips: Sequence[RoundTrip], now_s: float
) -> Measurements:
    """``before`` with ``round_trips`` taken in; those of sites that are not in ``sites`` (name -> index) are left out.

    Cost: O(N log N).
    """
    known = [
        item
        for item in round_trips
        if item.origin in sites and item.place in sites and item.origin != item.place and item.round_trip_s > 0.0
    ]
    origin = np.concatenate([before.origin, np.array([sites[item.origin] for item in known], np.int64)])
    place = np.concatenate([before.place, np.array([sites[item.place] for item in known], np.int64)])
    value = np.concatenate([before.round_trip_s, np.array([item.round_trip_s for item in known], np.float64)])
    # A node whose clock is ahead shall not hold its pair for ever.
    at_s = np.array([min(item.measured_at_s, now_s) for item in known], np.float64)
    at_s = np.concatenate([before.measured_at_s, at_s])
    order = np.lexsort((at_s, place, origin))
    order = order[at_s[order] >= now_s - FORGET_S]
    key = origin[order] * (len(sites) + 1) + place[order]
    newest = order[np.append(key[1:] != key[:-1], True)[: len(key)]] if len(key) else order
    kept = newest[_rank_in_group(origin[newest], -at_s[newest]) < MAX_PER_SITE]
    floor = np.maximum(value[kept], LEAST_ROUND_TRIP_S)
    return Measurements(origin[kept], place[kept], floor, at_s[kept])


def moved(before: Measurements, index: Indices) -> Measurements:
    """``before`` under other indices of the sites: ``index[old]`` is the new one, -1 where the site is gone."""
    origin, place = index[before.origin], index[before.place]
    order = np.lexsort((place, origin))
    order = order[(origin[order] >= 0) & (place[order] >= 0)]
    return Measurements(origin[order], place[order], before.round_trip_s[order], before.measured_at_s[order])


def pairs_of(measurements: Measurements) -> Pairs:
    """The measured pairs, sorted by their first site, then the other."""
    one = np.minimum(measurements.origin, measurements.place)
    other = np.maximum(measurements.origin, measurements.place)
    order = np.lexsort((measurements.measured_at_s, other, one))
    last = np.ones(len(order), bool)
    if len(order):
        same = (one[order][1:] == one[order][:-1]) & (other[order][1:] == other[order][:-1])
        last[:-1] = ~same
    kept = order[last]
    return Pairs(one[kept], other[kept], measurements.round_trip_s[kept], measurements.measured_at_s[kept])


def _rank_in_group(group: Indices, by: Floats) -> Indices:
    """int64[N]: the rank of each element within its group, the least ``by`` first."""
    order = np.lexsort((by, group))
    ordered = group[order]
    start = np.searchsorted(ordered, ordered, side="left")
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - start
    return rank
