"""What a node tells about itself: the document, and which of its changes are worth telling at once. Pure.

A model version is ``ready`` only when new requests reach it: loaded, and in a configuration that the gateway confirmed.
Versions that only drain are told as ``draining``; the last good version of a model whose wanted one has failed is
``ready`` beside the failed one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nearcast.agent.demand import TIME_CONSTANT_S
from nearcast.agent.estimate import Estimate
from nearcast.agent.reconcile import is_active, is_renamed, wanted
from nearcast.agent.states import Failure, Key, Phase, State, Unit
from nearcast.planning.holding import left_out
from nearcast.planning.routes import RouteTable
from nearcast.resources.load import LoadReport
from nearcast.resources.plan import drains
from nearcast.resources.status import (
    DRAINED,
    ConditionReport,
    EngineStatus,
    GatewayStatus,
    ModelDemand,
    ModelProfile,
    ModelState,
    ModelStatus,
    NodeCapacity,
    NodeStatus,
    PeerObservation,
)

MOVED_RATIO: Final = 1.25
MOVED_S: Final = 0.002
"""Round trips that differ by less are the same for whoever reads them."""
MOVED_PER_S: Final = 1.0
"""Demands that differ by less are the same."""
CHANCE: Final = 3.0
"""Standard deviations by which a demand must have changed: a few requests per second come unevenly by nature."""
MOVED_UTILIZATION: Final = 0.2
RULES: Final = "RulesHold"
MAX_NAMED: Final = 3
"""Places that the message of a condition names."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is observed of the node beside its state.

    Attributes:
        url, peer_address: where its gateway is reached.
        accepted: version of the configuration that the gateway confirmed; empty while none is in force.
        routes: the table in force.
        load: of the engine.
        estimates: of the peers.
        engine_restarts: since this agent started.
        troubles: conditions of the shell (uplink, certificate), as they stand.
        now_s: on the clock of the estimates.
        demand, profiles, capacity: see `NodeStatus`.
    """

    url: str
    peer_address: str
    accepted: str
    routes: RouteTable
    load: LoadReport | None
    estimates: Mapping[str, Estimate]
    engine_restarts: int
    troubles: tuple[ConditionReport, ...]
    now_s: float
    demand: Mapping[str, ModelDemand] = field(default_factory=dict)
    profiles: tuple[ModelProfile, ...] = ()
    capacity: NodeCapacity | None = None


def node_status(site: str, node: str, software: str, started_at: str, state: State, vitals: Vitals) -> NodeStatus:
    """The status of a node, whole."""
    plan = state.plan
    routes = {model: route.shares for model, route in vitals.routes.models.items() if route.shares}
    return NodeStatus(
        site=site,
        node=node,
        software=software,
        started_at=started_at,
        plan_version=plan.version if plan else 0,
        plan_revision=plan.revision if plan else "",
        routed_version=state.accepted.plan.version if state.accepted else -1,
        gateway=_gateway(state, vitals),
        engine=EngineStatus(
            ready=state.engine is not None,
            restarts=vitals.engine_restarts,
            message="" if state.engine is not None else "the engine does not run",
        ),
        models=tuple(_model(state, unit) for _, unit in sorted(state.units.items())),
        load=vitals.load,
        peers=tuple(item.report(site, vitals.now_s) for site, item in sorted(vitals.estimates.items())),
        routes=routes,
        conditions=_conditions(state, vitals.troubles),
        demand=dict(vitals.demand),
        profiles=vitals.profiles,
        capacity=vitals.capacity,
    )


def urgent(status: NodeStatus) -> tuple[object, ...]:
    """What of a status is told at once when it changes: standing, not figures."""
    return (
        status.plan_version,
        status.routed_version,
        status.gateway.ready,
        status.gateway.message,
        status.engine,
        tuple((item.model, item.version, item.state, item.reason) for item in status.models),
        tuple((item.site, item.reachable) for item in status.peers),
        tuple((item.type, item.status, item.reason) for item in status.conditions),
    )


def has_moved(before: NodeStatus | None, after: NodeStatus) -> bool:
    """Whether figures differ so much that somebody who plans, or looks at routes, would see another picture."""
    if before is None or before.routes != after.routes or _loaded(before.load) != _loaded(after.load):
        return True
    if _profiled(before) != _profiled(after) or _busier(before.load, after.load):
        return True
    if any(
        _asked_moved(before.demand.get(model), after.demand.get(model)) for model in {*before.demand, *after.demand}
    ):
        return True
    known = {item.site: item for item in before.peers}
    return any(item.site not in known or _peer_moved(known[item.site], item) for item in after.peers)


def _peer_moved(before: PeerObservation, after: PeerObservation) -> bool:
    low, high = sorted((before.round_trip_s, after.round_trip_s))
    return high > low * MOVED_RATIO + MOVED_S or _loaded(before.load) != _loaded(after.load)


def _asked_moved(before: ModelDemand | None, after: ModelDemand | None) -> bool:
    """Whether a demand has clearly changed: by a quarter, by a request per second, and by more than chance.

    The difference of two averages of a stream that comes at random has a variance of the rate over the time constant.
    Sizes are sampled, so they may come a while after the rate: the first ones are news, too.
    """
    if before is not None and after is not None and before.answer_bytes == 0.0 < after.answer_bytes:
        return True
    low, high = sorted((before.rate_per_s if before else 0.0, after.rate_per_s if after else 0.0))
    by_chance = CHANCE * math.sqrt(high / TIME_CONSTANT_S)
    return high > low * MOVED_RATIO and high - low > max(MOVED_PER_S, by_chance)


def _busier(before: LoadReport | None, after: LoadReport | None) -> bool:
    one, other = (0.0 if load is None else load.application_utilization for load in (before, after))
    return abs(one - other) > MOVED_UTILIZATION


def _profiled(status: NodeStatus) -> tuple[object, ...]:
    """What there are profiles of, and whether there is a capacity; what they say moves slowly."""
    return status.capacity is None, tuple((item.model, item.version) for item in status.profiles)


def _loaded(load: LoadReport | None) -> set[str]:
    """The models that a load report is about."""
    return set() if load is None else {name.rpartition(".")[0] for name in load.named_metrics}


def _gateway(state: State, vitals: Vitals) -> GatewayStatus:
    ready = state.gateway_up and state.gateway_confirmed
    message = ""
    if state.gateway_failure is not None:
        message = state.gateway_failure.message
    elif not ready:
        message = "no plan yet" if state.plan is None else "no route table was confirmed yet"
    return GatewayStatus(
        url=vitals.url, peer_address=vitals.peer_address, ready=ready, accepted=vitals.accepted, message=message
    )


def _model(state: State, unit: Unit) -> ModelStatus:
    failure = unit.failure
    standing = _standing(state, unit)
    told = failure if failure is not None and standing in {"failed", "fetching", "loading"} else None
    return ModelStatus(
        model=unit.key.model,
        version=unit.key.version,
        release=unit.release,
        state=standing,
        reason=told.reason if told else "",
        message=told.message if told else "",
        done_bytes=unit.done_bytes,
        total_bytes=unit.total_bytes,
    )


def _standing(state: State, unit: Unit) -> ModelState:
    if is_renamed(unit):
        return "failed"
    if is_active(state, unit.key):
        return "ready"
    if unit.phase is Phase.UNLOADING or (unit.phase is Phase.LOADED and not _shall_serve(state, unit.key)):
        return "draining"
    if unit.failure is not None:
        return "failed"
    return "fetching" if unit.phase in {Phase.ABSENT, Phase.FETCHING} else "loading"


def _shall_serve(state: State, key: Key) -> bool:
    offered = state.offered
    return key in wanted(state) or (offered is not None and offered.active.get(key.model) == key.version)


def _conditions(state: State, troubles: tuple[ConditionReport, ...]) -> tuple[ConditionReport, ...]:
    found = [
        _condition("PlanTrusted", state.plan_trouble),
        _condition("GatewayConfigured", state.gateway_failure),
        _ruled(state),
        _drained(state),
    ]
    return (*(item for item in found if item is not None), *troubles)


def _ruled(state: State) -> ConditionReport | None:
    """Places that the plan in force names and its own rules bar: their requests go elsewhere, or are refused."""
    found = left_out(state.plan) if state.plan is not None else ()
    if not found:
        return None
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    message = "the plan names places that its own rules bar; they are not asked: "
    message += "; ".join(str(item) for item in found[:MAX_NAMED]) + more
    return ConditionReport(type=RULES, status=False, reason="BarredPlaces", message=message)


def _drained(state: State) -> ConditionReport | None:
    """How far a node that drains has come: its gateway runs the plan that says so, and its engine is empty."""
    if state.plan is None or not drains(state.plan, state.node):
        return None
    held = sorted(str(unit.key) for unit in state.units.values())
    follows = state.accepted is not None and drains(state.accepted.plan, state.node)
    if held or not follows:
        message = f"finishes what is in flight at {', '.join(held)}" if held else "routes are being moved away"
        return ConditionReport(type=DRAINED, status=False, reason="Draining", message=message)
    return ConditionReport(type=DRAINED, status=True, reason="Empty", message="serves no model; its gateway answers")


def _condition(kind: str, failure: Failure | None) -> ConditionReport | None:
    if failure is None:
        return None
    return ConditionReport(type=kind, status=False, reason=failure.reason, message=failure.message)
