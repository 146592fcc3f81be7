"""What nodes tell becomes a snapshot of the fleet: demand smoothed, failures and round trips remembered. Pure.

Decides what of a status counts for planning and for how long. Demand rises as fast as nodes report it (they average it
themselves) and falls slowly, so that a pause of a minute takes no capacity back. Times of profiles are averaged over
half a minute: neighbours on a machine make them swing, and shares would swing with them. Round trips are remembered for
days (`planning.network.measurements` bounds them): who measured a site an hour ago measures another one now, and the
network map needs both. Names that no resource has are left out: a node cannot make the control plane remember what
nobody asked for.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from nearcast.control.nodes import NodeView
from nearcast.planning.fleet.snapshot import (
    SeenDemand,
    SeenFailure,
    SeenModel,
    SeenNode,
    SeenRelease,
    SeenWay,
    Snapshot,
)
from nearcast.planning.network.measurements import NOTHING, Measurements, RoundTrip, merged, moved
from nearcast.registry.release_list import ReleaseEntry
from nearcast.resources.kinds import AnyResource, to_document
from nearcast.resources.state import DesiredState
from nearcast.resources.status import ModelDemand, NodeStatus, PeerObservation

LEAST_RATE_PER_S: Final = 0.001
"""Less than a request in a quarter of an hour is no demand."""
MAX_RATE_PER_S: Final = 1e7
MAX_BYTES: Final = 1e12
MAX_ROUND_TRIP_S: Final = 60.0
FAILED_S: Final = 900.0
"""How long a site that could not load a version is not asked to again."""

PROFILE_S: Final = 30.0
"""Time in which what a profile says anew counts by 63 %."""

DemandKey = tuple[str, str]
"""(site, model)."""
ProfileKey = tuple[str, str, str, str]
"""(site, node, model, version)."""
Times = tuple[float, float, float]
"""Seconds of service, of work, and of service in a full batch."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered from one look to the next.

    Attributes:
        at_s: of the look, on a clock that never goes back.
        demand: smoothed.
        failures: until when each is remembered, on that clock.
        times: of loaded models, averaged.
        sites: names, in the order of the indices of ``round_trips``.
        round_trips: what was measured between sites, lately or not, on that clock.
    """

    at_s: float = 0.0
    demand: Mapping[DemandKey, SeenDemand] = field(default_factory=dict)
    failures: Mapping[SeenFailure, float] = field(default_factory=dict)
    times: Mapping[ProfileKey, Times] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    round_trips: Measurements = NOTHING

    @classmethod
    def of(cls, snapshot: Snapshot, now_s: float) -> "Watched":
        """What the replica before us remembered of demand and failures, as its last record tells."""
        return cls(
            now_s,
            {(seen.site, seen.model): seen for seen in snapshot.demand},
            dict.fromkeys(snapshot.failures, now_s + FAILED_S),
        )

    def ways(self) -> tuple[SeenWay, ...]:
        """The round trips that are remembered, with their ages, as a record holds them: figures rounded far within
        what they are worth, so that they pack well."""
        known = self.round_trips
        ages_s = (self.at_s - known.measured_at_s).round()
        rows = zip(
            known.origin.tolist(), known.place.tolist(), known.round_trip_s.tolist(), ages_s.tolist(), strict=True
        )
        return tuple(
            SeenWay(self.sites[origin], self.sites[place], float(f"{seconds:.4g}"), age_s)
            for origin, place, seconds, age_s in rows
        )


def watched(before: Watched, nodes: Iterable[NodeView], state: DesiredState, now_s: float, fall_s: float) -> Watched:
    """What is remembered after a look at ``nodes``; ``fall_s`` is the time in which demand that ended falls by 63 %."""
    statuses = [(node, node.status) for node in nodes if node.status is not None]
    rates: dict[DemandKey, list[ModelDemand]] = {}
    models = {item.spec.model for item in state.deployments}
    for node, status in statuses:
        for model, told in status.demand.items() if node.connected else ():
            if model in models and _is_sound(told):
                rates.setdefault((node.site, model), []).append(told)
    kept = math.exp(-max(0.0, now_s - before.at_s) / fall_s) if fall_s > 0.0 else 0.0
    demand: dict[DemandKey, SeenDemand] = {}
    sites = {site.name for site in state.sites}
    for key in {*before.demand, *rates}:
        if key[0] in sites and key[1] in models:
            smooth = _smoothed(key, before.demand.get(key), rates.get(key, []), kept)
            if smooth.rate_per_s >= LEAST_RATE_PER_S:
                demand[key] = smooth
    remembered = replace(
        before,
        at_s=now_s,
        demand=demand,
        failures=_failures(before, statuses, now_s),
        times=_times(before, statuses, now_s),
    )
    return _with(remembered, tuple(site.name for site in state.sites), _measured(statuses, now_s), now_s)


def recalled(memory: Watched, snapshot: Snapshot, passed_s: float, now_s: float) -> Watched:
    """``memory`` and the round trips that a record remembers whose ``snapshot`` was taken ``passed_s`` ago."""
    since_s = now_s - max(0.0, passed_s) - snapshot.learned_age_s
    named = {name for way in snapshot.learned for name in (way.origin, way.place)}
    told = (RoundTrip(way.origin, way.place, way.round_trip_s, since_s - way.age_s) for way in snapshot.learned)
    return _with(memory, tuple(sorted(named | set(memory.sites))), told, now_s)


def _with(memory: Watched, sites: tuple[str, ...], told: Iterable[RoundTrip], now_s: float) -> Watched:
    """``memory`` of ``sites`` only, with what was ``told`` taken in. Cost: O(N log N) of all that is remembered."""
    index = {name: n for n, name in enumerate(sites)}
    held = memory.round_trips
    if memory.sites != sites:
        held = moved(held, np.array([index.get(name, -1) for name in memory.sites], np.int64))
    return replace(memory, sites=sites, round_trips=merged(held, index, tuple(told), now_s))


def _measured(statuses: list[tuple[NodeView, NodeStatus]], now_s: float) -> Iterator[RoundTrip]:
    """What connected nodes report, as if they did now: a report is a minute old at most."""
    for node, status in statuses:
        for peer in status.peers if node.connected else ():
            if _is_way(peer):
                yield RoundTrip(node.site, peer.site, peer.round_trip_s, now_s - max(0.0, peer.age_s))


def _is_way(peer: PeerObservation) -> bool:
    """Whether it is another site, and its figure can be. Nodes of the own site are no way."""
    return "/" not in peer.site and 0.0 <= peer.round_trip_s <= MAX_ROUND_TRIP_S


def _is_sound(demand: ModelDemand) -> bool:
    sizes = (demand.request_bytes, demand.answer_bytes)
    return 0.0 <= demand.rate_per_s <= MAX_RATE_PER_S and all(0.0 <= size <= MAX_BYTES for size in sizes)


def _smoothed(key: DemandKey, before: SeenDemand | None, now: list[ModelDemand], kept: float) -> SeenDemand:
    rate = sum(item.rate_per_s for item in now)
    held = before.rate_per_s if before is not None else 0.0
    smooth = max(rate, rate + (held - rate) * kept)
    if rate <= 0.0 and before is not None:
        return SeenDemand(*key, smooth, before.request_bytes, before.answer_bytes)
    sent = sum(item.rate_per_s * item.request_bytes for item in now) / rate if rate else 0.0
    got = sum(item.rate_per_s * item.answer_bytes for item in now) / rate if rate else 0.0
    return SeenDemand(*key, smooth, sent, got)


def _times(before: Watched, statuses: list[tuple[NodeView, NodeStatus]], now_s: float) -> dict[ProfileKey, Times]:
    """Times of what is loaded: what was told first as it is, what comes later moves them. 0 is nothing told."""
    kept = math.exp(-max(0.0, now_s - before.at_s) / PROFILE_S)
    found: dict[ProfileKey, Times] = {}
    for node, status in statuses:
        for item in status.profiles:
            key = (node.site, node.node, item.model, item.version)
            told = (item.service_s, item.work_s, item.full_s)
            held = before.times.get(key, (0.0, 0.0, 0.0))
            service_s, work_s, full_s = (_averaged(*pair, kept) for pair in zip(held, told, strict=True))
            found[key] = (service_s, work_s, full_s)
    return found


def _averaged(held_s: float, told_s: float, kept: float) -> float:
    told_s = max(0.0, told_s)
    return told_s + (held_s - told_s) * kept if held_s > 0.0 and told_s > 0.0 else told_s


def _failures(before: Watched, statuses: list[tuple[NodeView, NodeStatus]], now_s: float) -> dict[SeenFailure, float]:
    """As long as a version fails somewhere and is ready nowhere, what it did at other sites before is not forgotten:
    it would be tried there again and again."""
    found = {failure: until_s for failure, until_s in before.failures.items() if until_s > now_s}
    failing, ready = set(), set()
    for node, status in statuses:
        for held in status.models if node.connected else ():
            failure = SeenFailure(node.site, held.model, held.version)
            if held.state == "failed":
                found[failure] = now_s + FAILED_S
                failing.add((held.model, held.version))
            elif held.state == "ready":
                found.pop(failure, None)
                ready.add((held.model, held.version))
    for failure in found:
        if (failure.model, failure.version) in failing - ready:
            found[failure] = now_s + FAILED_S
    return found


def snapshot_of(
    fleet: str,
    at: str,
    state: DesiredState,
    releases: Mapping[tuple[str, str], ReleaseEntry],
    nodes: Iterable[NodeView],
    memory: Watched,
) -> Snapshot:
    """The fleet as planning sees it. Equal fleets make equal snapshots, whatever order things came in."""
    resources: tuple[AnyResource, ...] = (*state.sites, *state.models, *state.deployments, *state.policies)
    views = sorted(nodes, key=lambda node: (node.site, node.node))
    return Snapshot(
        fleet=fleet,
        at=at,
        resources=tuple(to_document(resource, with_status=False) for resource in resources),
        releases=tuple(
            SeenRelease(model, version, entry.size_bytes) for (model, version), entry in sorted(releases.items())
        ),
        nodes=tuple(_node(view, memory.times) for view in views),
        demand=tuple(seen for _, seen in sorted(memory.demand.items())),
        ways=tuple(
            SeenWay(view.site, peer.site, peer.round_trip_s, round(peer.age_s, 1), peer.reachable)
            for view in views
            if view.connected and view.status is not None
            for peer in view.status.peers
            if _is_way(peer)
        ),
        failures=tuple(sorted(memory.failures, key=lambda item: (item.site, item.model, item.version))),
    )


def _node(view: NodeView, times: Mapping[ProfileKey, Times]) -> SeenNode:
    status = view.status
    if status is None:
        return SeenNode(view.site, view.node, view.connected, view.draining)
    profiles = {(item.model, item.version): item for item in status.profiles}
    ready = {(item.model, item.version) for item in status.models if item.state == "ready"}
    models = []
    for key in sorted(profiles.keys() | ready):
        profile = profiles.get(key)
        if profile is None:
            models.append(SeenModel(*key, True))
        else:
            service_s, work_s, full_s = times.get(
                (view.site, view.node, *key), (profile.service_s, profile.work_s, profile.full_s)
            )
            models.append(
                SeenModel(
                    *key,
                    key in ready,
                    max(0.0, float(f"{service_s:.4g}")),
                    max(0.0, float(f"{work_s:.4g}")),
                    max(0, profile.footprint_bytes),
                    max(0.0, profile.load_s),
                    max(0.0, float(f"{full_s:.4g}")),
                )
            )
    capacity = status.capacity
    return SeenNode(
        view.site,
        view.node,
        view.connected,
        view.draining,
        max(0.0, capacity.workers) if capacity else 0.0,
        max(0, capacity.memory_bytes) if capacity else 0,
        capacity.device if capacity else "",
        tuple(models),
    )
