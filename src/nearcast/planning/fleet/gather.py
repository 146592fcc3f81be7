"""The planning problem of a real fleet: a snapshot becomes arrays. Pure; equal snapshots make equal problems.

Decides: what counts as capacity (connected nodes that do not drain), what is assumed where nothing was measured, and
that every hard rule (placement, residency, tenancy, licence, health, version, capability) becomes an array of truth
values, never a cost. Does not decide anything of the plan (`solve`).

Priors, in this order: the profile of the model on the site's own nodes; profiles elsewhere, scaled by how fast the
site's nodes are with the models that both have; the size of the release, as if all of it were read once per request.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nearcast.planning.cost import UNKNOWN_SERVICE_S
from nearcast.planning.fleet.problem import Floats, Indices, Problem, Truths
from nearcast.planning.fleet.snapshot import SeenFailure, SeenModel, SeenNode, SeenRelease, Snapshot
from nearcast.planning.fleet.ways import estimated, round_trips
from nearcast.planning.grounds import Grounds, grounds_of, placed
from nearcast.resources.kinds import Deployment, Site
from nearcast.resources.plan import Objective
from nearcast.resources.state import DesiredState

URGENCY: Final[dict[Objective, float]] = {"realtime": 4.0, "interactive": 1.0, "batch": 0.1}
"""What a second of waiting weighs where room is scarce, by objective; what one that is late does, in any case."""
ROOMY: Final = 0.7
SCARCE: Final = 0.9
"""Part of the fleet that is busy up to which nobody need give way, and from which classes alone say who does."""
UNKNOWN_WORKERS: Final = 1.0
LEAST_WORKERS: Final = 0.01
MOST_WORKERS: Final = 1e5
LEAST_SERVICE_S: Final = 1e-6
MOST_SERVICE_S: Final = 3600.0
"""What nodes tell is held to what can be, so that no figure of one node spoils the sums of all."""
UNKNOWN_MEMORY_BYTES: Final = float(1 << 50)
READ_BYTES_PER_S: Final = 10e9
"""Of weights from memory: what bounds a model that computes little per byte."""
LOAD_BYTES_PER_S: Final = 200e6
LOAD_S: Final = 1.0
FOOTPRINT_RATIO: Final = 1.5
"""Memory of a loaded model over the size of its files, until a node has told."""
FAULTY_SITES: Final = 3
"""A version that so many sites could not load, and none could, is at fault itself."""
_JOULES_PER_KWH: Final = 3.6e6
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, eq=False)
class Gathered:
    """A problem, and what its names stand for. ``deployments`` are those of ``problem.models``, in their order;
    ``estimate_s`` is `ways.estimated` of all sites; ``faulty`` are models whose version cannot be loaded anywhere."""

    problem: Problem
    state: DesiredState
    grounds: Grounds
    deployments: tuple[Deployment, ...]
    estimate_s: Floats
    faulty: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Ruled:
    """What the desired state and its releases say of a problem, whatever nodes report. Costly to make, good to keep.

    Attributes:
        deployments: those whose version is released, by model.
        size_bytes: float64[M]: of their releases.
        eligible, pinned: bool[S, M]: as in `problem.Problem`.
    """

    state: DesiredState
    grounds: Grounds
    deployments: tuple[Deployment, ...]
    size_bytes: Floats
    eligible: Truths
    pinned: Truths

    @classmethod
    def of(cls, state: DesiredState, releases: Iterable[SeenRelease]) -> "Ruled":
        """Models whose version is not released are left out: nothing can be moved."""
        sizes = {(release.model, release.version): release.size_bytes for release in releases}
        released = (item for item in state.deployments if (item.spec.model, item.spec.version) in sizes)
        deployments = tuple(sorted(released, key=lambda item: item.spec.model))
        size = np.array([sizes[item.spec.model, item.spec.version] for item in deployments], dtype=np.float64)
        grounds = grounds_of(state)
        return cls(state, grounds, deployments, size, *_places(state.sites, deployments, grounds))


def gather(snapshot: Snapshot, estimate_s: Floats | None = None, ruled: Ruled | None = None) -> Gathered:
    """The problem that ``snapshot`` poses.

    Args:
        snapshot: the fleet.
        estimate_s: `ways.estimated` of the snapshot's sites and ``learned``, where the caller has it already.
        ruled: of the snapshot's resources and releases, where the caller has it already.

    Cost: O(sites^2 + sites x models), and that of the estimate.
    """
    if ruled is None:
        ruled = Ruled.of(snapshot.state(), snapshot.releases)
    if estimate_s is None:
        estimate_s = estimated(ruled.state.sites, snapshot.learned)
    nodes = _Nodes(ruled.state.sites, ruled.deployments, snapshot.nodes)
    unable, faulty = _unable(snapshot.failures, ruled, nodes)
    problem = _problem(snapshot, ruled, nodes, unable, estimate_s)
    return Gathered(problem, ruled.state, ruled.grounds, ruled.deployments, estimate_s, faulty)


def _problem(snapshot: Snapshot, ruled: Ruled, nodes: "_Nodes", unable: Truths, estimate_s: Floats) -> Problem:
    """What is ruled, and what ``nodes`` told, as arrays; nothing is served where sites are ``unable`` to load it."""
    sites, deployments, classes = ruled.state.sites, ruled.deployments, ruled.grounds.classes
    models = tuple(item.spec.model for item in deployments)
    service_s, work_s, full_s = _times(nodes, ruled.size_bytes)
    service_s[unable] = work_s[unable] = full_s[unable] = np.inf
    demand, payload = _demand(snapshot, nodes.index, models)
    bytes_per_s = _link_rates(sites)
    least, most = _bounds(deployments, len(sites))
    urgency = np.array([URGENCY[item.spec.objective] for item in deployments], dtype=np.float64)
    return Problem(
        sites=tuple(site.name for site in sites),
        models=models,
        demand_per_s=demand,
        round_trip_s=round_trips(sites, snapshot.ways, estimate_s),
        bytes_per_s=bytes_per_s,
        payload_bytes=payload,
        service_s=service_s,
        work_s=work_s,
        full_s=full_s,
        workers=nodes.workers,
        memory_bytes=nodes.memory_bytes,
        footprint_bytes=_footprint(nodes, ruled.size_bytes),
        eligible=ruled.eligible,
        pinned=ruled.pinned,
        warm=nodes.warm,
        move_s=_move_s(nodes, ruled.size_bytes, bytes_per_s),
        least=least,
        most=most,
        site_class=classes.site_class,
        may=classes.may,
        rule_set=np.array([classes.rule_set[model] for model in models], dtype=np.int32),
        target_s=np.array([item.spec.target_s for item in deployments], dtype=np.float64),
        weight=urgency ** np.where(urgency < 1.0, _scarcity(demand, work_s, ruled.eligible, nodes.workers), 1.0),
        urgency=urgency,
        extra_s=_extra(sites, deployments, work_s),
    )


def _unable(failures: Iterable[SeenFailure], ruled: Ruled, nodes: "_Nodes") -> tuple[Truths, frozenset[str]]:
    """bool[S, M]: what sites proved unable to load; and the models whose version is at fault itself.

    A version that fails wherever it is tried, and is loaded nowhere, is not carried on from site to site: each would
    fail too, and each step is a new plan for everybody. It stays where it is best, and is tried there again.
    """
    column = {(item.spec.model, item.spec.version): n for n, item in enumerate(ruled.deployments)}
    unable = np.zeros(ruled.eligible.shape, dtype=np.bool_)
    for failure in failures:
        to, at = column.get((failure.model, failure.version)), nodes.index.get(failure.site)
        if to is not None and at is not None:
            unable[at, to] = True
    everywhere = ~(ruled.eligible & ~unable).any(axis=0)
    loaded = (nodes.warm | np.isfinite(nodes.service_s)).any(axis=0)  # who tells what it costs has loaded it once
    faulty = unable.any(axis=0) & ((unable.sum(axis=0) >= FAULTY_SITES) | everywhere) & ~loaded
    return unable & ~faulty, frozenset(ruled.deployments[n].spec.model for n in np.flatnonzero(faulty))


class _Nodes:
    """What nodes told, added up by site; only nodes that may be asked count.

    Attributes:
        workers, memory_bytes: float64[S]. Every node of a site holds every model of it, so the least memory binds.
        warm: bool[S, M]: a node serves the deployment's version.
        service_s, work_s, full_s: float64[S, M]: means over the site's nodes; nan where nobody has measured.
        footprint_bytes, load_s: float64[M]: the largest that anybody told; 0 where nobody has.
    """

    def __init__(self, sites: Sequence[Site], deployments: Sequence[Deployment], seen: Sequence[SeenNode]) -> None:
        shape = (len(sites), len(deployments))
        self.index: dict[str, int] = {site.name: n for n, site in enumerate(sites)}
        self._column = {item.spec.model: n for n, item in enumerate(deployments)}
        self._versions = [item.spec.version for item in deployments]
        self.workers: Floats = np.zeros(shape[0])
        self.memory_bytes: Floats = np.full(shape[0], UNKNOWN_MEMORY_BYTES)
        self.warm: Truths = np.zeros(shape, dtype=np.bool_)
        self.footprint_bytes: Floats = np.zeros(shape[1])
        self.load_s: Floats = np.zeros(shape[1])
        sums, counts = np.zeros((3, *shape)), np.zeros(shape)
        for node in seen:
            if node.site in self.index:
                self._add(node, sums, counts)
        with np.errstate(invalid="ignore"):
            self.service_s: Floats = np.where(counts > 0, sums[0] / counts, np.nan)
            self.work_s: Floats = np.where(counts > 0, sums[1] / counts, np.nan)
            self.full_s: Floats = np.where(counts > 0, sums[2] / counts, np.nan)

    def _add(self, node: SeenNode, sums: Floats, counts: Floats) -> None:
        at = self.index[node.site]
        can_serve = node.connected and not node.draining
        if can_serve:
            self.workers[at] += min(max(node.workers, LEAST_WORKERS), MOST_WORKERS) if node.workers else UNKNOWN_WORKERS
            if node.memory_bytes:
                self.memory_bytes[at] = min(self.memory_bytes[at], float(node.memory_bytes))
        for held in node.models:
            to = self._column.get(held.model)
            if to is None or held.version != self._versions[to]:
                continue
            self.warm[at, to] |= held.is_ready and can_serve
            self._learn(held, at, to, sums, counts)

    def _learn(self, held: SeenModel, at: int, to: int, sums: Floats, counts: Floats) -> None:
        self.footprint_bytes[to] = max(self.footprint_bytes[to], float(held.footprint_bytes))
        self.load_s[to] = max(self.load_s[to], held.load_s)
        if held.service_s > 0.0:
            service_s = min(max(held.service_s, LEAST_SERVICE_S), MOST_SERVICE_S)
            sums[0, at, to] += service_s
            sums[1, at, to] += min(max(held.work_s or held.service_s, LEAST_SERVICE_S), MOST_SERVICE_S)
            sums[2, at, to] += min(max(held.full_s, service_s), MOST_SERVICE_S)
            counts[at, to] += 1


def _times(nodes: _Nodes, size: Floats) -> tuple[Floats, Floats, Floats]:
    """Service, work and service in full batches everywhere: measured, else scaled from elsewhere, else by size."""
    by_size = UNKNOWN_SERVICE_S + size / READ_BYTES_PER_S
    known = np.isfinite(nodes.service_s)
    usual = np.array([_median(nodes.service_s[known[:, m], m], by_size[m]) for m in range(len(size))])
    usual_work = np.array([_median(nodes.work_s[known[:, m], m], usual[m]) for m in range(len(size))])
    slowness = np.array(
        [_median(nodes.service_s[s, known[s]] / usual[known[s]], 1.0) for s in range(len(nodes.workers))]
    )
    service_s = np.where(known, nodes.service_s, slowness[:, None] * usual[None, :])
    work_s = np.where(known, nodes.work_s, slowness[:, None] * usual_work[None, :])
    usual_full = np.array([_median(nodes.full_s[known[:, m], m], usual[m]) for m in range(len(size))])
    full_s = np.where(known, nodes.full_s, slowness[:, None] * usual_full[None, :])
    return service_s, work_s, np.maximum(full_s, service_s)


def _link_rates(sites: Sequence[Site]) -> Floats:
    """float64[S]: bytes per second of each site's link; inf where none is named."""
    return np.array([site.spec.link.mbps * 1e6 / 8 if site.spec.link else np.inf for site in sites], dtype=np.float64)


def _footprint(nodes: _Nodes, size: Floats) -> Floats:
    """float64[M]: bytes of memory that a loaded model takes: as told, else by its size."""
    found: Floats = np.where(nodes.footprint_bytes > 0, nodes.footprint_bytes, size * FOOTPRINT_RATIO)
    return found


def _move_s(nodes: _Nodes, size: Floats, bytes_per_s: Floats) -> Floats:
    """float64[S, M]: seconds to fetch and load each model at each site."""
    load_s = np.where(nodes.load_s > 0, nodes.load_s, LOAD_S + size / LOAD_BYTES_PER_S)
    found: Floats = load_s[None, :] + size[None, :] / bytes_per_s[:, None]
    return found


def _bounds(deployments: Sequence[Deployment], count: int) -> tuple[Indices, Indices]:
    """int32[M], int32[M]: the least and the greatest number of sites, of ``count``, that each deployment asks for."""
    auto = [item.spec.placement.auto for item in deployments]
    least = np.array([item.min_sites if item else 0 for item in auto], dtype=np.int32)
    most = np.array([(item.max_sites or count) if item else count for item in auto], dtype=np.int32)
    return least, most


def _median(values: Floats, default: float) -> float:
    return float(np.median(values)) if len(values) else float(default)


def _places(sites: Sequence[Site], deployments: Sequence[Deployment], grounds: Grounds) -> tuple[Truths, Truths]:
    """Which sites may hold each model, and which must."""
    index = {site.name: n for n, site in enumerate(sites)}
    eligible = np.zeros((len(sites), len(deployments)), dtype=np.bool_)
    pinned = np.zeros_like(eligible)
    for column, item in enumerate(deployments):
        where = placed(item, grounds, {})
        eligible[[index[name] for name in where.open], column] = True
        pinned[[index[name] for name in where.sites], column] = True
    return eligible, pinned


def _demand(snapshot: Snapshot, index: Mapping[str, int], models: Sequence[str]) -> tuple[Floats, Floats]:
    """Requests per second by site and model, and mean bytes of a request and its answer by model."""
    column = {model: n for n, model in enumerate(models)}
    demand = np.zeros((len(index), len(models)))
    carried = np.zeros(len(models))
    for seen in snapshot.demand:
        at, to = index.get(seen.site), column.get(seen.model)
        if at is not None and to is not None and seen.rate_per_s > 0.0:
            demand[at, to] += seen.rate_per_s
            carried[to] += seen.rate_per_s * (seen.request_bytes + seen.answer_bytes)
    total = demand.sum(axis=0)
    payload: Floats = np.divide(carried, total, out=np.zeros_like(carried), where=total > 0)
    return demand, payload


def _scarcity(demand: Floats, work_s: Floats, eligible: Truths, workers: Floats) -> float:
    """0 where the fleet has room for all, 1 where it is full: whether who may wait must.

    While there is room, a second counts for a request of class ``batch`` as for an interactive one: it takes the faster
    place where nobody loses by it. How busy the fleet is follows from its demand alone, as if that for each model were
    spread over all places that may hold it, as far as they can serve it.
    """
    able = eligible & np.isfinite(work_s) & (workers > 0.0)[:, None]
    rate = np.where(able, workers[:, None] / np.where(able, work_s, 1.0), 0.0).sum(axis=0)
    part = np.divide(demand.sum(axis=0), rate, out=np.zeros_like(rate), where=rate > 0.0)
    used = workers[able.any(axis=1)].sum()
    busy = float((able * part).sum(axis=1) @ workers) / used if used > 0.0 else 0.0
    return float(np.clip((busy - ROOMY) / (SCARCE - ROOMY), 0.0, 1.0))


def _extra(sites: Sequence[Site], deployments: Sequence[Deployment], work_s: Floats) -> Floats:
    """Price, energy and carbon of one request, in seconds by the deployments' weights."""
    work = np.where(np.isfinite(work_s), work_s, 0.0)
    rates = np.array([(site.spec.rates.price, site.spec.rates.energy, site.spec.rates.carbon) for site in sites])
    rates = rates.reshape(len(sites), 3)
    weights = np.array([(w.price, w.energy, w.carbon) for w in (item.spec.weights for item in deployments)])
    weights = weights.reshape(len(deployments), 3)
    units = np.stack([rates[:, 0] / _HOUR_S, rates[:, 1], rates[:, 1] * rates[:, 2] / _JOULES_PER_KWH], axis=1)
    found: Floats = work * (units @ weights.T)
    return found
