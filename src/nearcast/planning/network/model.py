"""What is believed of pairs that nobody measured: an estimate of the round trip, and how far off it may be.

Decides the estimate: the mean of the members of `coordinates`, corrected by `nearby`, and where sites have locations
and few measurements, shrunk to what the distance says. And its deviation: a part of the estimate that grows with the
disagreement of the members, with how little a site was measured, with how little near sites say, and for near pairs.
Which of these counts how much is learned from measured pairs that no fit sees (`coordinates.is_tested`); then all is
scaled so that 90 % of those lie within 1.64 deviations (normalised conformal prediction: Papadopoulos et al., ECML
2002). Where what is measured is unlike what is asked for (near peers only), the scale is, too.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.distance import EARTH_RADIUS_KM, FIBRE_KM_PER_S, LAST_MILE_S, PATH_STRETCH, UNKNOWN_S
from nearcast.planning.network.coordinates import (
    MEMBERS,
    WARM_ITERATIONS,
    Coordinates,
    anchors,
    begun,
    fitted,
    is_tested,
    iterations_for,
)
from nearcast.planning.network.measurements import Pairs
from nearcast.planning.network.nearby import (
    MOST,
    REACHES,
    Neighbours,
    corrections,
    neighbours_in,
    touched,
    unseen,
)
from nearcast.resources.kinds import Location

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Indices = NDArray[np.int64]

CONFIDENCE: Final = 0.9
WITHIN: Final = 1.645
"""Deviations that hold :data:`CONFIDENCE` of the truth: as for a normal distribution."""
LEAST_TESTED: Final = 20
MOST_TESTED: Final = 5000
"""Fewer measured pairs that no fit sees teach nothing about deviations, and :data:`_UNTAUGHT` stands; more teach no
more."""
GUESS_DEVIATION: Final = 0.4
"""Of what the distance says, as a part of it: Bozkurt et al. see a stretch between 1.5 and 3 for the middle half."""
UNKNOWN_DEVIATION: Final = 1.0
GUESS_WORTH: Final = 3.0
"""The distance counts as much as this many measured pairs of a site."""
_UNTAUGHT: Final = (0.1, 1.0, 0.6, 0.1, 0.1)
"""Weights of the features of :func:`_features` before anything taught better."""
_LEAST_DEVIATION: Final = 0.02
_MOST_ERROR: Final = 3.0
_LESSONS: Final = 100
_BLOCK: Final = 1024


@dataclass(frozen=True, eq=False)
class Model:
    """What was learned from measured pairs.

    Attributes:
        anchor: float64[S, 3]: see `coordinates.anchors`.
        located: bool[S]: whether the site has a location.
        coordinates: of every site.
        neighbours: of every site.
        support: float64[S]: how many pairs of the site are measured.
        reach: of corrections by near sites; 0 for none.
        weights: float64[5]: of the features of the deviation.
    """

    anchor: Floats
    located: NDArray[np.bool_]
    coordinates: Coordinates
    neighbours: Neighbours
    support: Floats
    reach: float
    weights: Floats


def learned(locations: tuple[Location | None, ...], pairs: Pairs, before: Coordinates | None) -> Model:
    """The model of ``pairs``.

    Args:
        locations: of each site; None where unknown.
        pairs: what was measured.
        before: coordinates of the same sites to go on from; None to begin anew.
    """
    unit_s = before.unit_s if before else _unit_s(pairs)
    anchor = anchors(locations, unit_s)
    start = before or begun(locations, unit_s)
    found = fitted(start, anchor, pairs, WARM_ITERATIONS if before else iterations_for(len(pairs)))
    located = np.array([location is not None for location in locations], bool)
    neighbours = _all_neighbours(found)
    model = Model(anchor, located, found, neighbours, _support(pairs, len(locations)), 0.0, np.array(_UNTAUGHT))
    return _taught(model, pairs)


def _unit_s(pairs: Pairs) -> float:
    """Half of a long round trip. Not a usual one: where most measured pairs are near, that would be the size of a
    region, and what holds sites to the origin would hold the whole fleet within it."""
    return 0.5 * float(np.quantile(pairs.round_trip_s, 0.9)) if len(pairs) else UNKNOWN_S


def adjusted(model: Model, pairs: Pairs, sites: Indices) -> Model:
    """``model`` with only ``sites`` (int64[R], sorted) placed anew among the others; what it has learned of
    deviations stays."""
    count = len(model.support)
    free = np.zeros(count, bool)
    free[sites] = True
    found = fitted(
        model.coordinates, model.anchor, pairs.where(free[pairs.one] | free[pairs.other]), WARM_ITERATIONS // 2, free
    )
    neighbours = neighbours_in(_distances(found, sites), sites, model.neighbours)
    return Model(model.anchor, model.located, found, neighbours, _support(pairs, count), model.reach, model.weights)


def estimated(model: Model, pairs: Pairs, rows: Indices) -> tuple[Singles, Singles]:
    """Estimates and deviations of the pairs of ``rows`` (int64[R], sorted) with all sites, in seconds.

    Returns:
        float32[R, S] each; 0 for a site with itself. Cost: O(R x S), and O(pairs) where near sites speak.
    """
    count = len(model.support)
    value, deviation = np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.float32)
    spoken = None
    if model.reach > 0.0:
        spoken = touched(model.neighbours, pairs, model.reach, None if len(rows) == count else rows)
    error = _seen_error(model, pairs)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        here = slice(start, start + len(block))
        mean, spread = _mean_and_spread(model.coordinates, block)
        founded = np.zeros_like(mean)
        if spoken is not None:
            correction, founded = corrections(spoken, error, block, count)
            mean *= np.exp(np.clip(correction, -MOST, MOST))
        support = np.minimum(model.support[block][:, None], model.support).astype(np.float32)
        guess, known = _guess(model, block)
        value[here], deviation[here] = _believed(model, mean, spread, founded, support, guess, known)
        value[here][np.arange(len(block)), block] = 0.0
        deviation[here][np.arange(len(block)), block] = 0.0
    return value, deviation


def _believed(
    model: Model,
    mean: Singles,
    spread: Singles,
    founded: Singles,
    support: Singles,
    guess: Singles,
    known: NDArray[np.bool_],
) -> tuple[Singles, Singles]:
    """Coordinates and distance together, by how much the sites were measured."""
    part = np.zeros_like(mean)
    for weight, feature in zip(model.weights, _features(mean, spread, founded, support, model), strict=True):
        if weight > 0.0:
            part += np.float32(weight) * feature
    np.maximum(part, np.float32(_LEAST_DEVIATION), out=part)
    lost = (support == 0.0) & ~known
    part[lost] = np.maximum(part[lost], np.float32(UNKNOWN_DEVIATION))
    if not known.any():
        return mean, mean * part
    trust: Singles = np.where(known, support / (support + np.float32(GUESS_WORTH)), np.float32(1.0))
    rest: Singles = np.float32(1.0) - trust
    value: Singles = trust * mean + rest * guess
    deviation: Singles = value * (trust * part + rest * np.float32(GUESS_DEVIATION))
    return value, deviation


def _features(mean: Singles, spread: Singles, founded: Singles, support: Singles, model: Model) -> list[Singles]:
    """What a deviation is a weighted sum of; none is negative."""
    nearness = np.log(np.maximum(np.float32(model.coordinates.unit_s) / mean, np.float32(1.0)))
    alone: Singles = np.float32(1.0) / np.sqrt(support + np.float32(1.0))
    return [np.ones_like(mean), spread, alone, np.float32(1.0) - founded, nearness]


def _taught(model: Model, pairs: Pairs) -> Model:
    """``model`` with the reach of near sites and the weights of the deviation that do best on unseen pairs."""
    mask = is_tested(pairs)
    tested, seen = pairs.where(mask), pairs.where(~mask)
    if len(tested) < LEAST_TESTED or len(seen) == 0:
        return model
    if len(tested) > MOST_TESTED:
        tested = tested.where(np.random.default_rng(0).permutation(len(tested)) < MOST_TESTED)
    said = model.coordinates.of(tested.one, tested.other)
    mean = said.mean(axis=0)
    error = _seen_error(model, seen)
    best, reach = _misses(mean, tested), 0.0
    corrected, founded = mean, np.zeros(len(tested))
    for tried in REACHES:
        correction, how_well = unseen(model.neighbours, seen, error, tested, tried)
        value = mean * np.exp(np.clip(correction, -MOST, MOST))
        if _misses(value, tested) < best:
            best, reach, corrected, founded = _misses(value, tested), tried, value, how_well
    support = np.maximum(np.minimum(model.support[tested.one], model.support[tested.other]) - 1.0, 0.0)
    features = _features(
        corrected.astype(np.float32),
        (said.std(axis=0) / mean).astype(np.float32),
        founded.astype(np.float32),
        support.astype(np.float32),
        model,
    )
    weights = _scaled(np.stack(features).astype(np.float64), np.abs(tested.round_trip_s - corrected) / corrected)
    return Model(model.anchor, model.located, model.coordinates, model.neighbours, model.support, reach, weights)


def _misses(value: Floats, tested: Pairs) -> float:
    return float(np.median(np.abs(np.log(value / tested.round_trip_s))))


def _scaled(features: Floats, miss: Floats) -> Floats:
    """Weights, none negative, whose sum of ``features`` (float64[F, P]) follows ``miss``, and holds 90 % of it.

    Multiplicative updates (Lee and Seung, 2001) keep them positive and need no solver.
    """
    target = np.minimum(miss, _MOST_ERROR)
    gram, pull = features @ features.T, features @ target
    weights = np.full(len(features), max(float(target.mean()), 1e-3))
    for _ in range(_LESSONS):
        weights *= pull / np.maximum(gram @ weights, 1e-12)
    expected = np.maximum(weights @ features, _LEAST_DEVIATION)
    found: Floats = weights * float(np.quantile(miss / expected, CONFIDENCE)) / WITHIN
    return found


def _seen_error(model: Model, pairs: Pairs) -> Floats:
    """float64[P]: logarithm of measured over what all members together say."""
    mean = model.coordinates.of(pairs.one, pairs.other).mean(axis=0)
    found: Floats = np.clip(np.log(pairs.round_trip_s / mean), -MOST, MOST)
    return found


def _support(pairs: Pairs, count: int) -> Floats:
    return np.bincount(np.concatenate([pairs.one, pairs.other]), minlength=count).astype(np.float64)


# --- dense rows ------------------------------------------------------------------------------------------------------


def _distance(coordinates: Coordinates, member: int, rows: Indices) -> Singles:
    """float32[R, S]: between positions, as one member says."""
    position = coordinates.position[member].astype(np.float32)
    square = np.einsum("sd,sd->s", position, position)
    found: Singles = position[rows] @ (np.float32(-2.0) * position.T)
    found += square[rows][:, None]
    found += square
    np.maximum(found, np.float32(1e-6), out=found)
    return np.sqrt(found, out=found)


def _distances(coordinates: Coordinates, rows: Indices) -> Singles:
    """float32[R, S]: mean over the members."""
    found = _distance(coordinates, 0, rows)
    for member in range(1, MEMBERS):
        found += _distance(coordinates, member, rows)
    found /= np.float32(MEMBERS)
    return found


def _all_neighbours(coordinates: Coordinates) -> Neighbours:
    count = coordinates.position.shape[1]
    blocks = [np.arange(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    parts = [neighbours_in(_distances(coordinates, rows), rows) for rows in blocks]
    if not parts:
        return Neighbours(np.empty((0, 0), np.int64), np.empty((0, 0)))
    return Neighbours(np.concatenate([part.site for part in parts]), np.concatenate([part.distance for part in parts]))


def _mean_and_spread(coordinates: Coordinates, rows: Indices) -> tuple[Singles, Singles]:
    """float32[R, S]: the mean of the members in seconds, and their standard deviation as a part of it."""
    height = np.exp(coordinates.height).astype(np.float32)
    mean, square = None, None
    for member in range(MEMBERS):
        found = _distance(coordinates, member, rows)
        found += height[member][rows][:, None]
        found += height[member]
        if mean is None or square is None:
            mean, square = found, found * found
        else:
            mean += found
            found *= found
            square += found
    assert mean is not None and square is not None  # noqa: S101, PT018 - there are members
    mean /= np.float32(MEMBERS)
    square /= np.float32(MEMBERS)
    square -= mean * mean
    spread = np.sqrt(np.maximum(square, np.float32(0.0))) / mean
    mean *= np.float32(coordinates.unit_s)
    return mean, spread


def _guess(model: Model, rows: Indices) -> tuple[Singles, NDArray[np.bool_]]:
    """float32[R, S]: what the distance says, and bool[R, S]: whether both sites have a location."""
    known = model.located[rows][:, None] & model.located
    if not known.any():
        return np.zeros(known.shape, np.float32), known
    radius = 2.0 * PATH_STRETCH * EARTH_RADIUS_KM / FIBRE_KM_PER_S / model.coordinates.unit_s
    unit = (model.anchor / radius).astype(np.float32)
    chord = np.sqrt(np.maximum(np.float32(2.0) - np.float32(2.0) * (unit[rows] @ unit.T), np.float32(0.0)))
    arc_km = np.float32(2.0 * EARTH_RADIUS_KM) * np.arcsin(np.minimum(chord / np.float32(2.0), np.float32(1.0)))
    return np.float32(LAST_MILE_S) + arc_km * np.float32(2.0 * PATH_STRETCH / FIBRE_KM_PER_S), known
