"""Network coordinates: sites in a space where the distance of two, plus both heights, is their round trip.

Decides where sites lie, from the pairs that were measured. The form is that of Vivaldi (Dabek et al., SIGCOMM 2004):
a height stands for the way from a site to the core, which no position can stand for. The fit is another: all pairs at
once, the error in the logarithm (a pair of 5 ms counts as much as one of 300), a limit to what one outlier can pull,
and Adam (Kingma and Ba, 2015) as the descent. Several members, each from another start, are fitted as one array: their
mean is better than any, and where they disagree, little is known. One measured pair in ten is not used: what is said of
it is an honest test (`model`), and the map has its measurement all the same.

Where sites have a location, they start from it and are held to it weakly: the chord through the earth is a distance in
three dimensions already.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.distance import EARTH_RADIUS_KM, FIBRE_KM_PER_S, PATH_STRETCH
from nearcast.planning.network.measurements import Pairs
from nearcast.resources.kinds import Location

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

MEMBERS: Final = 4
DIMENSIONS: Final = 3
ITERATIONS: Final = 300
LEAST_ITERATIONS: Final = 100
MOST_VISITS: Final = 6_000_000
"""Of all iterations to pairs: many pairs need fewer iterations, and the time is bounded."""
WARM_ITERATIONS: Final = 50
MAX_SAMPLE: Final = 60_000
"""Pairs that one iteration looks at."""
TESTED: Final = 10
"""One pair in so many is kept for tests."""
_PULL: Final = 0.1
"""Weight that holds a site to where it started, against the pairs that it was measured in."""
_HEIGHT: Final = -2.5
"""Logarithm of the height of a site of which nothing is known, in the unit of the map: 8 % of a usual round trip."""
_OUTLIER: Final = 0.15
"""Errors in the logarithm beyond this pull no stronger."""
_LEAST: Final = 1e-3
_STEP: Final = 0.2
_WARM_STEP: Final = 0.03
_MOMENTUM: Final = 0.9
_SCALE: Final = 0.98


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Positions and heights in units of ``unit_s``.

    Attributes:
        position: float64[MEMBERS, S, DIMENSIONS].
        height: float64[MEMBERS, S]: logarithm of the height.
        unit_s: about the median of all round trips, measured or not.
    """

    position: Floats
    height: Floats
    unit_s: float

    def of(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> Floats:
        """float64[MEMBERS, P]: the round trip of each pair, in seconds, as each member says."""
        gap = self.position[:, one] - self.position[:, other]
        height = np.exp(self.height)
        distance = np.sqrt(np.einsum("mpd,mpd->mp", gap, gap) + _LEAST**2)
        found: Floats = self.unit_s * (distance + height[:, one] + height[:, other])
        return found


def is_tested(pairs: Pairs) -> Truths:
    """bool[P]: the pairs that no fit sees; it never changes for a pair."""
    mixed = (pairs.one * 2_654_435_761 + pairs.other * 40_503) & 0xFFFFFFFF
    found: Truths = ((mixed ^ (mixed >> 15)) * 2_246_822_519 >> 13) % TESTED == 0
    return found


def iterations_for(pairs: int) -> int:
    """How many iterations a fit from nothing takes."""
    return max(LEAST_ITERATIONS, min(ITERATIONS, MOST_VISITS // max(1, pairs)))


def anchors(locations: tuple[Location | None, ...], unit_s: float) -> Floats:
    """float64[S, 3]: where sites lie by their locations, in units of ``unit_s``; the origin where that is unknown."""
    found = np.zeros((len(locations), DIMENSIONS))
    radius = 2.0 * PATH_STRETCH * EARTH_RADIUS_KM / FIBRE_KM_PER_S / unit_s
    for index, location in enumerate(locations):
        if location is not None:
            latitude, longitude = np.radians(location.latitude), np.radians(location.longitude)
            flat = np.cos(latitude)
            found[index] = (flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude))
    return found * radius


def begun(locations: tuple[Location | None, ...], unit_s: float) -> Coordinates:
    """Where a fit starts: by location, or somewhere around the origin, the same in every run."""
    count = len(locations)
    known = np.array([location is not None for location in locations], bool)
    spread = np.where(known, 0.05, 0.5)[None, :, None]
    position = np.stack([np.random.default_rng(member).normal(size=(count, DIMENSIONS)) for member in range(MEMBERS)])
    return Coordinates(anchors(locations, unit_s) + spread * position, np.full((MEMBERS, count), _HEIGHT), unit_s)


def fitted(
    start: Coordinates, anchor: Floats, pairs: Pairs, iterations: int, free: Truths | None = None
) -> Coordinates:
    """``start`` moved to where the measured pairs are met best.

    Args:
        start: from here.
        anchor: float64[S, DIMENSIONS]: what positions are held to, weakly.
        pairs: measured pairs.
        iterations: :func:`iterations_for` from nothing, :data:`WARM_ITERATIONS` or fewer from an earlier fit.
        free: bool[S]: the sites that may move; all by default.

    Returns:
        Coordinates in the unit of ``start``. Cost: O(iterations x members x (pairs + sites)), pairs up to
        :data:`MAX_SAMPLE`.
    """
    count = start.position.shape[1]
    position = start.position.reshape(-1, DIMENSIONS).copy()
    height = start.height.reshape(-1).copy()
    pull = np.tile(anchor, (MEMBERS, 1))
    moving = np.ones(len(height)) if free is None else np.tile(free.astype(np.float64), MEMBERS)
    descent = (_Adam(position), _Adam(height))
    first_step = _STEP if iterations > WARM_ITERATIONS else _WARM_STEP
    seen = pairs.where(~is_tested(pairs))
    offset = count * np.arange(MEMBERS)[:, None]
    target = np.log(seen.round_trip_s / start.unit_s)
    dice = np.random.default_rng(len(seen))
    for turn in range(iterations):
        sample = slice(None) if len(seen) <= MAX_SAMPLE else dice.integers(0, len(seen), MAX_SAMPLE)
        one, other = (seen.one[sample] + offset).ravel(), (seen.other[sample] + offset).ravel()
        slope, steep = _gradient(position, height, one, other, np.tile(target[sample], MEMBERS))
        slope += _PULL * (position - pull)
        steep += _PULL * (height - _HEIGHT)
        step = first_step * min(1.0, 2.0 * (1.0 - turn / iterations))
        position -= descent[0].step(slope, step) * moving[:, None]
        height -= descent[1].step(steep, step) * moving
    return Coordinates(position.reshape(start.position.shape), height.reshape(start.height.shape), start.unit_s)


def _gradient(
    position: Floats, height: Floats, one: NDArray[np.int64], other: NDArray[np.int64], target: Floats
) -> tuple[Floats, Floats]:
    """Slope of the sum of Huber losses of the errors in the logarithm, by position and by height."""
    count = len(height)
    gap = position[one] - position[other]
    distance = np.sqrt(np.einsum("pd,pd->p", gap, gap) + _LEAST**2)
    high = np.exp(height)
    found = distance + high[one] + high[other]
    error = np.clip(np.log(found) - target, -_OUTLIER, _OUTLIER) / found
    gap *= (error / distance)[:, None]
    slope = np.empty_like(position)
    for axis in range(DIMENSIONS):
        slope[:, axis] = np.bincount(one, gap[:, axis], count) - np.bincount(other, gap[:, axis], count)
    steep = np.asarray(np.bincount(one, error, count) + np.bincount(other, error, count), np.float64) * high
    return slope, steep


class _Adam:
    """The running means of one descent."""

    def __init__(self, like: Floats) -> None:
        self._mean = np.zeros_like(like)
        self._square = np.zeros_like(like)
        self._turns = 0

    def step(self, slope: Floats, length: float) -> Floats:
        """How far to go back along ``slope``."""
        self._turns += 1
        self._mean += (1.0 - _MOMENTUM) * (slope - self._mean)
        self._square += (1.0 - _SCALE) * (slope * slope - self._square)
        mean = self._mean / (1.0 - _MOMENTUM**self._turns)
        square = self._square / (1.0 - _SCALE**self._turns)
        found: Floats = length * mean / (np.sqrt(square) + 1e-8)
        return found
