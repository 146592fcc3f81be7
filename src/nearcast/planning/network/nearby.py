"""What near sites measured: two sites that lie together see the rest of the world alike.

Decides by how much an estimate is corrected. Coordinates cannot stand for detours; the errors that they make are alike
for sites that lie together (one campus, one carrier). So the error of a measured pair (k, j) corrects the estimates of
(i, j) for the sites i nearest to k, the more the nearer, and likewise from the other end: a kernel regression
(Nadaraya and Watson, 1964) over one end at a time, shrunk to no correction where little is known. In logarithms.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.network.measurements import Pairs

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Indices = NDArray[np.int64]

NEIGHBOURS: Final = 16
REACHES: Final = (0.03, 0.06, 0.12)
"""Distances over which sites are alike, in the unit of the map; the one that errs least on unseen pairs is taken."""
SHRINK: Final = 0.15
MOST: Final = 1.0
"""A correction is at most by the factor e."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest sites of each, itself first.

    Attributes:
        site: int64[S, K].
        distance: float64[S, K], in the unit of the map.
    """

    site: Indices
    distance: Floats


@dataclass(frozen=True, eq=False)
class Touched:
    """The sums of a correction where there is any.

    Attributes:
        row, column: int64[N]: indices of estimates; one may come many times.
        weight: float64[N].
        pair: int64[N]: the measured pair that speaks.
    """

    row: Indices
    column: Indices
    weight: Floats
    pair: Indices


def neighbours_in(distance: Singles, rows: Indices, before: Neighbours | None = None) -> Neighbours:
    """The neighbours of ``rows``; of other sites as ``before``.

    Args:
        distance: float32[len(rows), S]: between positions, in the unit of the map.
        rows: int64[R].
        before: None where ``rows`` are all sites.
    """
    count = min(NEIGHBOURS, distance.shape[1])
    gaps = distance.copy()
    gaps[np.arange(len(rows)), rows] = -1.0  # itself, whoever lies in the same spot
    nearest = np.argpartition(gaps, count - 1, axis=1)[:, :count]
    found = np.maximum(np.take_along_axis(gaps, nearest, axis=1), 0.0).astype(np.float64)
    if before is None:
        return Neighbours(nearest, found)
    site, apart = before.site.copy(), before.distance.copy()
    site[rows], apart[rows] = nearest, found
    return Neighbours(site, apart)


def touched(neighbours: Neighbours, pairs: Pairs, reach: float, rows: Indices | None = None) -> Touched:
    """Every estimate that a measured pair speaks about, from both of its ends and in both directions.

    Args:
        neighbours: of every site.
        pairs: measured pairs.
        reach: see :data:`REACHES`.
        rows: only estimates of these sites' rows; all by default.
    """
    count = len(neighbours.site)
    end = np.concatenate([pairs.one, pairs.other])
    far = np.concatenate([pairs.other, pairs.one])
    pair = np.tile(np.arange(len(pairs)), 2)
    if rows is None:
        found = _spoken(neighbours, np.arange(count), end, far, pair, reach)
        mirrored = found
    else:
        found = _spoken(neighbours, rows, end, far, pair, reach)
        inside = np.isin(far, rows)
        mirrored = _spoken(neighbours, np.arange(count), end[inside], far[inside], pair[inside], reach)
    return Touched(
        np.concatenate([found.row, mirrored.column]),
        np.concatenate([found.column, mirrored.row]),
        np.concatenate([found.weight, mirrored.weight]),
        np.concatenate([found.pair, mirrored.pair]),
    )


def _spoken(
    neighbours: Neighbours, holders: Indices, end: Indices, far: Indices, pair: Indices, reach: float
) -> Touched:
    """What each pair (end, far) says about (holder, far), for the holders that have ``end`` among their neighbours."""
    count, width = neighbours.site.shape
    near = neighbours.site[holders].reshape(-1)
    order = np.argsort(near, kind="stable")
    holder = np.repeat(holders, width)[order]
    weight = np.exp(-neighbours.distance[holders].reshape(-1)[order] / reach)
    first = np.searchsorted(near[order], np.arange(count + 1))
    many = first[end + 1] - first[end]
    owner = np.repeat(np.arange(len(end)), many)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(first[end], many)
    apart = holder[place] != far[owner]
    owner, place = owner[apart], place[apart]
    return Touched(holder[place], far[owner], weight[place], pair[owner])


def corrections(spoken: Touched, error: Floats, rows: Indices, count: int) -> tuple[Singles, Singles]:
    """The correction of the estimates of ``rows``, and how well it is founded (0 to 1).

    Args:
        spoken: which pair speaks about what.
        error: float64[P]: logarithm of measured over estimated.
        rows: int64[R], sorted.
        count: number of sites.

    Returns:
        float32[R, S], float32[R, S].
    """
    place = np.full(count, -1, np.int64)
    place[rows] = np.arange(len(rows))
    at = place[spoken.row]
    inside = at >= 0
    flat = at[inside] * count + spoken.column[inside]
    weight = spoken.weight[inside]
    total = np.bincount(flat, weight, len(rows) * count).astype(np.float32)
    value = np.bincount(flat, weight * error[spoken.pair[inside]], len(rows) * count).astype(np.float32)
    shape = (len(rows), count)
    return (value / (total + np.float32(SHRINK))).reshape(shape), (total / (total + np.float32(SHRINK))).reshape(shape)


def unseen(neighbours: Neighbours, pairs: Pairs, error: Floats, tested: Pairs, reach: float) -> tuple[Floats, Floats]:
    """The correction of some pairs by others, and how well it is founded.

    Args:
        neighbours: of every site that is in ``tested``.
        pairs: those that speak; sorted.
        error: float64[P]: of each of them, logarithm of measured over estimated.
        tested: the pairs to correct; none of them is among ``pairs``.
        reach: see :data:`REACHES`.

    Returns:
        float64[T] each.
    """
    count = len(neighbours.site)
    key = pairs.one * count + pairs.other
    value, total = np.zeros(len(tested)), np.zeros(len(tested))
    for end, far in ((tested.one, tested.other), (tested.other, tested.one)):
        near = neighbours.site[end]
        wanted = np.minimum(near, far[:, None]) * count + np.maximum(near, far[:, None])
        at = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        weight = np.where(key[at] == wanted, np.exp(-neighbours.distance[end] / reach), 0.0)
        value += (weight * error[at]).sum(axis=1)
        total += weight.sum(axis=1)
    return value / (total + SHRINK), total / (total + SHRINK)
