"""Residency: where a request may be computed. A hard rule, applied before any cost is looked at.

Decides: which policies refuse a place to a request for one model that entered at one site. Several policies bind
together: each that matches must allow the place. Does not decide what happens when no place is left (`routes`).
The same function is asked by the planner, by the site's agent, and by the renderer of its gateway, so that a plan
which names a forbidden place changes nothing (ADR 005).
"""

from collections.abc import Iterable

from nearcast.resources.plan import ResidencyRule, SiteFacts


def matches(rule: ResidencyRule, model: str, origin: SiteFacts) -> bool:
    """Whether ``rule`` is about requests for ``model`` that enter at ``origin``."""
    if rule.models and model not in rule.models:
        return False
    if not (rule.origin_sites or rule.origin_countries or rule.origin_jurisdictions):
        return True
    return (
        origin.name in rule.origin_sites
        or origin.country in rule.origin_countries
        or not set(rule.origin_jurisdictions).isdisjoint(origin.jurisdictions)
    )


def allows(rule: ResidencyRule, place: SiteFacts) -> bool:
    """Whether ``rule`` lets its requests be computed at ``place``."""
    return (
        place.name in rule.allow_sites
        or place.country in rule.allow_countries
        or not set(rule.allow_jurisdictions).isdisjoint(place.jurisdictions)
    )


def refusals(rules: Iterable[ResidencyRule], model: str, origin: SiteFacts, place: SiteFacts) -> tuple[str, ...]:
    """The policies that forbid ``place`` to a request for ``model`` that entered at ``origin``; empty if it may.

    Returns:
        Names of policies, sorted, each once.
    """
    return tuple(sorted({rule.policy for rule in rules if matches(rule, model, origin) and not allows(rule, place)}))
