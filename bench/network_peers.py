"""Simpler ways to estimate round trips, with the same measurements: what the map of the network is held against.

Each takes the number of sites and the measured pairs, and gives round trips in seconds for all pairs.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Estimate = tuple[Floats, Floats | None]

ROUNDS = 2000
RANK = 5


def global_median(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    """Every pair is as far apart as the median one."""
    return np.full((count, count), np.median(value)), None


def landmarks(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    """Triangulation by sites that all others measure: the middle of the bounds that the triangle inequality gives
    (Guyton and Schwartz, SIGCOMM 1995)."""
    known = np.full((count, count), np.nan)
    known[one, other] = known[other, one] = value
    np.fill_diagonal(known, 0.0)
    few = np.flatnonzero(np.isfinite(known).all(axis=1))
    lower, upper = np.zeros((count, count)), np.full((count, count), np.inf)
    for landmark in few:
        way = known[landmark]
        upper = np.minimum(upper, way[:, None] + way)
        lower = np.maximum(lower, np.abs(way[:, None] - way))
    return (lower + upper) / 2.0, None


def vivaldi(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    """Vivaldi as it was published (Dabek et al., SIGCOMM 2004): three dimensions and a height, each site pulled by one
    of its measurements at a time, the harder the surer the other is. All sites take a turn at once."""
    dice = np.random.default_rng(0)
    end, far, real = np.concatenate([one, other]), np.concatenate([other, one]), np.concatenate([value, value])
    order = np.argsort(end, kind="stable")
    end, far, real = end[order], far[order], real[order]
    first, many = np.searchsorted(end, np.arange(count)), np.bincount(end, minlength=count)
    active = np.flatnonzero(many)
    position, height = dice.normal(0.0, 1e-3, (count, 3)), np.full(count, 1e-3)
    doubt = np.ones(count)
    for _ in range(ROUNDS):
        pick = first[active] + (dice.random(len(active)) * many[active]).astype(np.int64)
        to, truth = far[pick], real[pick]
        gap = position[active] - position[to]
        length = np.linalg.norm(gap, axis=1)
        found = length + height[active] + height[to]
        weight = doubt[active] / (doubt[active] + doubt[to])
        miss = np.abs(found - truth) / truth
        doubt[active] = np.clip(miss * 0.25 * weight + doubt[active] * (1.0 - 0.25 * weight), 1e-3, 2.0)
        pull = 0.25 * weight * (truth - found)
        position[active] += (pull / np.maximum(length, 1e-6))[:, None] * gap
        lift = pull * (height[active] + height[to]) / np.maximum(found, 1e-6)
        height[active] = np.maximum(height[active] + lift, 1e-4)
    apart = np.linalg.norm(position[:, None] - position[None], axis=2)
    return apart + height[:, None] + height, None


def low_rank(count: int, one: Index, other: Index, value: Floats) -> Estimate:
    """Completion of the matrix of logarithms: a mean, an offset and five factors per site at either end, by alternating
    least squares, outliers weighted down."""
    dice = np.random.default_rng(0)
    row, column = np.concatenate([one, other]), np.concatenate([other, one])
    target = np.log(np.concatenate([value, value]))
    middle = float(np.median(target))
    order = np.argsort(row, kind="stable")
    row, column, target = row[order], column[order], target[order] - middle
    ends = np.searchsorted(row, np.arange(count + 1))
    # A column of ones on the other side of each offset.
    left, right = (dice.normal(0.0, 0.1, (count, RANK + 2)) for _ in range(2))
    left[:, 0] = right[:, 1] = 1.0
    left[:, 1] = right[:, 0] = 0.0
    weight = np.ones(len(row))
    for _ in range(15):
        for moving, held, own in ((left, right, 1), (right, left, 0)):
            free = [index for index in range(RANK + 2) if index != 1 - own]
            for site in range(count):
                here = slice(ends[site], ends[site + 1])
                if ends[site] == ends[site + 1]:
                    continue
                factors = held[column[here]]
                rest = target[here] - factors[:, 1 - own] * moving[site, 1 - own]
                known = factors[:, free] * weight[here, None]
                gram = known.T @ factors[:, free] + np.eye(len(free))
                moving[site, free] = np.linalg.solve(gram, known.T @ rest)
        miss = np.abs(target - np.einsum("pk,pk->p", left[row], right[column]))
        weight = np.minimum(1.0, 0.3 / np.maximum(miss, 1e-9))
    found = left @ right.T
    return np.exp(middle + (found + found.T) / 2.0), None
