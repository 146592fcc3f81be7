"""What a request takes of a busy place: a batch lasts as long as its longest member.

Decides the *work* of a request, worker-seconds where the place is so busy that batches fill. Work per request differs
(noise, token counts), so a batch of eight lasts longer than the profile's eight equal ones; a capacity without that
would be one that no fleet reaches. Pure.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import ndtri

from nearcast.planning.fleet.problem import Floats
from nearcast.twin.scenario import TwinModel

GRID: Final = 4000
"""Quantiles by which a distribution is told."""


def relative_work(model: TwinModel, tokens: Floats | None) -> Floats:
    """float64[Q], rising, mean 1: quantiles of the work of requests.

    Args:
        model: whose.
        tokens: float64[N, 2] of context and generated tokens, where the model goes by tokens.
    """
    if model.tokens is not None and tokens is not None:
        work = np.sort(tokens @ np.array([model.tokens.input_weight, 1.0]))
        return np.asarray(work / work.mean())
    if not model.noise:
        return np.ones(1)
    sigma = np.sqrt(np.log1p(model.noise**2))
    work = np.exp(sigma * ndtri((np.arange(GRID) + 0.5) / GRID))
    return np.asarray(work / work.mean())


def busy_s(curve: Sequence[float], work: Floats) -> tuple[float, float]:
    """Worker-seconds of a request in batches of the best size, and seconds of such a batch.

    Args:
        curve: seconds of a batch of 1, 2, ... requests of mean work.
        work: `relative_work`.
    """
    below = np.arange(1, len(work) + 1) / len(work)
    best = (np.inf, np.inf)
    for size, taken_s in enumerate(curve, start=1):
        longest = float(work @ np.diff(below**size, prepend=0.0))
        best = min(best, (taken_s * longest / size, taken_s * longest))
    return best
