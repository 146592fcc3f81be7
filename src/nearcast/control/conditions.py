"""Conditions: desired state beside what nodes report, in the words of ``status.conditions``. Pure.

A deployment is ready when every connected node that shall serve it does so (one that drains shall not), and every
connected node's gateway has accepted routes of a plan that knows it. The latter is decided per model by :func:`slices`:
a site's plan may change for other reasons, and that must not make a deployment unready.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from nearcast.control.nodes import NodeView
from nearcast.planning.grounds import Chosen, Grounds, Placed, placed
from nearcast.resources.kinds import AnyResource, Deployment, Model, Policy, Site
from nearcast.resources.plan import ResidencyRule, SitePlan
from nearcast.resources.state import DesiredState
from nearcast.resources.status import DRAINED, ModelStatus

Said = TypeVar("Said")
Phase = Literal["Ready", "NotReady", "Draining", "Drained"]
Slice = tuple[tuple[str, str, bool], ...]
"""What a plan says of one model: (site, version, whether its peer listener is known) of each place that serves it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition before it has a time."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """The plan that a site can fetch, and since which version it has said what it says now.

    Attributes:
        introduced: model -> (what the plan says of it, since which version).
        bound: policy -> (its rule, since which version).
    """

    plan: SitePlan
    introduced: Mapping[str, tuple[Slice, int]]
    bound: Mapping[str, tuple[ResidencyRule, int]]


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that conditions are made of.

    Attributes:
        plans: the plans that the desired state asks for now.
        published: the plans that sites can fetch.
        nodes: site -> its nodes.
        releases: (model, version) of every release.
        grounds: the rules of the state about places.
        chosen: the sites of ``auto`` placements.
    """

    state: DesiredState
    grounds: Grounds
    chosen: Chosen
    plans: Mapping[str, SitePlan]
    published: Mapping[str, Published]
    nodes: Mapping[str, tuple[NodeView, ...]]
    releases: frozenset[tuple[str, str]]

    def placed(self, deployment: Deployment) -> Placed:
        """Where ``deployment`` goes."""
        return placed(deployment, self.grounds, self.chosen)

    def connected(self, site: str) -> list[NodeView]:
        """The nodes of ``site`` that are connected."""
        return [node for node in self.nodes.get(site, ()) if node.connected]

    def serving(self, site: str) -> list[NodeView]:
        """The nodes of ``site`` that are connected and shall serve models."""
        return [node for node in self.connected(site) if not node.draining]


def slices(plan: SitePlan) -> dict[str, Slice]:
    """What ``plan`` says of each model of its catalog."""
    found: dict[str, list[tuple[str, str, bool]]] = {model: [] for model in plan.catalog}
    for planned in plan.models:
        found.setdefault(planned.model, []).append((plan.site.name, planned.version, True))
    for peer in plan.peers:
        for served in peer.models:
            found.setdefault(served.model, []).append((peer.site.name, served.version, bool(peer.addresses)))
    return {model: tuple(sorted(places)) for model, places in found.items()}


def introduced(plan: SitePlan, before: Published | None) -> Published:
    """``plan`` as published after ``before``: what says the same keeps its earlier version."""
    rules = {rule.policy: rule for rule in plan.residency}
    return Published(
        plan,
        introduced=_since(slices(plan), before.introduced if before else {}, plan.version),
        bound=_since(rules, before.bound if before else {}, plan.version),
    )


def _since(
    now: Mapping[str, Said], before: Mapping[str, tuple[Said, int]], version: int
) -> dict[str, tuple[Said, int]]:
    return {
        name: (said, before[name][1] if name in before and before[name][0] == said else version)
        for name, said in now.items()
    }


def findings(resource: AnyResource, observed: Observed) -> tuple[Finding, ...]:
    """The conditions of ``resource``."""
    match resource:
        case Site():
            return _of_site(resource, observed)
        case Model():
            return (_released(resource, observed),)
        case Deployment():
            return _of_deployment(resource, observed)
        case Policy():
            return Finding("Accepted", "True", "Compiled", _reach(resource, observed)), _enforced(resource, observed)


# --- sites -----------------------------------------------------------------------------------------------------------


def site_is_ready(site: str, observed: Observed) -> bool:
    """Whether a client of the site's gateway is served: a node is connected, and its gateway runs a plan's routes."""
    return any(
        node.status is not None and node.status.gateway.ready and node.status.routed_version >= 0
        for node in observed.connected(site)
    )


def _of_site(site: Site, observed: Observed) -> tuple[Finding, ...]:
    nodes = observed.nodes.get(site.name, ())
    connected = observed.connected(site.name)
    if not nodes:
        reach = Finding("Connected", "False", "NoNode", "no node has joined this site")
    elif not connected:
        reach = Finding("Connected", "False", "NodesSilent", f"no report from {_list(node.node for node in nodes)}")
    elif len(connected) < len(nodes):
        silent = _list(node.node for node in nodes if not node.connected)
        reach = Finding("Connected", "True", "SomeNodesSilent", f"no report from {silent}")
    else:
        reach = Finding("Connected", "True", "Reporting")
    return reach, _gateway(site.name, observed), *_reported(connected)


def node_phase(node: NodeView) -> Phase:
    """Where a node stands. It says itself when it is drained; a silent one is asked by nobody, which is as good."""
    if not node.draining:
        return "Ready" if node.connected and node.status and node.status.gateway.ready else "NotReady"
    if node.status is None or not node.connected:
        return "Drained"
    return "Drained" if any(said.type == DRAINED and said.status for said in node.status.conditions) else "Draining"


def _gateway(site: str, observed: Observed) -> Finding:
    connected = observed.connected(site)
    if not connected:
        return Finding("GatewayReady", "Unknown", "NotConnected", "the site does not report")
    waiting = [node for node in connected if node.status is None or not node.status.gateway.ready]
    if waiting:
        said = [
            f"{node.node}: {node.status.gateway.message or 'not ready'}"
            if node.status
            else f"{node.node}: no report yet"
            for node in waiting
        ]
        return Finding("GatewayReady", "False", "NotReady", "; ".join(said))
    return Finding("GatewayReady", "True", "Accepted", "every gateway runs the routes of its plan")


def _reported(connected: list[NodeView]) -> list[Finding]:
    """What nodes report of themselves (trust, disk, clock), the worst of each type; it keeps the node's words."""
    worst: dict[str, Finding] = {}
    for node in connected:
        for said in node.status.conditions if node.status else ():
            finding = Finding(
                said.type, "True" if said.status else "False", said.reason, f"{node.node}: {said.message}".rstrip(": ")
            )
            if said.type not in worst or not said.status:
                worst[said.type] = finding
    return [worst[kind] for kind in sorted(worst)]


# --- models and policies ---------------------------------------------------------------------------------------------


def _released(model: Model, observed: Observed) -> Finding:
    versions = sorted(version for name, version in observed.releases if name == model.name)
    if not versions:
        return Finding("Released", "False", "NoRelease", f"nearcast model push {model.name} --version V PATH makes one")
    return Finding("Released", "True", "Released", f"versions {_list(versions)}")


def _reach(policy: Policy, observed: Observed) -> str:
    rule = policy.rule()
    bound = [item.name for item in observed.state.deployments if not rule.models or item.spec.model in rule.models]
    return f"binds {_list(f'Deployment/{name}' for name in bound)}" if bound else "binds no deployment yet"


def _enforced(policy: Policy, observed: Observed) -> Finding:
    """Whether every connected site's gateway has accepted routes of a plan that holds the rule as it is now."""
    rule = policy.rule()
    waiting = []
    for site in observed.state.sites:
        connected = observed.connected(site.name)
        published = observed.published.get(site.name)
        said = published.bound.get(policy.name) if published else None
        if not connected:
            continue
        if said is None or said[0] != rule:
            waiting.append(f"{site.name}: its plan is not published yet")
        elif late := _behind(connected, said[1]):
            waiting.append(f"{site.name}: {late}")
    if waiting:
        return Finding("Enforced", "False", "Routing", "; ".join(waiting))
    silent = [site.name for site in observed.state.sites if not observed.connected(site.name)]
    message = "at every connected site" + (f"; not connected: {_list(silent)}" if silent else "")
    return Finding("Enforced", "True", "Routed", message)


# --- deployments -----------------------------------------------------------------------------------------------------


def _of_deployment(deployment: Deployment, observed: Observed) -> tuple[Finding, Finding]:
    where = observed.placed(deployment)
    accepted = _accepted(deployment, where, observed)
    if accepted.status != "True":
        return accepted, Finding("Ready", "False", "NotAccepted", accepted.message)
    return accepted, _ready(deployment, where, observed)


def _accepted(deployment: Deployment, where: Placed, observed: Observed) -> Finding:
    spec = deployment.spec
    release = f"{spec.model}@{spec.version}"
    if (spec.model, spec.version) not in observed.releases:
        others = sorted(version for name, version in observed.releases if name == spec.model)
        known = f"released are {_list(others)}" if others else "no version is released"
        hint = f"nearcast model push {spec.model} --version {spec.version} PATH"
        return Finding("Accepted", "False", "ReleaseNotFound", f"{release} is not released; {known}; {hint}")
    closed = "; ".join(f"{site}: refused by {_list(names)}" for site, names in sorted(where.refused.items()))
    if not where.open and where.refused:
        return Finding("Accepted", "False", "ResidencyRefused", f"policies close every site of the placement: {closed}")
    barred = "; ".join(f"{site}: {why}" for site, why in sorted(where.barred.items()))
    if not where.open and where.barred:
        return Finding("Accepted", "False", "NotAllowed", f"no site of the placement may run it: {barred}")
    if not where.open:
        return Finding("Accepted", "False", "NoSite", "the placement names no site that exists")
    if not where.sites:
        why = "has found no site with room" if where.is_planned else "has not chosen sites yet"
        return Finding("Accepted", "False", "NotPlanned", f"the planner {why}; {_list(where.open)} may run it")
    unserved = _origins_without_a_place(deployment, where, observed)
    is_auto = deployment.spec.placement.auto is not None  # which does not ask for every site that it may have
    notes = [f"left out by policy: {closed}"] if closed and not is_auto else []
    notes += [f"left out: {barred}"] if barred and not is_auto else []
    notes += [f"requests that enter at {_list(unserved)} are refused by residency"] if unserved else []
    return Finding("Accepted", "True", "Placed", "; ".join([f"on {_list(where.sites)}", *notes]))


def _origins_without_a_place(deployment: Deployment, where: Placed, observed: Observed) -> list[str]:
    grounds = observed.grounds
    if not grounds.rules:
        return []
    classes, names = grounds.classes, list(grounds.sites)
    number = dict(zip(names, classes.site_class, strict=True))
    places = sorted({int(number[site]) for site in where.sites})
    served = classes.may[classes.rule_set[deployment.spec.model]][:, places].any(axis=1)
    return sorted(name for name in names if not served[number[name]])


def _ready(deployment: Deployment, where: Placed, observed: Observed) -> Finding:
    serving = [site for site in where.sites if observed.serving(site)]
    drained = [site for site in where.sites if observed.connected(site) and site not in serving]
    if not serving and drained:
        return Finding("Ready", "False", "Drained", f"every node of {_list(drained)} that is connected drains")
    if not serving:
        return Finding("Ready", "False", "NoSiteConnected", f"none of {_list(where.sites)} is connected")
    lacking: list[str] = []
    failed = False
    for site in serving:
        for node in observed.serving(site):
            word, broken = _progress(deployment, node)
            failed = failed or broken
            lacking += [f"{site}: {word}"] if word else []
    if lacking:
        return Finding("Ready", "False", "Failed" if failed else "Progressing", "; ".join(lacking))
    unrouted = [
        f"{site.name}: {word}" for site in observed.state.sites if (word := _routing(deployment, site.name, observed))
    ]
    if unrouted:
        return Finding("Ready", "False", "Routing", "; ".join(unrouted))
    away = [site for site in where.sites if site not in serving and site not in drained]
    message = (
        f"{_list(serving)} serve{'s' if len(serving) == 1 else ''} {deployment.spec.model}@{deployment.spec.version}"
    )
    notes = [f"not connected: {_list(away)}"] if away else []
    notes += [f"draining: {_list(drained)}"] if drained else []
    return Finding("Ready", "True", "Serving", "; ".join([message, *notes]))


def _progress(deployment: Deployment, node: NodeView) -> tuple[str, bool]:
    """What ``node`` still lacks to serve the deployment, or nothing; and whether it failed."""
    if node.status is None:
        return f"{node.node} has not reported yet", False
    model = model_on(node, deployment.spec.model, deployment.spec.version)
    if model is None:
        return f"{node.node} has not begun", False
    if model.state == "failed":
        return f"{node.node} failed ({model.reason}): {model.message}", True
    if model.state == "ready":
        return "", False
    done = (
        f" ({model.done_bytes} of {model.total_bytes} bytes)" if model.state == "fetching" and model.total_bytes else ""
    )
    why = f": {model.message}" if model.message else ""
    return f"{node.node} is {model.state}{done}{why}", False


def model_on(node: NodeView, model: str, version: str) -> ModelStatus | None:
    """What ``node`` reports of a model version, or None."""
    items = node.status.models if node.status else ()
    return next((item for item in items if (item.model, item.version) == (model, version)), None)


def _routing(deployment: Deployment, site: str, observed: Observed) -> str:
    """What the gateway of a connected site still lacks to route to the deployment, or nothing."""
    connected = observed.connected(site)
    if not connected:
        return ""
    model = deployment.spec.model
    wanted = slices(observed.plans[site]).get(model) if site in observed.plans else None
    published = observed.published.get(site)
    said = published.introduced.get(model) if published else None
    if said is None or said[0] != wanted:
        return "its plan is not published yet"
    return _behind(connected, said[1])


def _behind(connected: Iterable[NodeView], version: int) -> str:
    """Which gateways run routes of a plan older than ``version``, or nothing."""
    waiting = [node.node for node in connected if node.status is None or node.status.routed_version < version]
    return f"the gateway of {_list(waiting)} has not accepted plan {version} yet" if waiting else ""


def _list(names: Iterable[str]) -> str:
    """Names for people, shortened where they are many."""
    items = list(names)
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")
