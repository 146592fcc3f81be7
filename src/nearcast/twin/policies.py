"""Policies that nearcast is compared with: how requests could be routed instead. All obey residency and health.

Each gets the same arrivals, the same failures, the same telemetry and, where it makes sense, the same placement. All
but ``central`` try further places where one is full or dead, as a gateway would; an order has at most
:data:`LONGEST` places.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.errors import InvalidInput
from nearcast.twin.moment import Moment
from nearcast.twin.place import Order, Route
from nearcast.twin.world import Floats, Truths, World

LONGEST: Final = 3
THRESHOLD: Final = 0.8
"""Share of busy workers above which ``nearest-spill`` sends elsewhere, where requests wait, too."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Who may answer: bool[S, M, S] by origin, model and place, over a placement, and how long each takes when idle."""

    world: World
    placed: Truths
    open_to: Truths
    idle_s: Floats

    @classmethod
    def of(cls, world: World, placed: Truths) -> "Candidates":
        """The candidates of a placement (bool[S, M])."""
        problem = world.problem
        count, models = problem.demand_per_s.shape
        shape = (count, models, count)
        open_to, idle_s = np.zeros(shape, dtype=np.bool_), np.full(shape, np.inf)
        for origin in range(count):
            for model in range(models):
                open_to[origin, model] = problem.open_from(origin, model) & placed[:, model]
                idle_s[origin, model] = problem.time_s(origin, model)
        return cls(world, placed, open_to, idle_s)

    def standing(self, moment: Moment, origin: int, model: int) -> NDArray[np.intp]:
        """Indices of the places that may answer and are believed to stand, the fastest idle one first."""
        found = np.flatnonzero(self.open_to[origin, model] & moment.believed()[origin])
        return found[np.argsort(self.idle_s[origin, model, found], kind="stable")]


class _Ranked(ABC):
    """A policy whose routes follow from who stands; made anew when that changes, or at each report."""

    cyclic = False
    on_reports = False

    def __init__(self, name: str, candidates: Candidates) -> None:
        self.name = name
        self._candidates = candidates
        self._known: Truths | None = None

    def begin(self, moment: Moment) -> None:
        self._remake(moment, range(len(self._candidates.world.sites)))

    def step(self, moment: Moment) -> None:
        believed = moment.believed()
        changed = self._known is None or (self._known is not believed and not np.array_equal(self._known, believed))
        self._known = believed
        count = len(self._candidates.world.sites)
        if changed:
            self._remake(moment, range(count))
        elif self.on_reports:  # each site once per second
            self._remake(moment, range(moment.tick % 4, count, 4))

    def _remake(self, moment: Moment, origins: Iterable[int]) -> None:
        for origin in origins:
            row = moment.routes[origin]
            for model in range(len(self._candidates.world.models)):
                fresh = self.route(moment, origin, model)
                if fresh != row[model]:
                    row[model] = fresh

    @abstractmethod
    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        """The route of requests that enter at ``origin`` for ``model``; None where no place stands."""


class Nearest(_Ranked):
    """The place whose idle answer is soonest, and no other while it stands: full is full."""

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        return _only(self._candidates.standing(moment, origin, model)[:1])


class Central(_Ranked):
    """The nearest cloud, where the whole fleet's capacity stands."""

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        return _only(self._candidates.standing(moment, origin, model)[:LONGEST])


class RoundRobin(_Ranked):
    """Every place in turn."""

    cyclic = True

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        places = [int(place) for place in self._candidates.standing(moment, origin, model)]
        orders = tuple(Order(tuple((places * 2)[i : i + min(LONGEST, len(places))])) for i in range(len(places)))
        return (tuple((i + 1) / len(orders) for i in range(len(orders))), orders) if orders else None


class LatencyWeighted(_Ranked):
    """Any place, drawn with a weight of one over the time of its idle answer; then the nearest others."""

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        places = self._candidates.standing(moment, origin, model)
        if not len(places):
            return None
        weights = 1.0 / self._candidates.idle_s[origin, model, places]
        sums = np.cumsum(weights / weights.sum())
        sums[-1] = 1.0
        near = [int(place) for place in places[:LONGEST]]
        orders = [Order((int(first), *[p for p in near if p != first][: LONGEST - 1])) for first in places]
        return tuple(sums.tolist()), tuple(orders)


class LeastLoaded(_Ranked):
    """The place with the fewest requests per worker by the last reports, wherever it is."""

    on_reports = True

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        places = self._candidates.standing(moment, origin, model)
        workers = self._candidates.world.problem.workers

        def load(place: int) -> float:
            report = moment.seen(origin, place)
            return (sum(report.waiting) + report.busy) / float(workers[place]) if report else 0.0

        loads = np.array([load(int(place)) for place in places])
        return _only(places[np.argsort(loads, kind="stable")][:LONGEST])


class NearestSpill(_Ranked):
    """The nearest place that is not too busy by the last reports; the nearest of all where every one is."""

    on_reports = True

    def route(self, moment: Moment, origin: int, model: int) -> Route | None:
        places = [int(place) for place in self._candidates.standing(moment, origin, model)]

        def free(place: int) -> bool:
            report = moment.seen(origin, place)
            return report is None or report.utilization <= THRESHOLD or report.wait_s == 0.0

        first = next((place for place in places if free(place)), places[0] if places else -1)
        return _only([first, *(place for place in places if place != first)][:LONGEST]) if places else None


def _only(places: Iterable[int]) -> Route | None:
    order = Order(tuple(int(place) for place in places))
    return ((1.0,), (order,)) if order.places else None


POLICIES: Final[Mapping[str, Callable[[str, Candidates], _Ranked]]] = {
    "central": Central,
    "nearest": Nearest,
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "latency-weighted": LatencyWeighted,
    "nearest-spill": NearestSpill,
}


def central_world(world: World) -> World:
    """The world of ``central``: the capacity of the whole fleet, put into its clouds, which hold every model.

    Each cloud grows in proportion, until all clouds together can serve as many requests per second of the scenario's
    mix as the fleet could, so that the comparison is about the way, not about the number of machines. Tiers and
    memory do not bind there; residency does.

    Raises:
        InvalidInput: the fleet has no cloud that can run some model.
    """
    problem = world.problem
    cloud = np.array([site.facts.tier == "cloud" for site in world.sites])
    placed = np.isfinite(problem.service_s) & cloud[:, None]
    if not placed.any(axis=0).all():
        lacking = [name for name, there in zip(problem.models, placed.any(axis=0), strict=True) if not there]
        raise InvalidInput(
            f"policy central needs a site of tier cloud that can run {', '.join(lacking)}; there is none",
            hint="add one, or name the other policies",
        )
    mix = problem.demand_per_s.sum(axis=0) / max(problem.demand_per_s.sum(), 1e-12)
    mean_s = (np.where(placed, problem.work_s, 0.0) * mix).sum(axis=1)
    per_s = np.where(cloud, problem.workers / np.maximum(mean_s, 1e-12), 0.0)
    grown = np.ceil(problem.workers * world.capacity_per_s / per_s.sum() - 1e-9)
    return replace(world, problem=replace(problem, eligible=placed, workers=np.where(cloud, grown, 0.0)))
