"""What one site's memory should hold, for many sites at once: a knapsack each, filled by gain per byte.

Decides: for each site the models that are worth most together within its memory, those that must be there first. Does
not decide what a model is worth there (`placement`).
"""

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.problem import Floats, Truths


def fill(gain: Floats, footprint: Floats, memory: Floats, must: Truths, able: Truths) -> Truths:
    """bool[B, M]: what each of ``B`` sites holds.

    What must be held comes first, the smallest first, as far as memory goes: beyond it the rest is left out.

    Args:
        gain: float64[B, M]: worth of each model there; at most 0 where it is not wanted.
        footprint: float64[M], memory: float64[B]: bytes.
        must, able: bool[B, M].
    """
    sites, models = gain.shape
    size = np.maximum(footprint, 1e-9)
    dense = np.where(must, np.inf, np.where(gain > 0.0, gain / size, -np.inf))
    smallest = np.argsort(size, kind="stable")
    order = smallest[np.argsort(-dense[:, smallest], axis=1, kind="stable")]
    held = np.zeros((sites, models), dtype=np.bool_)
    left = memory.astype(np.float64).copy()
    every = np.arange(sites)
    for rank in range(models):
        model = order[:, rank]
        wanted = must[every, model] | (gain[every, model] > 0.0)
        takes = able[every, model] & wanted & (footprint[model] <= left)
        held[every, model] = takes
        left -= np.where(takes, footprint[model], 0.0)
    return _or_one(held, gain, footprint, memory, must, able)


def parts(gain: Floats, footprint: Floats, memory: Floats) -> Floats:
    """float64[B, M]: which part of each model each site would hold if models could be divided: worth at least as much
    as any models that fit.

    Args:
        gain: float64[B, M]: worth of each model there, none negative.
        footprint: float64[M], memory: float64[B]: bytes.
    """
    size = np.maximum(footprint, 1e-9)
    order = np.argsort(-gain / size, axis=1, kind="stable")
    sizes = size[order]
    left = memory[:, None] - (np.cumsum(sizes, axis=1) - sizes)
    found = np.empty_like(gain)
    np.put_along_axis(found, order, np.clip(left / sizes, 0.0, 1.0), axis=1)
    return found


def _or_one(
    held: Truths, gain: Floats, footprint: Floats, memory: Floats, must: Truths, able: Truths
) -> NDArray[np.bool_]:
    """Instead of all that is held for its gain, the one model that is worth more than it together."""
    forced = np.where(held & must, footprint, 0.0).sum(axis=1)
    fits = able & ~must & (footprint[None, :] <= (memory - forced)[:, None])
    worth = np.where(fits, gain, -np.inf)
    best = worth.argmax(axis=1)
    every = np.arange(len(gain))
    alone = worth[every, best] > np.where(held & ~must, gain, 0.0).sum(axis=1)
    found = np.where(alone[:, None], held & must, held)
    found[every[alone], best[alone]] = True
    return found
