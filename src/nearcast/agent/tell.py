"""What is worth a line in the agent's log. Pure; what happens all the time is not told."""

import logging
from typing import Final

from nearcast.agent.states import (
    Event,
    FetchFailed,
    GatewayAccepted,
    GatewayRefused,
    Loaded,
    LoadFailed,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
    State,
    Unloaded,
    UnloadFailed,
)
from nearcast.logs import line
from nearcast.planning.holding import left_out

MAX_NAMED: Final = 5
"""Places that one line names."""


def told(before: State, event: Event) -> list[tuple[int, str]]:
    """Lines about ``event`` with their levels: none, one, or of a new plan two.

    Args:
        before: the state in which it came.
        event: what happened.
    """
    news = _news(before, event)
    if news is not None:
        return [(logging.INFO, news), *_rules(before, event)]
    trouble = _trouble(before, event)
    return [] if trouble is None else [(logging.WARNING, trouble)]


def _news(before: State, event: Event) -> str | None:
    match event:
        case PlanReceived(plan) if plan != before.plan:
            models = ",".join(f"{item.model}@{item.version}" for item in plan.models)
            return line("plan", version=plan.version, models=models or None, peers=len(plan.peers))
        case PlanUnchanged() if before.plan_trouble is not None:
            return line("plan is current again")
        case Loaded(_, key) | Unloaded(_, key):
            return line(type(event).__name__.lower(), model=key)
        case GatewayAccepted(_, serving):
            known = before.accepted
            if known is None or (known.active, known.plan) != (serving.active, serving.plan):
                routed = ",".join(map(str, sorted(serving.routed)))
                return line("routes", plan=serving.plan.version, local=routed or None)
        case _:
            pass
    return None


def _rules(before: State, event: Event) -> list[tuple[int, str]]:
    """Places that a new plan names and its own rules bar, where these are others than before."""
    if not isinstance(event, PlanReceived):
        return []
    was, now = (left_out(plan) if plan is not None else () for plan in (before.plan, event.plan))
    if was == now:
        return []
    if not now:
        return [(logging.INFO, line("no place of the plan is barred any more", version=event.plan.version))]
    named = "; ".join(str(item) for item in now[:MAX_NAMED])
    return [
        (logging.WARNING, line("places are not asked: the plan's own rules bar them", count=len(now), places=named))
    ]


def _trouble(before: State, event: Event) -> str | None:
    match event:
        case PlanRefused(_, reason, message):
            known = before.plan_trouble
            return (
                line("no new plan", reason=reason, message=message) if known is None or known.reason != reason else None
            )
        case FetchFailed(key, _, _, reason, message):
            return line("fetch failed", model=key, reason=reason, message=message)
        case LoadFailed(_, key, _, reason, message):
            return line("load failed", model=key, reason=reason, message=message)
        case UnloadFailed(_, key, message):
            return line("unload failed", model=key, message=message)
        case GatewayRefused(generation, reason, message):
            return line("offer refused", generation=generation, reason=reason, message=message)
        case _:
            return None
