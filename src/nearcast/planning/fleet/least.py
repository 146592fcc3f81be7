"""The least few of each row of many, with their labels: one sort of whole numbers instead of three of floats.

A float32 that is not negative sorts as its bits do. With the label below these in one int64, a plain partition and a
plain sort, which NumPy vectorises, find both at once, and ties fall to the lesser label.
"""

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.cost import Floats32

Ints = NDArray[np.intp]

_BITS = np.int64(32)
_LABEL = np.int64(0xFFFFFFFF)


def smallest(values: Floats32, labels: Ints, count: int) -> tuple[Floats32, Ints, Floats32]:
    """The ``count`` least of each row, rising.

    Args:
        values: float32[n, w], none negative; inf is the greatest.
        labels: intp that broadcast to [n, w], from 0 below 2**31.

    Returns:
        float32[n, k] values and intp[n, k] labels, k the lesser of ``count`` and w; and float32[n], the least of the
        rest of each row, inf where there is none.
    """
    keys = values.view(np.int32).astype(np.int64, order="C")
    keys <<= _BITS
    keys |= labels
    rest = np.full(len(keys), np.inf, np.float32)
    if keys.shape[1] > count:
        keys.partition(count, axis=1)
        rest = _values(keys[:, count])
        keys = keys[:, :count]
    keys = np.sort(keys, axis=1)
    return _values(keys), keys & _LABEL, rest


def _values(keys: NDArray[np.int64]) -> Floats32:
    found: Floats32 = (keys >> _BITS).astype(np.int32).view(np.float32)
    return found
