"""Where a deployment may run, by every hard rule of the desired state: placement, residency, tenancy, licence.

Decides: which sites a placement asks for, and who refuses which of them. Rules come before any cost: neither load nor
demand opens a site that they close, and what the planner chose is held against them once more (`placed`). Which of the
open sites an ``auto`` placement gets is chosen in `planning.fleet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nearcast.planning.classes import Classes, closing, compiled
from nearcast.planning.holding import bar
from nearcast.resources.kinds import Deployment, Placement
from nearcast.resources.plan import HoldingRule, ResidencyRule, SiteFacts, Tier
from nearcast.resources.state import DesiredState

Chosen = Mapping[str, tuple[str, ...]]
"""Deployment -> the sites that the planner chose for it."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """The rules of one desired state about places, compiled once.

    Attributes:
        sites: facts of every site, by name, in the order of names.
        tenants: site -> whose deployments it takes; a site that takes everybody's is left out.
        licences: model -> the only tiers that it may run on; a model without such a rule is left out.
        rules: residency.
        classes: ``rules`` over ``sites`` and all models.
        closed: model -> site -> the policies that refuse it to every request.
    """

    sites: Mapping[str, SiteFacts]
    tenants: Mapping[str, tuple[str, ...]]
    licences: Mapping[str, tuple[Tier, ...]]
    rules: tuple[ResidencyRule, ...]
    classes: Classes
    closed: Mapping[str, Mapping[str, tuple[str, ...]]]

    def bar(self, deployment: Deployment, site: str) -> str:
        """Why ``site`` must not run ``deployment``, residency aside; empty where it may."""
        model = deployment.spec.model
        return bar(model, self.rule(deployment), self.tenants.get(site, ()), self.sites[site])

    def rule(self, deployment: Deployment) -> HoldingRule:
        """Which sites may hold the model of ``deployment``, residency aside."""
        return HoldingRule(tenant=deployment.spec.tenant or "", tiers=self.licences.get(deployment.spec.model, ()))

    def is_open(self, deployment: Deployment, site: str) -> bool:
        """Whether ``site`` may run ``deployment``."""
        return site not in self.closed[deployment.spec.model] and not self.bar(deployment, site)


def grounds_of(state: DesiredState) -> Grounds:
    """The rules of ``state``. Cost: O(sites x (rules + deployed models))."""
    sites = {site.name: site.facts() for site in state.sites}
    rules = tuple(policy.rule() for policy in state.policies)
    models = sorted({deployment.spec.model for deployment in state.deployments})
    classes = compiled(list(sites.values()), models, rules)
    closed: dict[str, dict[str, tuple[str, ...]]] = {}
    for model in models:
        shut = classes.is_closed(model)
        by_class = {n: closing(classes, rules, model, classes.examples[n]) for n in range(len(shut)) if shut[n]}
        closed[model] = {
            name: by_class[int(n)] for name, n in zip(sites, classes.site_class, strict=True) if by_class and shut[n]
        }
    return Grounds(
        sites=sites,
        tenants={site.name: site.spec.tenants for site in state.sites if site.spec.tenants},
        licences={model.name: model.spec.tiers for model in state.models if model.spec.tiers},
        rules=rules,
        classes=classes,
        closed=closed,
    )


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one deployment goes.

    Attributes:
        sites: shall serve it.
        open: all sites that its placement asks for and no rule closes; an ``auto`` placement gets some of them.
        refused: sites that its placement asks for, and the policies that close them.
        barred: sites that its placement asks for, and why tenancy or licence forbid them.
        is_planned: False for an ``auto`` placement that the planner has not looked at yet.
    """

    sites: tuple[str, ...]
    open: tuple[str, ...]
    refused: Mapping[str, tuple[str, ...]]
    barred: Mapping[str, str] = field(default_factory=dict)
    is_planned: bool = True


def placed(deployment: Deployment, grounds: Grounds, chosen: Chosen) -> Placed:
    """The sites of ``deployment``: those that its placement asks for, less those that a hard rule closes.

    Args:
        deployment: of the state that ``grounds`` were made of.
        grounds: its rules.
        chosen: what the planner chose for ``auto`` placements.
    """
    names = asked(deployment, grounds)
    closed = grounds.closed[deployment.spec.model]
    refused = {name: closed[name] for name in names if name in closed}
    bars = {name: grounds.bar(deployment, name) for name in names}
    barred = {name: why for name, why in bars.items() if why and name not in refused}
    is_auto = deployment.spec.placement.auto is not None
    open_to = tuple(name for name in names if name not in refused and name not in barred)
    taken = frozenset(chosen.get(deployment.name, ()))
    return Placed(
        sites=tuple(name for name in open_to if name in taken) if is_auto else open_to,
        open=open_to,
        refused=refused,
        barred=barred,
        is_planned=not is_auto or deployment.name in chosen,
    )


def asked(deployment: Deployment, grounds: Grounds) -> list[str]:
    """The sites that the placement names, in order: for ``auto`` all among which the planner may choose."""
    wanted = deployment.spec.placement
    if wanted.auto is not None:
        return [name for name, site in grounds.sites.items() if wanted.auto.matches(site)]
    if wanted.sites is not None:
        return sorted(grounds.sites.keys() & set(wanted.sites))
    return [
        name
        for name, site in grounds.sites.items()
        if wanted.everywhere or (wanted.tiers is not None and site.tier in wanted.tiers)
    ]


def wanted(placement: Placement) -> str:
    """What ``placement`` asks for, in one line for people."""
    if placement.sites is not None:
        return f"sites {', '.join(placement.sites)}"
    if placement.tiers is not None:
        return f"tiers {', '.join(placement.tiers)}"
    auto = placement.auto
    if auto is None:
        return "everywhere"
    fields = (("sites", auto.sites), ("tiers", auto.tiers), ("countries", auto.countries))
    parts = [f"{name} {', '.join(values)}" for name, values in fields if values]
    parts += [f"minSites {auto.min_sites}"] if auto.min_sites > 1 else []
    parts += [f"maxSites {auto.max_sites}"] if auto.max_sites else []
    return "; ".join(["auto", *parts])
