"""Conditions: desired state beside what nodes report, in the words of ``status.conditions``. Pure.

A deployment is ready when every connected node that shall serve it does so (one that drains shall not), and every
connected node's gateway has accepted routes of a plan that knows it. The latter is decided per model by :func:`slices`:
a site's plan may change for other reasons, and that must not make a deployment unready.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from nearcast.control.accepted import Hold, accepted
from nearcast.control.finding import Finding, listed
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
        holders: deployment -> the sites whose ``plans`` hold it.
    """

    state: DesiredState
    grounds: Grounds
    chosen: Chosen
    plans: Mapping[str, SitePlan]
    published: Mapping[str, Published]
    nodes: Mapping[str, tuple[NodeView, ...]]
    releases: frozenset[tuple[str, str]]
    holders: Mapping[str, tuple[str, ...]]

    def placed(self, deployment: Deployment) -> Placed:
        """Where ``deployment`` goes."""
        return placed(deployment, self.grounds, self.chosen)

    def connected(self, site: str) -> list[NodeView]:
        """The nodes of ``site`` that are connected."""
        return [node for node in self.nodes.get(site, ()) if node.connected]

    def serving(self, site: str) -> list[NodeView]:
        """The nodes of ``site`` that are connected and shall serve models."""
        return [node for node in self.connected(site) if not node.draining]


def holders(plans: Mapping[str, SitePlan]) -> dict[str, tuple[str, ...]]:
    """Deployment -> the sites whose plans hold it. Cost: O(sites x models of each)."""
    found: dict[str, list[str]] = {}
    for site, plan in plans.items():
        for planned in plan.models:
            found.setdefault(planned.deployment, []).append(site)
    return {name: tuple(sorted(sites)) for name, sites in found.items()}


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
        reach = Finding("Connected", "False", "NodesSilent", f"no report from {listed(node.node for node in nodes)}")
    elif len(connected) < len(nodes):
        silent = listed(node.node for node in nodes if not node.connected)
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
    return Finding("Released", "True", "Released", f"versions {listed(versions)}")


def _reach(policy: Policy, observed: Observed) -> str:
    rule = policy.rule()
    bound = [item.name for item in observed.state.deployments if not rule.models or item.spec.model in rule.models]
    return f"binds {listed(f'Deployment/{name}' for name in bound)}" if bound else "binds no deployment yet"


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
    message = "at every connected site" + (f"; not connected: {listed(silent)}" if silent else "")
    return Finding("Enforced", "True", "Routed", message)


# --- deployments -----------------------------------------------------------------------------------------------------


def _of_deployment(deployment: Deployment, observed: Observed) -> tuple[Finding, ...]:
    where = observed.placed(deployment)
    hold = Hold(where, observed.holders.get(deployment.name, ()))
    first, *more = accepted(deployment, hold, observed.grounds, observed.releases)
    if first.status != "True":
        return first, *more, Finding("Ready", "False", "NotAccepted", first.message)
    return first, *more, _ready(deployment, where, observed)


def _ready(deployment: Deployment, where: Placed, observed: Observed) -> Finding:
    serving = [site for site in where.sites if observed.serving(site)]
    drained = [site for site in where.sites if observed.connected(site) and site not in serving]
    if not serving and drained:
        return Finding("Ready", "False", "Drained", f"every node of {listed(drained)} that is connected drains")
    if not serving:
        return Finding("Ready", "False", "NoSiteConnected", f"none of {listed(where.sites)} is connected")
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
        f"{listed(serving)} serve{'s' if len(serving) == 1 else ''} {deployment.spec.model}@{deployment.spec.version}"
    )
    notes = [f"not connected: {listed(away)}"] if away else []
    notes += [f"draining: {listed(drained)}"] if drained else []
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
    return f"the gateway of {listed(waiting)} has not accepted plan {version} yet" if waiting else ""
