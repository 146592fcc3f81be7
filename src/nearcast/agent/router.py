"""The gateway's keeper: once per second, shares from what was measured; and one Envoy that has them in force.

Decides when Envoy is started again and when files are written: only when they differ. What goes into them is decided
in `planning.routes` (shares, orders) and `gateway.render` (files); which versions are offered, in `reconcile`.

An Envoy that outlived its agent is adopted. So that this disturbs nothing, the first table after it continues the one
that was in force, and waits a moment for fresh measurements of the peers.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from nearcast.agent.backoff import PROCESS
from nearcast.agent.book import ProcessBook
from nearcast.agent.engine_client import EngineClient, EngineReports
from nearcast.agent.gateway import GatewayPort
from nearcast.agent.layout import Layout
from nearcast.agent.measure import MAX_PEERS, Measurements
from nearcast.agent.memory import Memory
from nearcast.agent.ports import Addresses, addresses, prove, reconsider
from nearcast.agent.settings import Settings
from nearcast.agent.states import Event, GatewayAccepted, GatewayLost, GatewayRefused, GatewayUp, Serving
from nearcast.agent.supervise import GATEWAY, until_gone
from nearcast.durable import DiskFull
from nearcast.errors import Bug, InvalidInput, NearcastError
from nearcast.gateway.process import memory_bytes
from nearcast.gateway.render import (
    HEAP_BYTES,
    GatewayFiles,
    GatewayInputs,
    Identity,
    Listen,
    LocalModel,
    Telemetry,
    render,
)
from nearcast.logs import line
from nearcast.planning.network.scouts import is_scout
from nearcast.planning.routes import Observation, RouteTable, route_table
from nearcast.resources.load import LoadReport
from nearcast.resources.plan import siblings
from nearcast.resources.status import ModelDemand, Share

TICK_S: Final = 1.0
SETTLE_S: Final = 3.0
"""How long the first table after an adoption waits for measurements of the peers."""
RETIRE_S: Final = 5.0
"""How long clusters stay after the last file that needed them: requests on their way may still use them."""
REMEMBER_S: Final = 5.0
BASE_TRUST_S: Final = 600.0
"""Without a word from the control plane for longer, the shares of its plan are of another day: costs alone count."""
TEND_S: Final = 5.0
LINGER_S: Final = 0.5
"""Between the first answer that sends peers elsewhere and the end: many round trips, whatever the distance."""
STABLE_S: Final = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aside:
    """What others of the agent know and routes depend on: demand of this node's clients, and how long ago the control
    plane was last heard of (None: not since the start)."""

    demand: Mapping[str, ModelDemand] = field(default_factory=dict)
    contact_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """What the gateway confirmed last."""

    version: str
    generation: int
    table: RouteTable


class Router:
    """Keeps one gateway. For the loop's thread; what blocks runs in others.

    Args:
        gateway: the Envoy.
        settings, layout: of the node.
        node: its name.
        identity: what it shows to peers.
        measurements: of the peers.
        memory: what outlives a restart.
        book: where the process is written down.
        post: hands an event to the reconciler.
        clock: seconds that never go back.
        aside: tells what others know.
    """

    def __init__(
        self,
        gateway: GatewayPort,
        settings: Settings,
        layout: Layout,
        node: str,
        identity: Identity,
        measurements: Measurements,
        memory: Memory,
        book: ProcessBook,
        post: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
        aside: Callable[[], Aside] = Aside,
    ) -> None:
        self._gateway = gateway
        self._aside = aside
        self._began_s = clock()
        self._settings = settings
        self._layout = layout
        self._node = node
        self._identity = identity
        self._measurements = measurements
        self._memory = memory
        self._book = book
        self._post = post
        self._clock = clock
        self._engine = EngineClient(layout.run_dir)
        self._reports = EngineReports(layout.run_dir)
        self._heap_bytes = min(HEAP_BYTES, memory_bytes() // 4)
        self._offer: tuple[int, Serving] | None = None
        self._woken = asyncio.Event()
        self._refused: int | None = None
        self._clusters: tuple[str, float] = ("", 0.0)
        self._retired = ""
        self._remembered: tuple[object, float] = (None, 0.0)
        self._tended_s = clock()
        self._failures = 0
        self._started_s = 0.0
        self._start_at_s = 0.0
        self._previous: RouteTable | None = None
        self._watch: asyncio.Task[None] | None = None
        self.addresses: Addresses = addresses(settings, layout.ports)
        self.in_force: InForce | None = None
        self.load: LoadReport | None = None
        self.share_moves = 0

    def offer(self, generation: int, serving: Serving) -> None:
        """Make the gateway know ``serving``; a later offer replaces one that waits."""
        self._offer = (generation, serving)
        self._measurements.follow(self._asked(serving), _scouts(serving))
        self._woken.set()

    async def replace_identity(self, identity: Identity) -> None:
        """Show another certificate to peers from now on."""
        self._identity = identity
        await asyncio.to_thread(self._gateway.install_identity, identity)

    async def run(self) -> None:
        """Keep the gateway until cancelled."""
        await asyncio.to_thread(self._gateway.install_identity, self._identity)
        await self._settle()
        while True:
            self._woken.clear()  # before the round: what comes during it is for the next one
            if self._offer is not None:
                await self._keep(*self._offer)
            pause_s = min(TICK_S, max(0.0, self._start_at_s - self._clock()) or TICK_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()

    async def stop(self, drain_s: float) -> None:
        """Send peers elsewhere, let requests finish, then end Envoy."""
        if self._watch is not None:
            self._watch.cancel()
        await self._turn_away()
        await asyncio.to_thread(self._gateway.drain_and_stop, timeout_s=drain_s)
        await asyncio.to_thread(self._book.forget, GATEWAY)
        await self._reports.close()

    async def _turn_away(self) -> None:
        if self._offer is None or self.in_force is None or not self._offer[1].plan.callers:
            return
        inputs = replace(self._inputs(self._offer[1], self.in_force.table), leaving=True)
        try:
            await asyncio.to_thread(self._gateway.turn_away, render(inputs), LINGER_S)
        except NearcastError as error:  # they find out by themselves, later
            log.warning(line("peers are not sent away", message=error.message))

    # --- one round ---------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Where an Envoy of ours still runs: continue its table, and wait a moment for measurements."""
        if self._book.find(GATEWAY) is None:
            return
        self._previous = await asyncio.to_thread(self._memory.routes)
        deadline_s = self._clock() + SETTLE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._woken.wait()
        while self._offer is not None and self._clock() < deadline_s:
            if set(self._asked(self._offer[1])) <= self._measurements.estimates.keys():
                return
            await asyncio.sleep(0.05)

    async def _keep(self, generation: int, serving: Serving) -> None:
        self.load = await self._reports.load()
        now_s, aside = self._clock(), self._aside()
        age_s = now_s - self._began_s if aside.contact_age_s is None else aside.contact_age_s
        table = route_table(
            serving.plan,
            frozenset(serving.active),
            self._observations(serving, now_s),
            self._previous,
            now_s,
            self._node,
            guided=age_s <= BASE_TRUST_S,
            payload_bytes={model: each.request_bytes + each.answer_bytes for model, each in aside.demand.items()},
        )
        files = render(self._inputs(serving, table))
        if self._watch is None or self._watch.done():
            await self._bring_up(generation, serving, table, files)
        elif generation != self._refused:  # the reconciler says when to try again, by a new offer
            await self._bring_in(generation, serving, table, files)
        await self._retire(files)
        await self._remember(table)
        await self._tend()

    async def _bring_up(self, generation: int, serving: Serving, table: RouteTable, files: GatewayFiles) -> None:
        """Start or adopt Envoy, not more often than its failures allow."""
        if self._clock() < self._start_at_s:
            return
        try:
            how = await asyncio.to_thread(self._gateway.start_or_adopt, files)
        except NearcastError as error:
            self._failed_start(generation, error)
            return
        pid = self._gateway.pid()
        if pid is None:
            self._failed_start(generation, Bug("Envoy ended just after it had started"))
            return
        self._started_s = self._clock()
        await asyncio.to_thread(self._book.note, GATEWAY, pid)
        with contextlib.suppress(DiskFull):  # proven at the next start
            await asyncio.to_thread(prove, self._layout.ports)
        self._watch = asyncio.create_task(self._until_lost(pid))
        log.info(line(f"gateway {how}", pid=pid, public=self.addresses.public, peer=self.addresses.peer))
        self._post(GatewayUp())
        self._in_force(generation, serving, table, files)

    def _failed_start(self, generation: int, error: NearcastError) -> None:
        self._failures += 1
        self._start_at_s = self._clock() + PROCESS.delay_s(self._failures, f"{self._node}/gateway")
        log.error(line("gateway does not start", attempt=self._failures, message=error.message))
        if isinstance(error, InvalidInput) and reconsider(self._settings, self._layout.ports):
            self.addresses = addresses(self._settings, self._layout.ports)
        self._post(GatewayRefused(generation, _reason(error), error.message))

    async def _bring_in(self, generation: int, serving: Serving, table: RouteTable, files: GatewayFiles) -> None:
        """Put ``files`` in force where they are not, and tell the reconciler of an offer that it waits for."""
        before = self.in_force
        if before is not None and before.version == files.version and before.generation == generation:
            self._in_force(generation, serving, table, files)
            return
        try:
            await asyncio.to_thread(self._gateway.apply, files)
        except NearcastError as error:
            self._refused = generation
            log.warning(line("gateway refuses", generation=generation, message=error.message))
            self._post(GatewayRefused(generation, _reason(error), error.message))
            return
        self._in_force(generation, serving, table, files)

    def _in_force(self, generation: int, serving: Serving, table: RouteTable, files: GatewayFiles) -> None:
        known = self.in_force.generation if self.in_force is not None else None
        self.share_moves += self.in_force is not None and _shares(self.in_force.table) != _shares(table)
        self.in_force = InForce(files.version, generation, table)
        self._previous = table
        if self._clusters[0] != files.clusters.version:
            self._clusters = (files.clusters.version, self._clock())
        if known != generation:
            self._post(GatewayAccepted(generation, serving))

    async def _until_lost(self, pid: int) -> None:
        await until_gone("gateway", pid, self._answers, self._gateway.kill)
        if self._clock() - self._started_s > STABLE_S:
            self._failures = 0
        # The first restart waits for nothing: clients are knocking.
        delay_s = PROCESS.delay_s(self._failures, f"{self._node}/gateway") if self._failures else 0.0
        self._failures += 1
        self._start_at_s = self._clock() + delay_s
        self.in_force = None
        log.error(line("gateway lost", pid=pid))
        self._post(GatewayLost())
        self._woken.set()

    def _answers(self) -> bool:
        try:
            self._gateway.stats("^server.live$")
        except NearcastError:
            return False
        return True

    async def _retire(self, files: GatewayFiles) -> None:
        """Take out clusters that nothing has needed for a while."""
        version, since_s = self._clusters
        in_force = self.in_force
        if in_force is None or in_force.version != files.version or version == self._retired:
            return
        if self._clock() - since_s < RETIRE_S:
            return
        self._retired = version
        try:
            await asyncio.to_thread(self._gateway.retire, files)
        except NearcastError as error:
            log.warning(line("gateway keeps old clusters", message=error.message))

    async def _tend(self) -> None:
        """Keep the logs within their bounds."""
        if self._clock() - self._tended_s >= TEND_S:
            self._tended_s = self._clock()
            await asyncio.to_thread(self._gateway.tend)

    async def _remember(self, table: RouteTable) -> None:
        shares = _shares(table)
        known, at_s = self._remembered
        if self.in_force is not None and shares != known and self._clock() - at_s >= REMEMBER_S:
            self._remembered = (shares, self._clock())
            with contextlib.suppress(DiskFull):  # the next change is remembered
                await asyncio.to_thread(self._memory.keep_routes, table)

    # --- what goes in ------------------------------------------------------------------------------------------------

    def _asked(self, serving: Serving) -> tuple[str, ...]:
        """Whom to measure: peer sites, then siblings, so that a site of many nodes forgets no other site."""
        plan = serving.plan
        peers = (peer.site.name for peer in plan.peers if peer.addresses and not is_scout(plan, peer))
        return (*peers, *siblings(plan, self._node))[:MAX_PEERS]

    def _observations(self, serving: Serving, now_s: float) -> dict[str, Observation]:
        estimates = self._measurements.estimates
        found = {site: seen for site, estimate in estimates.items() if (seen := estimate.observation()) is not None}
        if self.load is not None:
            found[serving.plan.site.name] = Observation(measured_at_s=now_s, reachable=True, load=self.load)
        return found

    def _inputs(self, serving: Serving, table: RouteTable) -> GatewayInputs:
        local = (
            LocalModel(key.model, key.version, str(self._engine.model_socket(key))) for key in sorted(serving.local)
        )
        public, peer = self.addresses.public, self.addresses.peer
        return GatewayInputs(
            plan=serving.plan,
            node=self._node,
            listen=Listen(public.host, public.port, peer.host, peer.port, self.addresses.is_public_tls),
            run_dir=str(self._layout.run_dir),
            envoy_dir=str(self._layout.envoy),
            local=tuple(local),
            active=dict(serving.active),
            routes=table,
            max_body_bytes=self._settings.max_body_bytes,
            telemetry=Telemetry(
                access_log=self._settings.access_log,
                access_log_file=str(self._layout.access_log),
                collector=self._settings.collector,
            ),
            heap_bytes=self._heap_bytes,
        )


def _scouts(serving: Serving) -> tuple[str, ...]:
    """Whom to measure for the map of the network only."""
    plan = serving.plan
    return tuple(peer.site.name for peer in plan.peers if peer.addresses and is_scout(plan, peer))


def _shares(table: RouteTable) -> dict[str, tuple[Share, ...]]:
    return {model: route.shares for model, route in table.models.items()}


def _reason(error: NearcastError) -> str:
    if isinstance(error, InvalidInput):
        return "AddressInUse"
    return "Rejected" if isinstance(error, Bug) else "NotConfirmed"
