"""A first guess of a round trip that nobody has measured yet, from coordinates.

Light in fibre covers about two thirds of the vacuum's speed, and cables are longer than great circles; the factor
1.5 and the constant for the last mile are the middle of what Bozkurt et al. report ("Why Is the Internet so Slow?!",
PAM 2017: the median of measured over great-circle fibre time is between 1.5 and 3). A guess is replaced by the first
measurement.
"""

from math import asin, cos, radians, sin, sqrt
from typing import Final

from nearcast.resources.kinds import Location

EARTH_RADIUS_KM: Final = 6371.0
FIBRE_KM_PER_S: Final = 200_000.0
PATH_STRETCH: Final = 1.5
LAST_MILE_S: Final = 0.002
UNKNOWN_S: Final = 0.1


def great_circle_km(one: Location, other: Location) -> float:
    """Distance over the ground by the haversine formula, in kilometres."""
    lat1, lon1, lat2, lon2 = map(radians, (one.latitude, one.longitude, other.latitude, other.longitude))
    chord = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(chord)))


def guessed_round_trip_s(one: Location | None, other: Location | None) -> float:
    """Expected round trip in seconds; :data:`UNKNOWN_S` where a location is missing."""
    if one is None or other is None:
        return UNKNOWN_S
    return LAST_MILE_S + 2 * PATH_STRETCH * great_circle_km(one, other) / FIBRE_KM_PER_S
