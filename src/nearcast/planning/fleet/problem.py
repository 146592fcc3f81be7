"""The planning problem as arrays, and its answer. Data only: `solve` decides, `gather` makes it of a real fleet.

``S`` sites, ``M`` models, ``R`` residency rule sets, ``C`` classes of sites that rules cannot tell apart. Rates are
requests per second, times are seconds, and the objective adds the seconds that requests wait, per second of operation.
A site is one place: the capacity of its nodes is added up.

Hard constraints are arrays of truth values, never costs: a place is open to requests for model ``m`` from site ``s``
exactly where :meth:`Problem.open_from` says so.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]
Truths = NDArray[np.bool_]

MAX_CANDIDATES: Final = 16
"""Places that a site may use for one model (K of the design); also bounds the variables of the program."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What a plan rests on, at one moment.

    Attributes:
        sites, models: names, in the order of the arrays.
        demand_per_s: float64[S, M]: requests that enter at a site.
        round_trip_s: float64[S, S]: from client site (row) to place (column), 0 on the diagonal; uncertainty is
            already added; inf where there is no way.
        bytes_per_s: float64[S]: rate of the site's link; a pair has the lesser of its two. inf: not a limit.
        payload_bytes: float64[M]: of a request and its answer together.
        service_s: float64[S, M]: one request in an idle place; inf where the place cannot run the model.
        work_s: float64[S, M]: capacity that one request takes there, in worker-seconds (under service_s where requests
            are batched); inf where service_s is.
        full_s: float64[S, M]: service of a request in a full batch there; at least service_s, which it is where there
            are no batches.
        workers: float64[S]: worker-seconds per second that the site has; 0 while no node of it may be asked.
        memory_bytes: float64[S]: for models.
        footprint_bytes: float64[M]: of a loaded model.
        eligible: bool[S, M]: whether the site may hold the model: placement, tier licence, capability, tenancy.
        pinned: bool[S, M]: whether it must (placement by name); within eligible.
        warm: bool[S, M]: whether it holds it now.
        move_s: float64[S, M]: time to fetch and load the model there, where it is not warm.
        least, most: int32[M]: bounds on the number of sites that hold a model.
        site_class: int32[S]: class of each site for residency.
        may: bool[R, C, C]: whether requests from a class (row) may be computed at a class (column), by rule set.
        rule_set: int32[M]: of each model.
        target_s: float64[M]: time to answer that the deployment's objective wants.
        weight: float64[M]: of a second that a request for the model waits.
        urgency: float64[M]: what one that is late, or that nobody has room for, weighs besides.
        extra_s: float64[S, M]: price, energy and carbon of one request there, in seconds by the deployment's weights.
    """

    sites: tuple[str, ...]
    models: tuple[str, ...]
    demand_per_s: Floats
    round_trip_s: Floats
    bytes_per_s: Floats
    payload_bytes: Floats
    service_s: Floats
    work_s: Floats
    full_s: Floats
    workers: Floats
    memory_bytes: Floats
    footprint_bytes: Floats
    eligible: Truths
    pinned: Truths
    warm: Truths
    move_s: Floats
    least: Indices
    most: Indices
    site_class: Indices
    may: Truths
    rule_set: Indices
    target_s: Floats
    weight: Floats
    urgency: Floats
    extra_s: Floats

    def open_from(self, site: int, model: int) -> Truths:
        """bool[S]: the places that may answer requests for ``model`` that enter at ``site``, by every hard rule."""
        rule = self.may[self.rule_set[model], self.site_class[site]]
        able = np.isfinite(self.service_s[:, model]) & (self.workers > 0.0)
        open_to: Truths = rule[self.site_class] & self.eligible[:, model] & able & np.isfinite(self.round_trip_s[site])
        return open_to

    def is_open(self, site: int, place: int, model: int) -> bool:
        """:meth:`open_from` of one place."""
        may = self.may[self.rule_set[model], self.site_class[site], self.site_class[place]]
        able = self.eligible[place, model] and np.isfinite(self.service_s[place, model]) and self.workers[place] > 0.0
        return bool(may and able and np.isfinite(self.round_trip_s[site, place]))

    def transfer_s(self, site: int, model: int) -> Floats:
        """float64[S]: time of the payload on the way from ``site`` to each place; 0 to itself."""
        rate = np.minimum(self.bytes_per_s[site], self.bytes_per_s)
        found: Floats = self.payload_bytes[model] / rate
        found[site] = 0.0
        return found

    def time_s(self, site: int, model: int) -> Floats:
        """float64[S]: time to answer from each place when it is idle: round trip, transfer, service."""
        found: Floats = self.round_trip_s[site] + self.transfer_s(site, model) + self.service_s[:, model]
        return found


@dataclass(frozen=True, eq=False)
class FleetPlan:
    """What runs where, and where requests go.

    Routes are parallel arrays of length N, sorted by origin, model, and falling share. For each (origin, model) that
    has an open place among those that hold the model, shares are positive and sum to 1, demand or not.

    Attributes:
        placed: bool[S, M]: which sites shall hold which models.
        origin, model, place: int32[N]: indices of sites and models.
        share: float64[N].
        utilization: float64[S]: expected share of the workers that is busy.
        wait_s: float64[S]: expected wait in the queue of each place.
        price_s: float64[S]: what one more worker-second would save at each place (the dual price of its capacity).
        unserved_per_s: float64[S, M]: demand that no open place has room for; it is routed all the same, and refused
            there once queues are full.
        cost_s: the objective of this plan: waiting request-seconds per second.
        routing_bound_s: no shares over this placement cost less.
        placement_bound_s: no placement costs less.
    """

    placed: Truths
    origin: Indices
    model: Indices
    place: Indices
    share: Floats
    utilization: Floats
    wait_s: Floats
    price_s: Floats
    unserved_per_s: Floats
    cost_s: float
    routing_bound_s: float
    placement_bound_s: float

    @property
    def routing_gap(self) -> float:
        """By which part the routing costs more than its lower bound, at most."""
        return _gap(self.cost_s, self.routing_bound_s)

    @property
    def placement_gap(self) -> float:
        """By which part the plan costs more than a lower bound for every placement, at most."""
        return _gap(self.cost_s, self.placement_bound_s)


def _gap(cost_s: float, bound_s: float) -> float:
    return max(0.0, cost_s - bound_s) / max(abs(bound_s), 1e-12)
