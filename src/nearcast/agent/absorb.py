"""What an event says about the state of a node. Pure; the first half of :mod:`nearcast.agent.reconcile`.

It decides what is known after an event: phases, failures and their schedules, who is suspected of a crash. It decides
nothing about what to do next.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from nearcast.agent.states import (
    SCHEDULE,
    Blame,
    EngineLost,
    EngineUp,
    Event,
    Failure,
    Fetched,
    FetchFailed,
    FetchProgressed,
    GatewayAccepted,
    GatewayLost,
    GatewayRefused,
    GatewayUp,
    GoodVersion,
    Key,
    Loaded,
    LoadFailed,
    Phase,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
    Serving,
    State,
    Tick,
    Unit,
    Unloaded,
    UnloadFailed,
)

IN_ENGINE = frozenset({Phase.LOADING, Phase.LOADED, Phase.UNLOADING})


def put(state: State, *units: Unit) -> State:
    """``state`` with ``units`` in place of those of the same key."""
    if not units:
        return state
    return replace(state, units={**state.units, **{unit.key: unit for unit in units}})


def absorb(state: State, event: Event, now_s: float) -> State:
    """``state`` after ``event``; an event that is late, or about something forgotten, changes nothing."""
    match event:
        case Tick():
            return state
        case PlanReceived() | PlanUnchanged() | PlanRefused():
            return _absorb_plan(state, event, now_s)
        case FetchProgressed() | Fetched() | FetchFailed():
            return _absorb_fetch(state, event, now_s)
        case EngineUp() | EngineLost() | Loaded() | LoadFailed() | Unloaded() | UnloadFailed():
            return _absorb_engine(state, event, now_s)
        case GatewayUp() | GatewayLost() | GatewayAccepted() | GatewayRefused():
            return _absorb_gateway(state, event, now_s)
        case _:
            assert_never(event)


def _absorb_plan(state: State, event: PlanReceived | PlanUnchanged | PlanRefused, now_s: float) -> State:
    match event:
        case PlanUnchanged():
            return replace(state, plan_trouble=None)
        case PlanRefused():
            trouble = _failure(state.plan_trouble, event.blame, event.reason, event.message, f"{state.who}/plan", now_s)
            return replace(state, plan_trouble=trouble)
        case PlanReceived(plan):
            if state.plan is not None and plan.version < state.plan.version:
                return state
            if plan == state.plan:
                return replace(state, plan_trouble=None)
            # Somebody changed something: what failed before gets another chance now, except where a try is dangerous.
            forgiven = {key: _retry_now(unit, now_s) for key, unit in state.units.items()}
            return replace(state, plan=plan, plan_trouble=None, units=forgiven)
        case _:
            assert_never(event)


def _absorb_fetch(state: State, event: FetchProgressed | Fetched | FetchFailed, now_s: float) -> State:
    unit = state.units.get(event.key)
    if unit is not None and unit.phase in IN_ENGINE and isinstance(event, Fetched) and event.release == unit.release:
        return put(state, replace(unit, held=True))  # adopted while its files were being verified
    if unit is None or unit.phase is not Phase.FETCHING:
        return state
    match event:
        case FetchProgressed(_, done_bytes, total_bytes):
            return put(state, replace(unit, done_bytes=done_bytes, total_bytes=total_bytes))
        case Fetched(_, release, total_bytes):
            if release != unit.release:
                return state
            held = replace(unit, phase=Phase.HELD, held=True, done_bytes=total_bytes, total_bytes=total_bytes)
            # A suspect stays one: its files were never the question.
            return put(state, held if unit.is_suspect else replace(held, failure=None))
        case FetchFailed():
            if event.release != unit.release:
                return state
            failed = _fail(state, unit, event.blame, event.reason, event.message, now_s)
            return put(state, replace(failed, phase=Phase.ABSENT, done_bytes=0))
        case _:
            assert_never(event)


_EngineEvent = EngineUp | EngineLost | Loaded | LoadFailed | Unloaded | UnloadFailed


def _absorb_engine(state: State, event: _EngineEvent, now_s: float) -> State:
    match event:
        case EngineUp(incarnation, loaded):
            return _engine_up(state, incarnation, loaded, now_s)
        case EngineLost():
            units = {key: _lose(state, unit, now_s) for key, unit in state.units.items()}
            return replace(state, engine=None, engine_known=True, units=units)
    unit = state.units.get(event.key)
    if unit is None or event.incarnation != state.engine:
        return state
    match event:
        case Loaded():
            if unit.phase is not Phase.LOADING:
                return state
            return put(state, replace(unit, phase=Phase.LOADED, failure=None))
        case LoadFailed():
            if unit.phase is not Phase.LOADING:
                return state
            failed = _fail(state, unit, event.blame, event.reason, event.message, now_s)
            if event.files_gone:
                return put(state, replace(failed, phase=Phase.ABSENT, held=False))
            return put(state, replace(failed, phase=_at_rest(unit)))
        case Unloaded():
            return put(state, replace(unit, phase=_at_rest(unit), idle_since_s=None))
        case UnloadFailed():
            if unit.phase is not Phase.UNLOADING:
                return state
            failed = _fail(state, unit, Blame.TRANSIENT, "UnloadFailed", event.message, now_s)
            return put(state, replace(failed, phase=Phase.LOADED))
        case _:
            assert_never(event)


def _absorb_gateway(
    state: State, event: GatewayUp | GatewayLost | GatewayAccepted | GatewayRefused, now_s: float
) -> State:
    match event:
        case GatewayUp():
            # It runs on files that we may not have seen confirmed, so the offer is made again.
            return replace(state, gateway_up=True, gateway_confirmed=False, offered=None, gateway_failure=None)
        case GatewayLost():
            return replace(state, gateway_up=False, gateway_confirmed=False)
        case GatewayAccepted(generation, serving):
            if generation > state.generation:
                return state
            last_good = _last_good(state, serving)
            if generation < state.generation:
                return replace(state, accepted=serving, last_good=last_good)
            return replace(
                state,
                accepted=serving,
                last_good=last_good,
                open_local=frozenset(),
                open_routes=frozenset(),
                gateway_confirmed=state.gateway_up,
                gateway_failure=None,
            )
        case GatewayRefused(generation, reason, message):
            if generation != state.generation:
                return state
            who = f"{state.who}/gateway"
            failure = _failure(state.gateway_failure, Blame.TRANSIENT, reason, message, who, now_s)
            return replace(state, gateway_failure=failure)
        case _:
            assert_never(event)


def _engine_up(state: State, incarnation: int, loaded: Mapping[Key, str], now_s: float) -> State:
    """Adopt what a running engine serves; what it does not serve is gone from it."""
    units = {key: _lose(state, unit, now_s) for key, unit in state.units.items()}
    for key, release in loaded.items():
        unit = units.get(key, Unit(key=key, release=release))
        if release and release != unit.release:
            # The engine holds other bytes under this name: keep them as what they are, `_adjust_units` judges.
            unit = Unit(key=key, release=release)
        units[key] = replace(unit, phase=Phase.LOADED, failure=None, idle_since_s=None)
    return replace(state, engine=incarnation, engine_known=True, units=units)


def _lose(state: State, unit: Unit, now_s: float) -> Unit:
    """``unit`` after the engine is gone; one that was loading is suspected of it."""
    if unit.phase not in IN_ENGINE:
        return unit
    lost = replace(unit, phase=_at_rest(unit), idle_since_s=None)
    if unit.phase is not Phase.LOADING:
        return lost
    message = f"the engine died while it was loading {unit.key}"
    return _fail(state, lost, Blame.CRASHED, "EngineCrashed", message, now_s)


def _at_rest(unit: Unit) -> Phase:
    return Phase.HELD if unit.held else Phase.ABSENT


def _last_good(state: State, serving: Serving) -> Mapping[str, GoodVersion]:
    """The last good versions once ``serving`` is in force; models that its plan does not have are forgotten."""
    releases = {key: unit.release for key, unit in state.units.items()}
    fresh = {
        key.model: GoodVersion(key.version, releases[key])
        for key in sorted(serving.routed)
        if releases.get(key)
    }  # fmt: skip
    models = {planned.model for planned in serving.plan.models}
    return {model: good for model, good in {**state.last_good, **fresh}.items() if model in models}


def _failure(
    before: Failure | None, blame: Blame, reason: str, message: str, who: str, now_s: float
) -> Failure:  # fmt: skip
    attempts = before.attempts + 1 if before is not None and before.blame is blame else 1
    retry_at_s = now_s + SCHEDULE[blame].delay_s(attempts, who)
    return Failure(blame=blame, reason=reason, message=message, attempts=attempts, retry_at_s=retry_at_s)


def _fail(state: State, unit: Unit, blame: Blame, reason: str, message: str, now_s: float) -> Unit:
    if unit.is_suspect and blame is not Blame.CRASHED and unit.failure is not None:
        # Suspicion outlasts smaller trouble; only a load that works ends it.
        blame = Blame.CRASHED
    failure = _failure(unit.failure, blame, reason, message, f"{state.who}/{unit.key}", now_s)
    return replace(unit, failure=failure)


def _retry_now(unit: Unit, now_s: float) -> Unit:
    if unit.failure is None or unit.is_suspect:
        return unit
    return replace(unit, failure=replace(unit.failure, retry_at_s=now_s))
