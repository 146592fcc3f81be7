"""The scenario's fleet as what the control plane of a real one holds: resources, releases, and a snapshot of a moment.

Through it the twin plans with the very code of the control plane, from the snapshot on (`planning.fleet.decision`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from nearcast.planning.fleet.snapshot import (
    SeenDemand,
    SeenFailure,
    SeenModel,
    SeenNode,
    SeenRelease,
    SeenWay,
    Snapshot,
)
from nearcast.resources.kinds import API_VERSION
from nearcast.resources.state import DesiredState
from nearcast.twin.moment import Moment
from nearcast.twin.scenario import NamedPolicy, ScenarioSpec
from nearcast.twin.sites import TwinSite
from nearcast.twin.world import Floats, Truths, World

VERSION: Final = "1"
FLEET: Final = "twin"
NODE: Final = "node"
AT: Final = "2026-01-01T00:00:00Z"
"""The twin has no calendar; planning does not read this."""


@dataclass(frozen=True, eq=False)
class Fleet:
    """What is desired, and what does not change while the twin runs.

    Attributes:
        resources: documents of all resources, by kind and name.
        releases: of every model.
        sites, models: names in the order of the world.
        versions: model -> the version that its deployment wants.
    """

    resources: tuple[dict[str, Any], ...]
    releases: tuple[SeenRelease, ...]
    sites: tuple[str, ...]
    models: tuple[str, ...]
    versions: dict[str, str]

    def state(self) -> DesiredState:
        """The desired state."""
        return Snapshot(fleet=FLEET, at=AT, resources=self.resources).state()


def fleet_of(spec: ScenarioSpec, world: World) -> Fleet:
    """The fleet of a scenario: the planner places every model (``auto``), within its tiers and numbers."""
    sites = [_site(site, world, at) for at, site in enumerate(world.sites)]
    models = [_document("Model", model.name, {}) for model in world.models]
    deployments = [
        _document(
            "Deployment",
            model.name,
            {
                "model": model.name,
                "version": VERSION,
                "objective": model.objective,
                "latencyTarget": f"{model.target_ms:.3f}ms",
                "placement": {
                    "auto": {
                        **({"tiers": list(model.tiers)} if model.tiers else {}),
                        "minSites": min(model.least, len(world.sites)),
                        "maxSites": min(model.most, len(world.sites)),
                    }
                },
            },
        )
        for model in world.models
    ]
    policies = [_policy(policy) for policy in spec.policies]
    return Fleet(
        resources=(*sites, *models, *deployments, *policies),
        releases=tuple(SeenRelease(model.name, VERSION, int(model.footprint_gb * 1e9)) for model in world.models),
        sites=world.problem.sites,
        models=world.problem.models,
        versions={model.name: VERSION for model in world.models},
    )


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _site(site: TwinSite, world: World, at: int) -> dict[str, Any]:
    facts = site.facts
    claimed = [group for group in facts.jurisdictions if group not in ("EU", "EEA")]
    return _document(
        "Site",
        facts.name,
        {
            "country": facts.country,
            "tier": facts.tier,
            "location": {"latitude": float(site.latitude), "longitude": float(site.longitude)},
            "link": {"mbps": float(site.bytes_per_s * 8 / 1e6)},
            "rates": {"price": float(world.price_per_worker_s[at] * 3600.0)},
            **({"jurisdictions": claimed} if claimed else {}),
        },
    )


def _policy(policy: NamedPolicy) -> dict[str, Any]:
    spec = {
        "match": policy.match.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "residency": policy.residency.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }
    return _document("Policy", policy.name, spec)


def snapshot_of(fleet: Fleet, world: World, moment: Moment, serving: Truths, connected: Truths) -> Snapshot:
    """What the control plane knows at a moment: as old as telemetry, and only of sites that it reaches.

    Args:
        fleet: what is desired.
        world: the true fleet; its node profiles are taken to be known, from earlier loads.
        moment: what was told.
        serving: bool[S, M]: what each site has told to be ready.
        connected: bool[S]: sites that the control plane reaches.
    """
    demand = moment.demand()
    return Snapshot(
        fleet=FLEET,
        at=AT,
        resources=fleet.resources,
        releases=fleet.releases,
        nodes=tuple(_node(fleet, world, at, serving[at], bool(connected[at])) for at in range(len(fleet.sites))),
        demand=tuple(_demands(fleet, world, demand, connected)),
        ways=tuple(_ways(fleet, world, moment, connected)),
        failures=tuple(
            SeenFailure(fleet.sites[at], fleet.models[to], fleet.versions[fleet.models[to]])
            for at, to in zip(*np.nonzero(~np.isfinite(world.problem.service_s)), strict=True)
        ),
    )


def _node(fleet: Fleet, world: World, at: int, serving: Truths, connected: bool) -> SeenNode:
    problem = world.problem
    return SeenNode(
        site=fleet.sites[at],
        node=NODE,
        connected=connected,
        draining=False,
        workers=float(problem.workers[at]),
        memory_bytes=int(problem.memory_bytes[at]),
        device="cpu",
        models=tuple(
            SeenModel(
                model=name,
                version=fleet.versions[name],
                is_ready=bool(serving[to]),
                service_s=float(problem.service_s[at, to]),
                work_s=float(problem.work_s[at, to]),
                footprint_bytes=int(problem.footprint_bytes[to]),
                load_s=float(problem.move_s[at, to]),
                full_s=float(problem.full_s[at, to]),
            )
            for to, name in enumerate(fleet.models)
            if np.isfinite(problem.service_s[at, to])
        ),
    )


def _demands(fleet: Fleet, world: World, demand: Floats, connected: Truths) -> Iterable[SeenDemand]:
    for at, to in zip(*np.nonzero(demand * connected[:, None]), strict=True):
        model = world.models[int(to)]
        yield SeenDemand(
            fleet.sites[at], fleet.models[to], float(demand[at, to]), model.request_bytes, model.answer_bytes
        )


def _ways(fleet: Fleet, world: World, moment: Moment, connected: Truths) -> Iterable[SeenWay]:
    """Round trips as sites measured them. Where coordinates say the same (fibre), only what is broken is told."""
    believed = moment.believed()
    count = len(fleet.sites)
    told = np.ones((count, count), dtype=np.bool_) if world.measured else ~believed
    told &= connected[:, None] & connected[None, :]
    np.fill_diagonal(told, False)
    for at, to in zip(*np.nonzero(told), strict=True):
        yield SeenWay(fleet.sites[at], fleet.sites[to], float(world.round_trip_s[at, to]), 1.0, bool(believed[at, to]))
