"""Which sites may hold a model, residency aside: tenancy and licence. A hard rule, applied before any cost.

Decides: whether a site's tenants or a model's licence bar it from the site, and why. Asked by the planner of the whole
desired state (`grounds`), and by agents and the renderers of their gateways of the plan that they were given, as
`residency` is: whatever a plan says of who holds what, a barred place is never asked (ADR 005).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nearcast.resources.plan import HoldingRule, SiteFacts, SitePlan


def bar(model: str, rule: HoldingRule, takes: Sequence[str], place: SiteFacts) -> str:
    """Why ``place`` must not hold ``model``; empty where it may.

    Args:
        model: its name.
        rule: of the model.
        takes: the only tenants whose deployments the place takes; empty: everybody's.
        place: the site.
    """
    if takes and rule.tenant not in takes:
        whose = f"tenant {rule.tenant}" if rule.tenant else "deployments without a tenant"
        return f"the site takes {', '.join(takes)}, not {whose}"
    if rule.tiers and place.tier not in rule.tiers:
        return f"Model/{model} may run on {', '.join(rule.tiers)} only, and the site is {place.tier}"
    return ""


def barred(plan: SitePlan, model: str, place: SiteFacts) -> str:
    """Why ``place`` must not hold ``model``, as ``plan`` has the rules; empty where it may."""
    return bar(model, plan.holding.get(model, _FREE), plan.tenants.get(place.name, ()), place)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A place that a plan names for a model although its own rules bar it."""

    model: str
    site: str
    why: str

    def __str__(self) -> str:
        return f"{self.model} at {self.site}: {self.why}"


def left_out(plan: SitePlan) -> tuple[LeftOut, ...]:
    """The places that nobody asks although ``plan`` says that they hold the model, by model and site. A control plane
    that works names none: it keeps the same rules."""
    if not (plan.holding or plan.tenants):
        return ()
    holders = [(planned.model, plan.site) for planned in plan.models]
    holders += [(served.model, peer.site) for peer in plan.peers for served in peer.models]
    found = {LeftOut(model, site.name, why) for model, site in holders if (why := barred(plan, model, site))}
    return tuple(sorted(found, key=lambda item: (item.model, item.site)))


_FREE = HoldingRule()
