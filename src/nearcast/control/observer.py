"""Looking: the whole fleet at one moment, resources with their status, the fleet at a glance, and explanations.

Decides nothing: `conditions` and `planning` do. Plans are made anew only when the state or the facts changed.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from nearcast import __version__
from nearcast.control.accepted import Hold
from nearcast.control.conditions import Observed, findings, holders, model_on, node_phase, site_is_ready
from nearcast.control.finding import Finding
from nearcast.control.nodes import NodeView
from nearcast.control.plane import ControlPlane
from nearcast.control.publisher import facts_of
from nearcast.control.store import Held, Snapshot, timestamp
from nearcast.control.watch import Watched, snapshot_of
from nearcast.errors import NotFound
from nearcast.planning.explain import explain
from nearcast.planning.explanation import Explanation
from nearcast.planning.fleet.decision import MAX_REASONS
from nearcast.planning.fleet.explain import explain_plan
from nearcast.planning.fleet.explanation import PlanExplanation
from nearcast.planning.fleet.subject import Subject, changes
from nearcast.planning.grounds import Grounds, grounds_of
from nearcast.planning.network.scouts import scouts
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.resources.kinds import AnyResource, Condition, Deployment, Model, Policy, Site, Status, to_document
from nearcast.resources.plan import SitePlan
from nearcast.resources.problems import did_you_mean


@dataclass(frozen=True, slots=True)
class View:
    """What is in force, beside everything that is known of the fleet."""

    snapshot: Snapshot
    observed: Observed


class Observer:
    """Looks at one control plane. Safe for several threads."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._guard = threading.Lock()
        self._planned: tuple[int, int, FleetFacts, Mapping[str, SitePlan]] | None = None
        self._grounds: tuple[int, Grounds] | None = None
        self._holders: tuple[Mapping[str, SitePlan], Mapping[str, tuple[str, ...]]] | None = None

    def plans(self, snapshot: Snapshot) -> Mapping[str, SitePlan]:
        """The plans that ``snapshot``, the facts and the guidance ask for now; their version is 0. Costly after a
        change only."""
        plane = self._plane
        decided = plane.decisions.in_force
        digests = {key: entry.digest for key, entry in plane.index.entries().items()}
        now = plane.clock()
        facts = replace(
            facts_of(plane.fleet, digests, plane.nodes.views(), plane.members.revoked(now)),
            scouts=scouts((site.name for site in snapshot.state.sites), now.timestamp()),
        )
        with self._guard:
            held = self._planned
            if held is None or held[:2] != (snapshot.sequence, decided.since) or held[2] != facts:
                plans = site_plans(snapshot.state, facts, plane.fleet, 0, decided.guidance)
                held = (snapshot.sequence, decided.since, facts, plans)
                self._planned = held
            return held[3]

    def grounds(self, snapshot: Snapshot) -> Grounds:
        """The rules of ``snapshot`` about places."""
        with self._guard:
            held = self._grounds
            if held is None or held[0] != snapshot.sequence:
                held = (snapshot.sequence, grounds_of(snapshot.state))
                self._grounds = held
            return held[1]

    def _holders_of(self, plans: Mapping[str, SitePlan]) -> Mapping[str, tuple[str, ...]]:
        with self._guard:
            held = self._holders
            if held is None or held[0] is not plans:
                held = (plans, holders(plans))
                self._holders = held
            return held[1]

    def look(self) -> View:
        """The fleet now."""
        plane = self._plane
        snapshot = plane.store.snapshot()
        nodes: dict[str, tuple[NodeView, ...]] = {}
        for node in plane.nodes.views():
            nodes[node.site] = (*nodes.get(node.site, ()), node)
        plans = self.plans(snapshot)
        observed = Observed(
            state=snapshot.state,
            plans=plans,
            holders=self._holders_of(plans),
            published=plane.publisher.published(site.name for site in snapshot.state.sites),
            nodes=nodes,
            releases=frozenset(plane.index.entries()),
            grounds=self.grounds(snapshot),
            chosen=plane.decisions.in_force.guidance.placements,
        )
        return View(snapshot, observed)

    def document(self, held: Held, view: View) -> dict[str, Any]:
        """A resource as a manifest, with its status."""
        resource = held.resource
        status = Status(
            observed_generation=held.generation,
            conditions=tuple(self._timed(resource, finding) for finding in findings(resource, view.observed)),
            details={
                "revision": held.revision,
                "createdAt": held.created_at,
                "updatedAt": held.updated_at,
                **self._details(resource, view.observed),
            },
        )
        document = to_document(resource.model_copy(update={"status": status}))
        document["status"] = document.pop("status")  # people read what they wrote first
        return document

    def note_conditions(self) -> None:
        """Look at every condition, so that its time is noted when it changes and not when somebody asks."""
        view = self.look()
        for held in view.snapshot.held.values():
            for finding in findings(held.resource, view.observed):
                self._timed(held.resource, finding)
        self._plane.transitions.flush()

    def fleet(self, url: str) -> dict[str, Any]:
        """The fleet at a glance: ``GET /v1/status``."""
        view = self.look()
        return {
            "fleet": self._plane.fleet,
            "control": {"url": url, "version": __version__},
            "sites": [self._site(site, view) for site in view.snapshot.state.sites],
            "deployments": [self._deployment(item, view) for item in view.snapshot.state.deployments],
        }

    def explain(self, model: str, site: str, node: str | None = None) -> Explanation:
        """Why requests for ``model`` that enter at ``site`` go where they go; at ``node``, or the first that reports.

        Raises:
            NotFound: the site or node does not exist, or no deployment has the model.
        """
        view = self.look()
        plan = view.observed.plans.get(site)
        if plan is None:
            raise NotFound(f"there is no Site/{site}", hint=did_you_mean(site, view.observed.plans))
        if model not in plan.catalog:
            hint = did_you_mean(model, plan.catalog) or "A model is asked for by name once a deployment has it."
            raise NotFound(f"no deployment has the model {model!r}", hint=hint)
        published = view.observed.published.get(site)
        if published is not None and model in published.plan.catalog:
            plan = published.plan
        reports = [item for item in view.observed.connected(site) if item.status is not None]
        if node is not None:
            known = [item.node for item in view.observed.nodes.get(site, ())]
            if node not in known:
                raise NotFound(f"there is no node {site}/{node}", hint=did_you_mean(node, known))
            reports = [item for item in reports if item.node == node]
        reports.sort(key=lambda item: item.draining)
        status = reports[0].status if reports else None
        guidance = self._plane.decisions.in_force.guidance
        return explain(view.snapshot.state, plan, status, model, guidance, _load_s(model, view.observed))

    def explain_plan(self, name: str, site: str | None, decision: int | None) -> PlanExplanation:
        """Why the deployment or model ``name`` is planned as it is, by a decision or the newest; what changed since.

        Raises:
            NotFound: the decision is not kept, or knows no such name or site.
        """
        plane = self._plane
        record = plane.decisions.record(decision)
        found = explain_plan(record, name, site)
        state = plane.store.snapshot().state
        now = snapshot_of(plane.fleet, "", state, plane.index.entries(), (), Watched())
        age_s = (plane.clock() - datetime.fromisoformat(record.at)).total_seconds()
        return msgspec.structs.replace(
            found,
            age_s=round(max(0.0, age_s), 1),
            since=tuple(changes(Subject.of(record.snapshot), Subject.of(now)))[:MAX_REASONS],
            demand_now_per_s=round(_demand_per_s(found.model, plane.nodes.views()), 4),
        )

    def node_view(self, site: str, node: str) -> NodeView:
        """One node. Raises :class:`NotFound`."""
        views = self._plane.nodes.views()
        found = next((view for view in views if (view.site, view.node) == (site, node)), None)
        if found is None:
            names = [f"{view.site}/{view.node}" for view in views]
            raise NotFound(f"there is no node {site}/{node}", hint=did_you_mean(f"{site}/{node}", names))
        return found

    def served_only_by(self, site: str, node: str) -> list[str]:
        """Models that this node serves and no other connected node that does not drain. Raises :class:`NotFound`."""
        own = self.node_view(site, node)
        others = [
            view
            for view in self._plane.nodes.views()
            if view.connected and not view.draining and (view.site, view.node) != (site, node)
        ]
        elsewhere = {model for view in others for model in _ready_models(view)}
        return sorted(_ready_models(own) - elsewhere) if not own.draining else []

    def node(self, node: NodeView) -> dict[str, Any]:
        """A node for people and programs; its whole status is under ``status``."""
        status = node.status
        return {
            "site": node.site,
            "name": node.node,
            "phase": node_phase(node),
            "connected": node.connected,
            "seen_at": timestamp(node.seen_at) if node.seen_at else None,
            "software": status.software if status else None,
            "plan_version": status.plan_version if status else None,
            "routed_version": status.routed_version if status else None,
            "gateway_url": status.gateway.url if status else None,
            "gateway_ready": bool(status and status.gateway.ready),
            "engine_ready": bool(status and status.engine.ready),
            "status": msgspec.to_builtins(status) if status else None,
        }

    def _site(self, site: Site, view: View) -> dict[str, Any]:
        observed = view.observed
        nodes = observed.nodes.get(site.name, ())
        reporting = [node for node in nodes if node.status is not None]
        first = next((node for node in reporting if node.connected), reporting[0] if reporting else None)
        short = [
            {key: value for key, value in self.node(node).items() if key not in {"status", "site"}} for node in nodes
        ]
        conditions = [self._timed(site, finding) for finding in findings(site, observed)]
        return {
            "name": site.name,
            "country": site.spec.country,
            "tier": site.spec.tier,
            "gateway_url": first.status.gateway.url or None if first and first.status else None,
            "ready": site_is_ready(site.name, observed),
            "nodes": short,
            "models": [
                {
                    "model": item.model,
                    "version": item.version,
                    "state": item.state,
                    "node": node.node,
                    "message": item.message,
                }
                for node in reporting
                for item in (node.status.models if node.status else ())
            ],
            "conditions": [item.model_dump(mode="json", by_alias=True) for item in conditions],
        }

    def _deployment(self, deployment: Deployment, view: View) -> dict[str, Any]:
        conditions = [self._timed(deployment, finding) for finding in findings(deployment, view.observed)]
        return {
            "name": deployment.name,
            "model": deployment.spec.model,
            "version": deployment.spec.version,
            "ready": all(item.status == "True" for item in conditions if item.type == "Ready"),
            "conditions": [item.model_dump(mode="json", by_alias=True) for item in conditions],
        }

    def _timed(self, resource: AnyResource, finding: Finding) -> Condition:
        since = self._plane.transitions.since(resource.kind, resource.name, finding.type, finding.status)
        return Condition(
            type=finding.type,
            status=finding.status,
            reason=finding.reason,
            message=finding.message,
            last_transition_time=since,
        )

    def _details(self, resource: AnyResource, observed: Observed) -> dict[str, Any]:
        match resource:
            case Site():
                published = observed.published.get(resource.name)
                return {
                    "planVersion": published.plan.version if published else None,
                    "nodes": [
                        {"name": node.node, "phase": node_phase(node), "connected": node.connected}
                        for node in observed.nodes.get(resource.name, ())
                    ],
                }
            case Model():
                entries = self._plane.index.entries().values()
                return {
                    "releases": [
                        {
                            "version": item.version,
                            "task": item.task,
                            "digest": item.digest,
                            "sizeBytes": item.size_bytes,
                            "createdAt": item.created_at,
                        }
                        for item in entries
                        if item.model == resource.name
                    ]
                }
            case Deployment():
                return _where(resource, observed)
            case Policy():
                return {}


def _ready_models(node: NodeView) -> set[str]:
    return {item.model for item in node.status.models if item.state == "ready"} if node.status else set()


def _load_s(model: str, observed: Observed) -> float:
    """The longest that any node took to load ``model``; 0 where none has told."""
    statuses = (node.status for nodes in observed.nodes.values() for node in nodes if node.status is not None)
    return max((item.load_s for status in statuses for item in status.profiles if item.model == model), default=0.0)


def _demand_per_s(model: str, nodes: Iterable[NodeView]) -> float:
    """What clients ask of ``model``, as connected nodes reported it last."""
    statuses = (node.status for node in nodes if node.connected and node.status is not None)
    return sum(item.demand[model].rate_per_s for item in statuses if model in item.demand)


def _where(deployment: Deployment, observed: Observed) -> dict[str, Any]:
    """Where a deployment shall run, and how far each node is."""
    where = observed.placed(deployment)
    spec = deployment.spec
    found = []
    for site in where.sites:
        for node in observed.nodes.get(site, ()):
            model = model_on(node, spec.model, spec.version)
            found.append(
                {
                    "site": site,
                    "node": node.node,
                    "connected": node.connected,
                    "state": model.state if model else "absent",
                    "message": model.message if model else "",
                }
            )
    return {
        "sites": list(where.sites),
        "outside": Hold(where, observed.holders.get(deployment.name, ())).outside,
        "refused": {site: list(policies) for site, policies in where.refused.items()},
        "nodes": found,
    }
