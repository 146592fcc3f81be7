"""The policy ``nearcast``: the control plane's planning and the agents' routing, exactly as a real fleet runs them.

Every few seconds the control plane, at one site, makes a snapshot of what it was told, decides on it
(`planning.fleet.decision`), and sends each site that it reaches its plan (`planning.plans`). Once per second each site
makes its route table (`planning.routes`) of its plan and of what it measured; a site that is cut off goes on with the
plan that it has. Nothing here decides; it carries facts to the planning code and decisions back.
"""

from typing import Final

import numpy as np

from nearcast.planning.fleet.decision import decide
from nearcast.planning.fleet.guidance import UNGUIDED, Guidance
from nearcast.planning.fleet.record import Pace, PlanRecord, Unwanted
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.planning.routes import ModelRoute, Observation, RouteTable, route_table
from nearcast.resources.load import LoadReport, ModelLoad, named_metrics
from nearcast.resources.plan import SiteNode, SitePlan
from nearcast.twin.desired import FLEET, NODE, Fleet, snapshot_of
from nearcast.twin.moment import TICK_S, Moment, Report
from nearcast.twin.place import Order, Route
from nearcast.twin.scenario import Control
from nearcast.twin.world import Truths, World

DELIVERY_S: Final = 1.0
"""From a plan to the site that follows it: publishing is batched, and agents are told in the answer to a report."""
GUIDED_S: Final = 60.0
"""A site that has not reached the control plane for so long no longer follows its shares."""


class Nearcast:
    """See the module.

    Args:
        name: of the policy.
        fleet: what is desired.
        world: the true fleet.
        control: how often the control plane plans.
    """

    cyclic = False

    def __init__(self, name: str, fleet: Fleet, world: World, control: Control) -> None:
        self.name = name
        self._fleet, self._world, self._control = fleet, world, control
        self._state = fleet.state()
        self._index = {site: at for at, site in enumerate(fleet.sites)}
        self._seat = _seat(world)
        count, models = len(fleet.sites), len(fleet.models)
        self._ready_at_s = np.full((count, models), np.inf)
        self._plans: dict[str, SitePlan] = {}
        self._coming: tuple[float, dict[str, SitePlan]] | None = None
        self._tables: list[RouteTable | None] = [None] * count
        self._loads: dict[int, tuple[Report, LoadReport]] = {}
        self._record: PlanRecord | None = None
        self._guidance: Guidance = UNGUIDED
        self._unwanted: tuple[Unwanted, ...] = ()
        self._facts: tuple[object, ...] = ()
        self._planned_s = 0.0
        self._heard_s = np.zeros(count)
        self._pace = Pace(hold_s=control.hold_s)
        self._payload = {model.name: model.request_bytes + model.answer_bytes for model in world.models}
        self.placed: Truths = np.zeros((count, models), dtype=np.bool_)

    def begin(self, moment: Moment) -> None:
        """The first plan, on the demand that is expected; its models are loaded when the run begins."""
        self._plan(moment)
        self._deliver(moment, warm=True)
        for site in range(len(self._fleet.sites)):
            self._route(moment, site)

    def step(self, moment: Moment) -> None:
        """Plan and deliver where it is time, and let the sites whose turn it is make their tables."""
        every = max(1, round(self._control.plan_every_s / TICK_S))
        if moment.tick and moment.tick % every == 0:
            self._plan(moment)
        if self._coming is not None and moment.now_s >= self._coming[0]:
            self._deliver(moment, warm=False)
        for site in range(moment.tick % 4, len(self._fleet.sites), 4):
            self._route(moment, site)

    # --- the control plane -------------------------------------------------------------------------------------------

    def _connected(self, moment: Moment) -> Truths:
        """bool[S]: sites that the control plane takes to be within reach; it reaches its own."""
        found: Truths = moment.believed()[self._seat].copy()
        found[self._seat] = True
        return found

    def _serving(self, now_s: float) -> Truths:
        return np.asarray(self._ready_at_s <= now_s)

    def _plan(self, moment: Moment) -> None:
        """One pass of planning; plans are made anew where guidance or facts changed."""
        connected, serving = self._connected(moment), self._serving(moment.now_s)
        snapshot = snapshot_of(self._fleet, self._world, moment, serving, connected)
        elapsed_s = moment.now_s - self._planned_s
        decided = decide(snapshot, self._record, self._guidance, self._unwanted, self._pace, elapsed_s)
        self._planned_s, self._record, self._unwanted = moment.now_s, decided.record, decided.unwanted
        facts = (decided.guidance, connected.tobytes(), serving.tobytes())
        if facts == self._facts:
            return
        self._guidance, self._facts = decided.guidance, facts
        plans = site_plans(self._state, self._fleet_facts(connected, serving), FLEET, 1, decided.guidance)
        self._coming = (moment.now_s + DELIVERY_S, plans)

    def _fleet_facts(self, connected: Truths, serving: Truths) -> FleetFacts:
        fleet = self._fleet
        nodes = {site: (SiteNode(name=NODE, address="192.0.2.1:1"),) for site in fleet.sites}
        pairs = [(model, fleet.versions[model]) for model in fleet.models]
        return FleetFacts(
            releases=dict.fromkeys(pairs, "sha256:" + "0" * 64),
            addresses={site: ("192.0.2.1:1",) for site, up in zip(fleet.sites, connected, strict=True) if up},
            serving={
                site: frozenset(pair for pair, there in zip(pairs, serving[at], strict=True) if there)
                for at, site in enumerate(fleet.sites)
            },
            connected=frozenset(site for site, up in zip(fleet.sites, connected, strict=True) if up),
            nodes=nodes,
        )

    def _deliver(self, moment: Moment, *, warm: bool) -> None:
        """Sites within reach take their plans: they load what is new, and drop what is no longer asked for."""
        if self._coming is None:
            return
        plans, connected = self._coming[1], self._connected(moment)
        self._coming = None
        for at, site in enumerate(self._fleet.sites):
            if not connected[at]:
                continue
            self._plans[site] = plans[site]
            wanted = {planned.model for planned in plans[site].models}
            for to, model in enumerate(self._fleet.models):
                if model not in wanted:
                    self._ready_at_s[at, to] = np.inf
                elif not np.isfinite(self._ready_at_s[at, to]):
                    load_s = 0.0 if warm else float(self._world.problem.move_s[at, to])
                    self._ready_at_s[at, to] = moment.now_s + load_s
        self.placed = np.isfinite(self._ready_at_s)

    # --- the agents --------------------------------------------------------------------------------------------------

    def _route(self, moment: Moment, at: int) -> None:
        """The next route table of one site."""
        site = self._fleet.sites[at]
        plan = self._plans.get(site)
        if plan is None:
            return
        reached = moment.believed()[at]
        if reached[self._seat] or at == self._seat:
            self._heard_s[at] = moment.now_s
        observations = {
            name: self._observation(moment, at, self._index[name], bool(reached[self._index[name]]) or name == site)
            for name in (site, *(peer.site.name for peer in plan.peers))
        }
        ready = frozenset(
            model for to, model in enumerate(self._fleet.models) if self._ready_at_s[at, to] <= moment.now_s
        )
        table = route_table(
            plan,
            ready,
            observations,
            self._tables[at],
            moment.now_s,
            guided=moment.now_s - self._heard_s[at] <= GUIDED_S,
            payload_bytes=self._payload,
        )
        before, self._tables[at] = self._tables[at], table
        for to, model in enumerate(self._fleet.models):
            found = table.models[model]
            known = before.models[model] if before else None
            if known is None or (known.shares, known.longest_ms) != (found.shares, found.longest_ms):
                moment.routes[at][to] = self._as_route(at, found)

    def _observation(self, moment: Moment, at: int, place: int, reachable: bool) -> Observation:
        report = moment.seen(at, place)
        round_trip_s = float(self._world.round_trip_s[at, place])
        if report is None:
            return Observation(moment.now_s, reachable, round_trip_s)
        return Observation(report.made_at_s, reachable, round_trip_s, self._load(place, report))

    def _load(self, place: int, report: Report) -> LoadReport:
        """What the engine of a place says of itself, made once per report."""
        known = self._loads.get(place)
        if known is not None and known[0] is report:
            return known[1]
        problem = self._world.problem
        loads = {
            model: ModelLoad(
                wait_s=report.wait_s,
                service_s=report.service_s[to],
                utilization=min(1.0, report.utilization),
                rate_per_s=0.0,
                queue=report.waiting[to],
                room=max(0, int(self._world.models[to].room * problem.workers[place]) - report.waiting[to]),
            )
            for to, model in enumerate(self._fleet.models)
            if self._ready_at_s[place, to] <= report.made_at_s
        }
        found = LoadReport(application_utilization=report.utilization, named_metrics=named_metrics(loads))
        self._loads[place] = (report, found)
        return found

    def _as_route(self, client: int, found: ModelRoute) -> Route | None:
        """Shares by name and percent as the simulator takes them."""
        if not found.shares:
            return None
        sums = np.cumsum([share.percent for share in found.shares]) / 100.0
        orders = tuple(
            _order(client, tuple(self._index[name] for name in share.order), tuple(ms / 1000.0 for ms in longest_ms))
            for share, longest_ms in zip(found.shares, found.longest_ms, strict=True)
        )
        return tuple(sums.tolist()), orders


def _seat(world: World) -> int:
    """Where the control plane is: the first cloud, or the site with most people."""
    clouds = [at for at, site in enumerate(world.sites) if site.facts.tier == "cloud"]
    return clouds[0] if clouds else max(range(len(world.sites)), key=lambda at: world.sites[at].population)


def _order(client: int, places: tuple[int, ...], longest_s: tuple[float, ...]) -> Order:
    """As the gateway has it: the first place comes once more, and the client's own if it is another one; for whatever
    wait, unless the last place is bounded, too."""
    if len(places) == 1:
        return Order(places, longest_s)
    again = (0, *(at for at, place in enumerate(places) if at and place == client))
    bounded = tuple(longest_s[at] for at in again) if len(longest_s) == len(places) else ()
    return Order((*places, *(places[at] for at in again)), (*longest_s, *bounded))
