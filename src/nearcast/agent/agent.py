"""One agent, wired: its parts, what they are told of one another, and the order in which they begin and stop.

Decides start and end. Start: the plan of before from disk, the engine and the gateway of before adopted, then the
uplink, forever and in the background. End: requests finish, Envoy ends, the engine ends, in some ten seconds at most. A
killed agent leaves both running, and the next one adopts them. What the parts do is decided in them; the process around
them is :mod:`~nearcast.agent.main`'s.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from prometheus_client.core import Metric as Family

import nearcast
from nearcast.agent import metrics
from nearcast.agent.book import ProcessBook
from nearcast.agent.engine_client import EngineClient, EngineReports
from nearcast.agent.identity import Membership, read_credential, read_identity, validity_of
from nearcast.agent.layout import Layout
from nearcast.agent.measure import GatewayProber, Measurements
from nearcast.agent.memory import Memory
from nearcast.agent.meter import Meter
from nearcast.agent.node import Node
from nearcast.agent.poll import Poller
from nearcast.agent.public_tls import PublicTls
from nearcast.agent.pull import Puller, open_puller
from nearcast.agent.renew import Renewer
from nearcast.agent.report import Reporter, Troubles
from nearcast.agent.router import Aside, Router
from nearcast.agent.scrape import Scrape, engine_families
from nearcast.agent.settings import Settings
from nearcast.agent.states import Serving, State
from nearcast.agent.status import Vitals, node_status
from nearcast.agent.supervise import EngineLaunch, EngineProcess
from nearcast.agent.uplink import ControlUplink
from nearcast.errors import NearcastError
from nearcast.gateway.apply import Gateway
from nearcast.logs import line
from nearcast.notify import READY, STOPPING, notify, stay_alive
from nearcast.planning.routes import RouteTable
from nearcast.resources.status import NodeStatus

DRAIN_S: Final = 4.0
"""How long requests may take to finish when the node is stopped."""
ENGINE_STOP_S: Final = 3.0
STOP_S: Final = 15.0
CANCEL_S: Final = 2.0

log = logging.getLogger(__name__)


class Agent:
    """One agent, wired. For the loop's thread.

    Args:
        settings, layout, membership: of the node.

    Raises:
        IntegrityError: identity or trust on disk are damaged.
    """

    def __init__(self, settings: Settings, layout: Layout, membership: Membership) -> None:
        self._settings = settings
        self._layout = layout
        self._member = membership
        self._started_at = _now().isoformat(timespec="seconds").replace("+00:00", "Z")
        book, memory = ProcessBook(layout.processes), Memory(layout.plan)
        engine = EngineClient(layout.run_dir)
        self._prober = GatewayProber(layout.run_dir)
        self._measurements = Measurements(self._prober)
        self._troubles = Troubles()
        self._puller: Puller = open_puller(layout, membership, _now, model_bytes=settings.model_bytes)
        who = f"{membership.site}/{membership.node}"
        self._node = Node(State(who=who, last_good=memory.last_good()), self._puller, engine, memory, self._offer)
        self._gateway = Gateway(
            layout.envoy, layout.run_dir, layout.gateway_log, also_bounded=(layout.access_log, layout.engine_log)
        )
        self._router = Router(
            self._gateway,
            settings,
            layout,
            membership.node,
            read_identity(layout, membership),
            self._measurements,
            memory,
            book,
            self._node.post,
            aside=lambda: Aside(self._meter.demand, self._reporter.contact_age_s),
        )
        self._reports = EngineReports(layout.run_dir)
        self._meter = Meter(self._gateway, self._reports, self._catalog)
        self._engine = EngineProcess(_launch(settings, layout, who), book, engine)
        self._poller = Poller(self._puller, self._node.post, settings.poll_s, who, self._troubles)
        self._uplink = _uplink(layout, membership)
        self._reporter = Reporter(
            self.status,
            self._node.changed,
            self._uplink,
            layout.status,
            settings.status_s,
            lambda newest: self._poller.hint(),
            self._troubles,
        )

    def status(self) -> NodeStatus:
        """How the node stands now."""
        in_force = self._router.in_force
        vitals = Vitals(
            url=self._router.addresses.url,
            peer_address=str(self._router.addresses.advertised_peer),
            accepted=in_force.version if in_force else "",
            routes=in_force.table if in_force else RouteTable(),
            load=self._router.load,
            estimates=self._measurements.estimates,
            engine_restarts=self._node.engine_restarts,
            troubles=self._troubles.now(),
            now_s=time.monotonic(),
            demand=self._meter.demand,
            profiles=self._meter.profiles,
            capacity=self._meter.capacity,
        )
        software = f"nearcast/{nearcast.__version__}"
        return node_status(self._member.site, self._member.node, software, self._started_at, self._node.state, vitals)

    async def figures(self) -> list[Family]:
        """Everything that a scrape of this node tells: agent, gateway and engine."""
        engine, gateway, own = await asyncio.gather(
            engine_families(self._layout.run_dir),
            asyncio.to_thread(self._gateway.families, self._member.site),
            asyncio.to_thread(self._own_figures, self.status()),
        )
        return [*metrics.families(own), *gateway, *engine]

    def _own_figures(self, status: NodeStatus) -> metrics.Figures:
        ends, disk = None, None
        with contextlib.suppress(OSError, NearcastError):
            ends = validity_of(self._layout.certificate.read_text()).ends.timestamp()
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(self._layout.data_dir)
            disk = (usage.free, usage.total)
        tally = replace(self._node.tally, share_moves=self._router.share_moves)
        return metrics.Figures(status, tally, self._reporter.contact_age_s, ends, disk)

    async def run(self, ended: asyncio.Event, hurried: asyncio.Event) -> bool:
        """Run until ``ended``, then stop gateway and engine. True, with both still serving, if a part failed."""
        duties = await self._begin()
        notify(READY)
        failure = await _until(ended, [asyncio.create_task(duty) for duty in duties])
        if failure is not None:
            # Like a killed agent: the gateway and the engine go on serving, and the next agent adopts them.
            log.error(line("a part of the agent failed"), exc_info=failure)
            return True
        log.info(line("agent stops"))
        notify(STOPPING)
        hurrying = asyncio.create_task(self._hurry(hurried))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._stop()
        hurrying.cancel()
        return False

    async def _begin(self) -> list[Coroutine[Any, Any, None]]:
        """Open what the settings ask for, take up the plan of before; what is to be done from now on, without end."""
        public_tls: PublicTls | None = None
        if self._settings.public_tls is not None:
            public_tls = PublicTls(*self._settings.public_tls, self._gateway, self._troubles)
            await public_tls.start()
        scrape: Scrape | None = None
        if self._settings.metrics is not None:
            scrape = Scrape(self._settings.metrics, self.figures)
            await scrape.start()
        stored = await asyncio.to_thread(self._puller.stored_plan)
        if stored is not None:
            self._node.post(stored)
        log.info(line("agent runs", site=self._member.site, node=self._member.node, data_dir=self._layout.data_dir))
        duties: list[Coroutine[Any, Any, None]] = [
            self._node.run(),
            self._node.run_engine(self._engine),
            self._router.run(),
            self._poller.run(),
            self._reporter.run(),
            self._meter.run(),
            stay_alive(),
        ]
        if public_tls is not None:
            duties.append(public_tls.run())
        if scrape is not None:
            duties.append(scrape.run())
        if self._uplink is not None:
            renewer = Renewer(
                self._uplink, self._layout, self._member, self._router.replace_identity, self._troubles, _now
            )
            duties.append(renewer.run())
        return duties

    def _catalog(self) -> frozenset[str]:
        """Models that the plan in force knows."""
        plan = self._node.state.plan
        return frozenset() if plan is None else frozenset({*plan.catalog, *(item.model for item in plan.models)})

    def _offer(self, generation: int, serving: Serving) -> None:
        self._router.offer(generation, serving)

    async def _hurry(self, hurried: asyncio.Event) -> None:
        """Told to stop once more: requests are not waited for any longer."""
        await hurried.wait()
        log.info(line("agent hurries"))
        self._gateway.hurry()
        pid = self._engine.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGTERM)

    async def _stop(self) -> None:
        await self._measurements.stop()
        await self._router.stop(DRAIN_S)
        await asyncio.to_thread(self._engine.stop, ENGINE_STOP_S)
        await asyncio.to_thread(self._layout.leave)
        await self._reporter.last(_stopped(self.status()), 1.0)
        await self._prober.close()
        await self._reports.close()
        if self._uplink is not None:
            await self._uplink.close()


async def _until(ended: asyncio.Event, tasks: list[asyncio.Task[None]]) -> BaseException | None:
    """Wait for the end, or for a task that should never end; then none of ``tasks`` runs. What the task died of."""
    waiting = asyncio.create_task(ended.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiting, *tasks):
        task.cancel()
    _, alive = await asyncio.wait([waiting, *tasks], timeout=CANCEL_S)
    for task in alive:  # stops in order all the same: what it holds ends with the process
        log.error(line("a part of the agent does not end", part=task.get_coro()))
    return next((task.exception() for task in done if task is not waiting and not task.cancelled()), None)


def _launch(settings: Settings, layout: Layout, who: str) -> EngineLaunch:
    """How the engine of the node called ``who`` is started."""
    return EngineLaunch(
        layout.run_dir,
        layout.engine_log,
        settings.engine_threads,
        ENGINE_STOP_S - 1.0,
        settings.device,
        settings.device_memory_bytes,
        settings.max_body_bytes,
        otlp_traces=settings.collector.url if settings.collector else None,
        name=who,
        place=who,
    )


def _uplink(layout: Layout, membership: Membership) -> ControlUplink | None:
    if not membership.control:
        return None
    authority = layout.authority.read_text()
    return ControlUplink(membership.control, authority_pem=authority, credential=read_credential(layout) or None)


def _stopped(status: NodeStatus) -> NodeStatus:
    """``status`` of a node whose gateway and engine have just ended."""
    gateway = msgspec.structs.replace(status.gateway, ready=False, accepted="", message="the agent was stopped")
    engine = msgspec.structs.replace(status.engine, ready=False, message="the agent was stopped")
    return msgspec.structs.replace(
        status, gateway=gateway, engine=engine, load=None, models=(), demand={}, profiles=(), capacity=None
    )


def _now() -> datetime:
    return datetime.now(UTC)
