"""Publishing: plans that changed are signed and put where their sites fetch them; the others are left alone.

Decides which plans changed, by their revision, which leaves the version out. The version comes from the leader: one
above all before, shared by what is published together. What was published is read back from the repository, never from
our own notes; only a publication that was announced and never ticked off is made anew without looking (`leader`).
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from nearcast.control.conditions import Published, introduced
from nearcast.control.leader import Leader
from nearcast.control.nodes import NodeView
from nearcast.errors import Conflict, IntegrityError
from nearcast.planning.plans import FleetFacts
from nearcast.registry.plans import PlansRepository
from nearcast.resources.names import is_address
from nearcast.resources.plan import SiteNode, SitePlan, node_id
from nearcast.resources.status import NodeStatus

OLDER: Final = ("0.1.", "0.2.")

log = logging.getLogger(__name__)


class Publisher:
    """The published plans of one fleet. One thread publishes; any may ask :meth:`of` and :meth:`published`."""

    def __init__(self, repository: PlansRepository, leader: Leader) -> None:
        self._repository = repository
        self._leader = leader
        self._guard = threading.Lock()
        self._published: dict[str, Published | None] = {}

    def of(self, site: str) -> Published | None:
        """The plan that ``site`` can fetch, or None before the first, and where it is damaged: then it is made anew."""
        with self._guard:
            if site in self._published:
                return self._published[site]
        try:
            plan = self._repository.latest(site)
        except IntegrityError as error:
            log.warning("the published plan of %s cannot be read: %s", site, error.message)
            plan = None
        found = introduced(plan, None) if plan is not None else None
        with self._guard:
            return self._published.setdefault(site, found)

    def published(self, sites: Iterable[str]) -> Mapping[str, Published]:
        """Site -> the plan that it can fetch; sites without one are left out."""
        found = {site: self.of(site) for site in sites}
        return MappingProxyType({site: entry for site, entry in found.items() if entry is not None})

    def publish(self, plans: Mapping[str, SitePlan]) -> tuple[str, ...]:
        """Publish those of ``plans`` that differ from what their sites can fetch.

        Returns:
            The sites that got a new plan.

        Raises:
            Unavailable: the object store failed, or another replica leads now; plans before that one are published,
                call again for the rest.
            Conflict: another replica published meanwhile.
        """
        unfinished = self._leader.unfinished()
        if gone := unfinished - plans.keys():
            self._leader.forget(gone)
        changed = [
            site for site, plan in sorted(plans.items()) if site in unfinished or self._revision(site) != plan.revision
        ]
        if not changed:
            return ()
        version = self._leader.begin(changed, self._repository.highest_version)
        done: list[str] = []
        try:
            self._publish(plans, changed, version, done)
        finally:
            if done:
                self._leader.done(done)
        return tuple(changed)

    def _publish(self, plans: Mapping[str, SitePlan], changed: Sequence[str], version: int, done: list[str]) -> None:
        for site in changed:
            plan = msgspec.structs.replace(plans[site], version=version)
            before = self.of(site)
            self._put(site, plan)
            with self._guard:
                self._published[site] = introduced(plan, before)
            done.append(site)

    def _put(self, site: str, plan: SitePlan) -> None:
        try:
            self._repository.publish(plan)
        except Conflict:  # an earlier leader was not done, or the database is older than the repository
            self.forget([site])
            self._leader.raise_to(self._repository.highest_version())
            raise

    def forget(self, sites: Iterable[str]) -> None:
        """Look again at what those sites can fetch, and publish it anew where it is not what it should be."""
        with self._guard:
            for site in sites:
                self._published.pop(site, None)

    def _revision(self, site: str) -> str | None:
        published = self.of(site)
        return published.plan.revision if published else None


def facts_of(
    fleet: str,
    releases: Mapping[tuple[str, str], str],
    nodes: Iterable[NodeView],
    revoked: Iterable[tuple[str, str]],
) -> FleetFacts:
    """What planning needs to know, out of what nodes last said. A silent node keeps its address and its models.

    A node that drains is asked by nobody, and nobody waits for it.
    """
    addresses: dict[str, set[str]] = {}
    serving: dict[str, set[tuple[str, str]]] = {}
    connected, older = set(), set()
    known: dict[str, list[SiteNode]] = {}
    for node in nodes:
        address = node.status.gateway.peer_address if node.status else ""
        address = address if is_address(address) else ""
        known.setdefault(node.site, []).append(SiteNode(name=node.node, address=address, draining=node.draining))
        if node.status is not None and _is_older(node.status):
            older.add(node.site)
        if node.draining:
            continue
        if node.connected:
            connected.add(node.site)
        if node.status is None:
            continue
        if address:
            addresses.setdefault(node.site, set()).add(address)
        ready = {(model.model, model.version) for model in node.status.models if model.state == "ready"}
        serving.setdefault(node.site, set()).update(ready)
    return FleetFacts(
        releases=dict(releases),
        addresses={site: tuple(sorted(found)) for site, found in addresses.items()},
        serving={site: frozenset(found) for site, found in serving.items()},
        connected=frozenset(connected),
        revoked_nodes=tuple(sorted(node_id(fleet, site, node) for site, node in revoked)),
        nodes={site: tuple(sorted(found, key=lambda item: item.name)) for site, found in known.items()},
        older=frozenset(older),
    )


def _is_older(status: NodeStatus) -> bool:
    """Whether the node is of a release that refuses plans with fields of 0.3; builds between the two tell capacity."""
    version = status.software.rpartition("/")[2]
    return version.startswith(OLDER) and status.engine.ready and status.capacity is None
