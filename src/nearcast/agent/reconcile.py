"""What a node does next: a state machine over (site plan, files on disk, engine, gateway). Pure.

It decides: what to fetch, load, route, drain and unload, in which order, and when to try again after a failure. It does
not decide shares and orders of places (`planning.routes`, once per second), nor how any of it is carried out.

``step`` first takes the event in, then derives every command from the state alone. So an event that changes nothing
gives no command (the same plan is a no-op), and an agent that was killed continues from what it finds.

Invariants, held by property tests:
    * A version is offered to the gateway only while the engine serves it.
    * A version is unloaded only when the gateway has confirmed a configuration without it, no other offer with it is
      open, and ``drain_s`` have passed since it left the routes.
    * While the wanted version of a model cannot be served, the last good one is.
    * A model that took its engine down while loading is a suspect: it loads after all others, alone, and ever more
      seldom. Two models that were loading when it happened are both suspects, until one has loaded.
    * When faults stop, the node ends with exactly the plan's versions routed and nothing else loaded.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nearcast.agent.absorb import IN_ENGINE, absorb, put
from nearcast.agent.commands import Abandon, Collect, Command, Fetch, Load, Remember, Route, Unload
from nearcast.agent.states import Blame, Event, Failure, GatewayAccepted, Key, Phase, Serving, State, Unit
from nearcast.resources.plan import drains


def step(state: State, event: Event, now_s: float) -> tuple[State, tuple[Command, ...]]:
    """The next state and what to do about it.

    Args:
        state: as returned by the last step.
        event: what happened; an event that is late or unknown changes nothing.
        now_s: seconds on a clock that never goes back.

    Returns:
        The state, and commands to be carried out, each once. Cost: O(units x log units).
    """
    state = absorb(state, event, now_s)
    if state.plan is None:
        return state, ()
    state, abandoned = _adjust_units(state)
    state = _mark_idle(state, now_s)
    state, fetches = _fetch(state, now_s)
    state, loads = _load(state, now_s)
    state, routes = _route(state, now_s)
    state, unloads = _unload(state, now_s)
    state, collections = _collect(state)
    remembered = _remember(state, event)
    return state, (*abandoned, *fetches, *loads, *routes, *remembered, *unloads, *collections)


def wake_at_s(state: State, now_s: float) -> float | None:
    """When a :class:`Tick` could next change something, or None where only an event can."""
    failures = [state.gateway_failure, *(unit.failure for unit in state.units.values())]
    times = [failure.retry_at_s for failure in failures if failure is not None]
    times += [
        unit.idle_since_s + state.limits.drain_s for unit in state.units.values() if unit.idle_since_s is not None
    ]
    return min((time for time in times if now_s < time < math.inf), default=None)


def wanted(state: State) -> Mapping[Key, str]:
    """The model versions of the plan -> digests of their releases. One version per model: the first that is named.

    None while this node drains: then its models leave the routes, finish what is in flight, and are unloaded.
    """
    releases: dict[Key, str] = {}
    models: set[str] = set()
    if state.plan is None or drains(state.plan, state.node):
        return releases
    for planned in state.plan.models:
        if planned.model not in models:
            models.add(planned.model)
            releases[Key(planned.model, planned.version)] = planned.release
    return releases


def is_active(state: State, key: Key) -> bool:
    """Whether new requests for the model reach this version: loaded, and in what the running gateway confirmed."""
    unit = state.units.get(key)
    if unit is None or unit.phase is not Phase.LOADED or not state.gateway_confirmed or state.accepted is None:
        return False
    return state.accepted.active.get(key.model) == key.version


def _is_due(unit: Unit, now_s: float) -> bool:
    return unit.failure is None or unit.failure.retry_at_s <= now_s


def _needed(state: State) -> dict[Key, str]:
    """What shall be on this node: the plan's versions, and the last good one of a model whose new one is not active."""
    needed = dict(wanted(state))
    for key in list(needed):
        good = state.last_good.get(key.model)
        if good is not None and good.version != key.version and not is_active(state, key):
            needed[Key(key.model, good.version)] = good.release
    return needed


def _adjust_units(state: State) -> tuple[State, tuple[Command, ...]]:
    """Make a unit for everything needed, forget those that nobody needs and that are not in the engine."""
    needed = _needed(state)
    units: dict[Key, Unit] = {}
    abandoned: list[Command] = []
    for key, unit in state.units.items():
        if unit.phase in IN_ENGINE or needed.get(key) == unit.release:
            units[key] = _judge_release(unit, needed.get(key))
        elif unit.phase is Phase.FETCHING:
            abandoned.append(Abandon(key))
    for key, release in needed.items():
        if key not in units:
            units[key] = Unit(key=key, release=release)
    if units == state.units:
        return state, ()
    return replace(state, units=units), tuple(abandoned)


def _judge_release(unit: Unit, release: str | None) -> Unit:
    """A release is immutable: a plan that names another one under a loaded version is told so, and changes nothing."""
    if release is None or release == unit.release:
        return replace(unit, failure=None) if is_renamed(unit) else unit
    if not unit.release:
        return replace(unit, release=release)
    if is_renamed(unit):
        return unit
    message = f"the plan names release {release} for {unit.key}, which runs as {unit.release}; a release is immutable"
    return replace(unit, failure=Failure(Blame.REFUSED, "ReleaseChanged", message, 1, math.inf))


def is_renamed(unit: Unit) -> bool:
    """Whether the plan names another release under this version than the one that was loaded."""
    return unit.failure is not None and unit.failure.reason == "ReleaseChanged"


def _mark_idle(state: State, now_s: float) -> State:
    """Start or stop the drain clock of every loaded version: it runs while no confirmed or open offer routes to it."""
    active = _active(state)
    changed: list[Unit] = []
    for key, unit in state.units.items():
        routed = state.accepted is None or key in state.open_routes | state.accepted.routed
        rests = unit.phase is Phase.LOADED and active.get(key.model) != key.version and not routed
        if rests and unit.idle_since_s is None:
            changed.append(replace(unit, idle_since_s=now_s))
        elif not rests and unit.idle_since_s is not None and unit.phase is not Phase.UNLOADING:
            changed.append(replace(unit, idle_since_s=None))
    return put(state, *changed)


def _fetch(state: State, now_s: float) -> tuple[State, tuple[Command, ...]]:
    first = wanted(state)
    room = state.limits.fetching - sum(unit.phase is Phase.FETCHING for unit in state.units.values())
    due = [unit for unit in state.units.values() if unit.phase is Phase.ABSENT and _is_due(unit, now_s)]
    chosen = sorted(due, key=lambda unit: (unit.key not in first, unit.key))[: max(0, room)]
    state = put(state, *(replace(unit, phase=Phase.FETCHING) for unit in chosen))
    return state, tuple(Fetch(unit.key, unit.release) for unit in chosen)


def _load(state: State, now_s: float) -> tuple[State, tuple[Command, ...]]:
    """Load what is held: the unsuspected first, several at once; then a suspect, alone."""
    if state.engine is None:
        return state, ()
    loading = [unit for unit in state.units.values() if unit.phase is Phase.LOADING]
    due = [unit for unit in state.units.values() if unit.phase is Phase.HELD and _is_due(unit, now_s)]
    trusted = sorted((unit for unit in due if not unit.is_suspect), key=lambda unit: unit.key)
    chosen: list[Unit]
    if any(unit.is_suspect for unit in loading):
        chosen = []
    elif trusted:
        chosen = trusted[: max(0, state.limits.loading - len(loading))]
    else:
        suspects = sorted((unit for unit in due if unit.is_suspect), key=_suspicion)
        chosen = suspects[:1] if not loading else []
    state = put(state, *(replace(unit, phase=Phase.LOADING) for unit in chosen))
    return state, tuple(Load(state.engine or 0, unit.key, unit.release) for unit in chosen)


def _suspicion(unit: Unit) -> tuple[int, Key]:
    return (unit.failure.attempts if unit.failure else 0, unit.key)


def _active(state: State) -> dict[str, str]:
    """Which loaded version of each model of the plan gets new requests: the wanted, else the last good."""
    loaded = {key for key, unit in state.units.items() if unit.phase is Phase.LOADED}
    active: dict[str, str] = {}
    for key in wanted(state):
        good = state.last_good.get(key.model)
        if key in loaded:
            active[key.model] = key.version
        elif good is not None and Key(key.model, good.version) in loaded:
            active[key.model] = good.version
    return active


def _route(state: State, now_s: float) -> tuple[State, tuple[Command, ...]]:
    """Offer the gateway what it shall know, when that differs from the last offer, or a refused offer is due again."""
    if state.plan is None or not state.engine_known:
        return state, ()
    active = _active(state)
    local = frozenset(key for key, unit in state.units.items() if _has_socket(state, unit, active, now_s))
    serving = Serving(plan=state.plan, local=local, active=active)
    failure = state.gateway_failure
    if serving == state.offered and not (failure is not None and failure.retry_at_s <= now_s):
        return state, ()
    generation = state.generation + 1
    before = state.accepted or Serving(plan=state.plan)
    retry = None if failure is None else replace(failure, retry_at_s=math.inf)
    state = replace(
        state,
        generation=generation,
        offered=serving,
        open_local=state.open_local | before.local | serving.local,
        open_routes=state.open_routes | before.routed | serving.routed,
        gateway_failure=retry,
    )
    return state, (Route(generation, serving),)


def _has_socket(state: State, unit: Unit, active: Mapping[str, str], now_s: float) -> bool:
    """Whether the gateway shall keep a cluster for ``unit``: it is loaded, and routed to or still draining."""
    if unit.phase is not Phase.LOADED:
        return False
    if active.get(unit.key.model) == unit.key.version or unit.idle_since_s is None:
        return True
    return now_s - unit.idle_since_s < state.limits.drain_s


def _unload(state: State, now_s: float) -> tuple[State, tuple[Command, ...]]:
    if state.engine is None or state.offered is None or state.accepted is None:
        return state, ()
    shown = state.open_local | state.accepted.local | state.offered.local
    gone = [
        unit
        for unit in state.units.values()
        if unit.phase is Phase.LOADED
        and unit.key not in shown
        and unit.idle_since_s is not None
        and now_s - unit.idle_since_s >= state.limits.drain_s
        and (_is_due(unit, now_s) or is_renamed(unit))
    ]
    state = put(state, *(replace(unit, phase=Phase.UNLOADING) for unit in gone))
    commands = tuple(Unload(state.engine or 0, unit.key, state.limits.engine_drain_s) for unit in gone)
    return state, commands


def _remember(state: State, event: Event) -> tuple[Command, ...]:
    return (Remember(state.last_good),) if isinstance(event, GatewayAccepted) else ()


def _collect(state: State) -> tuple[State, tuple[Command, ...]]:
    """Let unneeded releases go once the node has arrived: before that, the old ones may be needed again."""
    if not all(is_active(state, key) for key in wanted(state)) or not _is_settled(state.units.values()):
        return state, ()
    planned = (
        {planned.release for planned in state.plan.models} if state.plan else set()
    )  # a node may drain for a while
    keep = frozenset(unit.release for unit in state.units.values() if unit.release) | planned
    if keep == state.collected:
        return state, ()
    return replace(state, collected=keep), (Collect(keep),)


def _is_settled(units: Iterable[Unit]) -> bool:
    return all(unit.phase is Phase.LOADED for unit in units)
