"""The twin of a running fleet: its snapshot becomes a world, and a change is run beside what is there now.

Decides what is assumed where a snapshot says nothing: batches by the two figures of a profile, room of the queues, no
failures. Demand stays what it was; a model that nobody asked for yet is asked for by nobody here, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from nearcast.errors import Bug, InvalidInput
from nearcast.planning.fleet.gather import Gathered, gather
from nearcast.planning.fleet.problem import Problem
from nearcast.planning.fleet.snapshot import Snapshot
from nearcast.planning.fleet.ways import guessed
from nearcast.resources.kinds import AnyResource, Metadata, Site, to_document
from nearcast.twin.compare import Comparison, Progress, Stage, fitting, run_with
from nearcast.twin.desired import Fleet
from nearcast.twin.measures import curves, figures
from nearcast.twin.names import OURS
from nearcast.twin.ours import Nearcast
from nearcast.twin.outages import Outages
from nearcast.twin.scenario import Demand, NodeClass, Scenario, ScenarioSpec, SiteGroup, TwinModel
from nearcast.twin.sites import TwinSite
from nearcast.twin.workload import draw
from nearcast.twin.world import Data, World, fleet_capacity

NODE: Final = "node"
BATCH: Final = 8
"""Requests in a batch that reaches the work per request, where a profile does not say how long a full one lasts."""
MOST: Final = 64
ROOM: Final = 64
NOW, CHANGED = "nearcast, now", "nearcast, changed"


@dataclass(frozen=True, eq=False)
class LiveStage:
    """A stage out of a snapshot, with the fleet's own resources."""

    stage: Stage
    fleet: Fleet


def changed(snapshot: Snapshot, resources: Iterable[AnyResource]) -> Snapshot:
    """``snapshot`` as it would be with ``resources`` applied: each replaces the one of its kind and name."""
    documents = {(str(item["kind"]), str(item["metadata"]["name"])): item for item in snapshot.resources}
    for resource in resources:
        documents[resource.kind, resource.name] = to_document(resource, with_status=False)
    return msgspec.structs.replace(snapshot, resources=tuple(documents[key] for key in sorted(documents)))


def unreleased(snapshot: Snapshot) -> tuple[str, ...]:
    """Deployments whose version the fleet has no release of: they are left out."""
    known = {(release.model, release.version) for release in snapshot.releases}
    wanted = [(item.spec.model, item.spec.version) for item in snapshot.state().deployments]
    return tuple(sorted(f"{model}@{version}" for model, version in wanted if (model, version) not in known))


def live_stage(snapshot: Snapshot, seed: int, duration_s: float, load: float | None = None) -> LiveStage:
    """The fleet of ``snapshot`` as a stage.

    Args:
        snapshot: of a running fleet.
        seed: of the dice.
        duration_s: how long to run; the first quarter, at most 30 s, is not measured.
        load: part of the fleet's capacity, instead of the demand of the snapshot.

    Raises:
        InvalidInput: the fleet serves nothing, or nobody asks.
    """
    gathered = gather(snapshot)
    problem = _able(gathered)
    if not problem.models or not problem.demand_per_s.sum() > 0:
        raise InvalidInput(
            "the snapshot tells of no demand for a released model: there is nothing to simulate",
            hint="take it while clients ask",
        )
    capacity = fleet_capacity(problem)
    if load is not None:
        scale = load * capacity / float(problem.demand_per_s.sum())
        problem = replace(problem, demand_per_s=problem.demand_per_s * scale)
    models = tuple(_model(gathered, problem, to) for to in range(len(problem.models)))
    world = _world(gathered, problem, models, capacity)
    spec = _spec(models, world, seed, duration_s)
    stage = Stage(spec, world, draw(spec, world, Data(), seed), Outages(), fitting(world))
    versions = {item.spec.model: item.spec.version for item in gathered.deployments}
    fleet = Fleet(snapshot.resources, snapshot.releases, problem.sites, problem.models, versions)
    return LiveStage(stage, fleet)


def what_if(before: LiveStage | None, after: LiveStage | None, progress: Progress | None = None) -> Comparison:
    """Those of both fleets that there are, under nearcast; the rows are called :data:`NOW` and :data:`CHANGED`.

    Raises:
        Bug: there is neither.
    """
    last = after or before
    if last is None:
        raise Bug("expected a fleet to run, got none")
    found, drawn = [], []
    for name, live in ((NOW, before), (CHANGED, after)):
        if live is None:
            continue
        stage = live.stage
        policy = Nearcast(OURS, live.fleet, stage.world, stage.spec.control)
        outcome = run_with(stage, stage.world, policy, name, progress)
        one = figures(outcome, stage.world, stage.workload, stage.spec)
        found.append(msgspec.structs.replace(one, policy=name))
        drawn.append(msgspec.structs.replace(curves(outcome, stage.world, stage.workload, stage.spec), policy=name))
    earlier = before.stage if before is not None and after is not None else None
    return Comparison(last.stage, tuple(found), tuple(drawn), None, earlier)


def _able(gathered: Gathered) -> Problem:
    """The problem with whole workers, and ways everywhere: who could not be reached a moment ago may be again."""
    problem = gathered.problem
    way_s = np.where(np.isfinite(problem.round_trip_s), problem.round_trip_s, guessed(gathered.state.sites))
    rate = np.minimum(problem.bytes_per_s, 1e12)
    return replace(problem, round_trip_s=way_s, bytes_per_s=rate, workers=np.ceil(problem.workers))


def _model(gathered: Gathered, problem: Problem, to: int) -> TwinModel:
    spec = gathered.deployments[to].spec
    return TwinModel(
        name=problem.models[to],
        objective=spec.objective,
        target_ms=float(problem.target_s[to] * 1000.0),
        request_bytes=float(problem.payload_bytes[to]),
        answer_bytes=0.0,
        footprint_gb=float(problem.footprint_bytes[to] / 1e9),
        service={NODE: ((1, 1.0),)},
        room=ROOM,
    )


def _curve(service_s: float, work_s: float, full_s: float) -> tuple[float, ...]:
    """A line from one request to a full batch at the profile's work per request."""
    if not np.isfinite(service_s):
        return ()
    if work_s >= service_s:
        return (service_s,)
    size = min(max(2, round(full_s / work_s)), MOST) if full_s > service_s else BATCH
    last_s = max(service_s, size * work_s)
    return tuple(float(time) for time in np.linspace(service_s, last_s, size))


def _site(site: Site, rate: float) -> TwinSite:
    place = site.spec.location
    return TwinSite(
        facts=site.facts(),
        latitude=place.latitude if place else 0.0,
        longitude=place.longitude if place else 0.0,
        population=1.0,
        demand=True,
        node=NODE,
        nodes=1,
        bytes_per_s=rate,
    )


def _world(gathered: Gathered, problem: Problem, models: tuple[TwinModel, ...], capacity: float) -> World:
    count = len(problem.sites)
    curve = tuple(
        tuple(_curve(float(s), float(w), float(f)) for s, w, f in zip(service, work, full, strict=True))
        for service, work, full in zip(problem.service_s, problem.work_s, problem.full_s, strict=True)
    )
    prices = np.array([site.spec.rates.price / 3600.0 for site in gathered.state.sites])
    return World(
        sites=tuple(
            _site(site, float(rate)) for site, rate in zip(gathered.state.sites, problem.bytes_per_s, strict=True)
        ),
        models=models,
        continents=("",) * count,
        problem=problem,
        round_trip_s=problem.round_trip_s,
        measured=True,
        curves=curve,
        rules=gathered.grounds.rules,
        price_per_worker_s=prices,
        price_per_byte=0.0,
        capacity_per_s=capacity,
    )


def _spec(models: tuple[TwinModel, ...], world: World, seed: int, duration_s: float) -> ScenarioSpec:
    """A scenario that says of the run what a snapshot does not; its sites are never read."""
    group = SiteGroup.model_construct(cities=None, named=None, node=NODE)
    return ScenarioSpec.model_construct(
        duration_s=duration_s,
        warm_up_s=min(30.0, duration_s / 4),
        seed=seed,
        sites=(group,),
        nodes={NODE: NodeClass(workers=1, memory_gb=1.0)},
        models=models,
        demand=Demand(rate_per_s=float(world.problem.demand_per_s.sum())),
        about="The running fleet of a snapshot; the demand is what clients asked at that moment.",
    )


def as_scenario(stage: Stage, fleet: str) -> Scenario:
    """What a page and a table say of a run that no scenario describes."""
    return Scenario.model_construct(
        api_version="nearcast.dev/v1alpha1", kind="Scenario", metadata=Metadata(name=fleet), spec=stage.spec
    )
