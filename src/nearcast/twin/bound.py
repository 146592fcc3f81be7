"""The clairvoyant bound: figures that no policy can beat, whatever it knows.

For a time ``x``, count how many requests could be answered within ``x`` at most: each at a place where the way, the
transfer and its own service, without any queue, take no longer than ``x``, and all of them together within the
worker-seconds that each place has from the first measured arrival to ``x`` after the last one, at the best batch. This
is a linear program (fractions of requests may be split over places), and every real run is one of its solutions:
queues, staleness, memory and batches that are not full only take away. So if at most 90 % can be answered within
``x``, the p95 of every policy is above ``x``. The bound's percentiles are the least ``x`` (of a fine grid) for which
that is not so; its share within objectives is the program's with each model's own target for ``x``.

The bound holds for requests as they are drawn, and for whatever placement. It gives no figure for traffic and cost:
their bound is another one, and it is not reached together with this one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from nearcast.errors import Bug
from nearcast.twin.measures import QUANTILES
from nearcast.twin.outages import Outages
from nearcast.twin.scenario import ScenarioSpec
from nearcast.twin.workload import Workload
from nearcast.twin.world import Floats, World

PARTS: Final = 3
"""Requests of one origin and model are told apart by size: each part counts with its least work."""
HALVINGS: Final = 7


@dataclass(frozen=True, slots=True)
class Bound:
    """Percentiles in milliseconds of all requests, and the share within objectives."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    within: float


@dataclass(frozen=True, eq=False)
class _Group:
    """Requests of one origin, model and size: time at each place when idle (float64[n, P]), and least work."""

    time_s: Floats
    places: NDArray[np.intp]
    least_work: float


def clairvoyant(world: World, workload: Workload, outages: Outages, spec: ScenarioSpec) -> Bound:
    """The bound for the measured requests of a run."""
    groups, best_s = _groups(world, workload, spec)
    count = len(best_s)
    if not count:
        return Bound(0.0, 0.0, 0.0, 0.0, 1.0)
    capacity = _Capacity(world, outages, spec, groups)
    percentiles = [_percentile(quantile / 100.0, best_s, capacity) for quantile in QUANTILES]
    targets = np.array([world.problem.target_s[model] for model in capacity.models])
    within = capacity.most(targets) / count
    p50, p95, p99 = (1000.0 * value for value in percentiles)
    return Bound(p50, p95, p99, 1000.0 * float(best_s.mean()), min(1.0, within))


def _percentile(part: float, best_s: Floats, capacity: "_Capacity") -> float:
    """The least time within which ``part`` of the requests could be answered: first without regard to capacity."""
    low = float(np.quantile(best_s, part, method="inverted_cdf"))
    wanted = part * len(best_s) * (1 - 1e-9)
    if capacity.most(np.full(len(capacity.models), low)) >= wanted:
        return low
    high = low
    for _ in range(20):
        high *= 1.5
        if capacity.most(np.full(len(capacity.models), high)) >= wanted:
            break
    else:
        return low
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if capacity.most(np.full(len(capacity.models), middle)) >= wanted:
            high = middle
        else:
            low = middle
    return low


def _groups(world: World, workload: Workload, spec: ScenarioSpec) -> tuple[dict[tuple[int, int, int], _Group], Floats]:
    """Groups by (origin, model, part), and the best idle time of each request."""
    problem = world.problem
    measured = np.flatnonzero(workload.at_s >= spec.warm_up_s)
    models = len(world.models)
    keys = workload.origin[measured].astype(np.int64) * models + workload.model[measured]
    order = np.lexsort((workload.work[measured], keys))
    measured, keys = measured[order], keys[order]
    found: dict[tuple[int, int, int], _Group] = {}
    best: list[Floats] = []
    for key in np.unique(keys):
        origin, model = divmod(int(key), models)
        mine = measured[np.searchsorted(keys, key) : np.searchsorted(keys, key, side="right")]
        places = np.flatnonzero(problem.open_from(origin, model))
        rate = np.minimum(problem.bytes_per_s[origin], problem.bytes_per_s[places])
        byte_s = np.where(places == origin, 0.0, 1.0 / rate)
        for part, ids in enumerate(np.array_split(mine, min(PARTS, len(mine)))):
            size = workload.request_bytes[ids] + workload.answer_bytes[ids]
            time_s = (
                workload.jitter[ids, None] * world.round_trip_s[origin, places][None, :]
                + size[:, None] * byte_s[None, :]
                + workload.work[ids, None] * _least_service(world, model, places)[None, :]
            )
            found[origin, model, part] = _Group(time_s, places, float(workload.work[ids].min()))
            best.append(time_s.min(axis=1))
    return found, np.concatenate(best) if best else np.zeros(0)


def _least_service(world: World, model: int, places: NDArray[np.intp]) -> Floats:
    """float64[P]: no batch of the profile takes less than one of a single request."""
    return np.array([world.curves[int(place)][model][0] for place in places])


def _least_work_s(curve: Sequence[float]) -> float:
    """No batch of the profile takes less per request, as equal as its members may be."""
    return min(taken_s / size for size, taken_s in enumerate(curve, start=1))


class _Capacity:
    """How many requests can be answered within given times, by the linear program."""

    def __init__(
        self, world: World, outages: Outages, spec: ScenarioSpec, groups: dict[tuple[int, int, int], _Group]
    ) -> None:
        self._world, self._outages, self._spec = world, outages, spec
        self._groups = list(groups.items())
        self.models = [key[1] for key, _ in self._groups]
        """Of each group: `most` takes a time for each."""

    def most(self, within_s: Floats) -> float:
        """Requests that could be answered, each group within its own time, at most."""
        rows: list[int] = []
        places: list[int] = []
        upper: list[float] = []
        work: list[float] = []
        for row, ((_, model, _), group) in enumerate(self._groups):
            able = (group.time_s <= within_s[row]).sum(axis=0)
            for spot in np.flatnonzero(able):
                place = int(group.places[spot])
                rows.append(row)
                places.append(place)
                upper.append(float(able[spot]))
                work.append(_least_work_s(self._world.curves[place][model]) * group.least_work)
        flows = len(rows)
        if not flows:
            return 0.0
        count = len(self._world.sites)
        each = np.arange(flows)
        matrix = coo_array(
            ([*np.ones(flows), *work], ([*rows, *(len(self._groups) + p for p in places)], [*each, *each])),
            shape=(len(self._groups) + count, flows),
        )
        sizes = [len(group.time_s) for _, group in self._groups]
        limit = np.concatenate([sizes, self._worker_seconds(float(np.max(within_s)), count)])
        found = linprog(-np.ones(flows), A_ub=matrix, b_ub=limit, bounds=np.c_[np.zeros(flows), upper], method="highs")
        if found.status != 0:
            raise Bug(f"the bound's program has no solution: {found.message}")
        return float(-found.fun)

    def _worker_seconds(self, within_s: float, count: int) -> Floats:
        """float64[S]: what each place has for measured requests, the time in which it is lost taken off."""
        start_s, end_s = self._spec.warm_up_s, self._spec.duration_s + within_s
        up_s = np.full(count, end_s - start_s)
        moments = [start_s, *(s for s in self._outages.moments_s() if start_s < s < end_s), end_s]
        for begin_s, stop_s in pairwise(moments):
            up_s -= (stop_s - begin_s) * ~self._outages.up(begin_s, count)
        return np.asarray(self._world.problem.workers * up_s)
