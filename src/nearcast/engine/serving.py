"""The model versions of one engine: how they come, serve side by side, and go.

Decides the life of a model version: loading (on a thread, nothing listens yet), ready (its socket listens), draining
(the socket is gone, connections finish), unloaded. Loads run one after another, so that one does not disturb what
another measures. What stands here is only in memory: an engine that is restarted serves nothing until it is told.
"""

import asyncio
import contextlib
import gc
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

from nearcast.engine import loading, sockets
from nearcast.engine.connection import Connection
from nearcast.engine.costs import capacity, model_profile
from nearcast.engine.device import Device, device_memory
from nearcast.engine.endpoint import ModelEndpoint
from nearcast.engine.exchange import Limits, Link
from nearcast.engine.lane import Lane
from nearcast.engine.loading import Key, Loaded, Order
from nearcast.engine.memory import give_back, memory_share
from nearcast.engine.oip import InferCodec
from nearcast.engine.patience import Patience
from nearcast.engine.profile import Profile
from nearcast.engine.reading import Readers
from nearcast.engine.refusal import Refusal
from nearcast.engine.worker import LoopTime, SharedTime, waits
from nearcast.resources import wire
from nearcast.resources.load import LoadReport, ModelLoad, named_metrics
from nearcast.resources.release import release_digest
from nearcast.resources.status import EngineProfile, ModelProfile

if TYPE_CHECKING:
    from nearcast.engine.tracing import Tracing

SOCKET_MODE: Final = 0o660
STRAGGLERS_S: Final = 0.1
"""How long a draining model stays for requests that were on their way when its socket went."""
POLL_S: Final = 0.02
REST_EVERY: Final = 10
"""Sweeps between two looks whether the engine rests, and may return what its allocator keeps for the next crowd."""

State = Literal["loading", "ready", "draining"]

log = logging.getLogger("nearcast.engine")


class Served:
    """One model version from its order to its end."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.digest = release_digest(order.manifest)
        self.state: State = "loading"
        self.profile: Profile | None = None
        self.footprint_bytes = 0
        self.load_s = 0.0
        self.endpoint: ModelEndpoint | None = None
        self.listening: sockets.Listening | None = None
        self.server: asyncio.Server | None = None
        self.ready: asyncio.Task[None] | None = None
        self.gone: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """``model@version``."""
        return wire.model_at(*self.order.key)


class Serving:
    """All model versions of this engine. Belongs to the loop's thread.

    Args:
        threads: threads for one run of a model.
        limits: bounds of each connection.
        device: where models run.
        tracing: makes spans; None for none.
        place: site and node that this engine belongs to.
    """

    def __init__(
        self,
        threads: int,
        limits: Limits,
        device: Device | None = None,
        tracing: "Tracing | None" = None,
        place: tuple[str, str] = ("", ""),
    ) -> None:
        self._tracing = tracing
        self._patience = Patience(*place)
        self._threads = threads
        self._limits = limits
        self.device = device or Device()
        self._loop = asyncio.get_running_loop()
        self._served: dict[Key, Served] = {}
        self._shared = SharedTime(perf_counter)
        self._crowd: set[Lane] = set()
        self._loop_time = LoopTime()
        self._totals = (0.0, 0)
        self._sweeps = 0
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._readers = Readers()

    # --- loading -------------------------------------------------------------------------------------------------

    async def load(self, order: Order) -> Served:
        """Serve what ``order`` says; returns when its socket listens. The same order again changes nothing.

        Raises:
            Refusal: 422 the model cannot be served; 409 something else stands in its place.
        """
        served = self._served.get(order.key)
        if served is not None and served.gone is not None:
            await asyncio.shield(served.gone)
            served = self._served.get(order.key)
        if served is None:
            self._check(order)
            served = Served(order)
            self._served[order.key] = served
            served.ready = self._loop.create_task(self._bring_up(served))
        elif served.digest != release_digest(order.manifest) or served.order.socket != order.socket:
            raise _conflict(f"{served.name} is served already, from another release or at another socket")
        if served.ready is not None:
            await asyncio.shield(served.ready)
        return served

    def _check(self, order: Order) -> None:
        loading.check(order.manifest)
        for other in self._served.values():
            if other.order.socket == order.socket:
                raise _conflict(f"socket {order.socket.name} belongs to {other.name}")

    async def _bring_up(self, served: Served) -> None:
        try:
            loaded = await self._loop.run_in_executor(
                self._loading, loading.load, served.order, self._threads, self.device
            )
            if served.gone is None:
                await self._listen(served, loaded)
        except BaseException:
            if served.gone is None:
                del self._served[served.order.key]
            raise

    async def _listen(self, served: Served, loaded: Loaded) -> None:
        order, manifest = served.order, served.order.manifest
        lane = Lane(
            served.name,
            loaded.model,
            loaded.profile,
            pad=loaded.pad,
            queue=order.queue,
            loop=self._loop,
            shared=self._shared,
            crowd=self._crowd,
        )
        lane.gauges.sample(perf_counter())
        make, connection = (ModelEndpoint, Connection) if self._tracing is None else self._tracing.kinds()
        endpoint = make(
            InferCodec(
                manifest.model,
                manifest.version,
                manifest.signature,
                batched=loaded.profile.max_batch > 1,
                pad=loaded.pad,
            ),
            lane,
            loaded.embedder,
            readers=self._readers,
            limits=self._limits,
            patience=self._patience,
        )
        served.listening = sockets.listen(order.socket, SOCKET_MODE)
        served.server = await self._loop.create_unix_server(
            lambda: connection(endpoint), sock=served.listening.socket, backlog=sockets.BACKLOG
        )
        served.endpoint, served.profile, served.state = endpoint, loaded.profile, "ready"
        served.footprint_bytes, served.load_s = loaded.footprint_bytes, loaded.load_s
        _settle()
        log.info("serving %s at %s: %s", served.name, order.socket.name, loaded.profile)

    # --- unloading -----------------------------------------------------------------------------------------------

    async def unload(self, key: Key, drain_s: float) -> None:
        """Stop serving ``key``: its socket goes at once, what is in flight has ``drain_s`` to finish. Idempotent."""
        served = self._served.get(key)
        if served is None:
            return
        if served.gone is None:
            served.gone = self._loop.create_task(self._take_down(served, drain_s))
        await asyncio.shield(served.gone)

    async def unload_all(self, drain_s: float) -> None:
        """Stop serving everything."""
        await asyncio.gather(*(self.unload(key, drain_s) for key in list(self._served)))

    async def _take_down(self, served: Served, drain_s: float) -> None:
        try:
            if served.ready is not None:
                with contextlib.suppress(Refusal, OSError, asyncio.CancelledError):
                    await served.ready
            if served.endpoint is not None:
                await self._drain(served, served.endpoint, drain_s)
        finally:
            self._served.pop(served.order.key, None)
        served.endpoint = served.server = None
        _settle()
        log.info("unloaded %s", served.name)

    async def _drain(self, served: Served, endpoint: ModelEndpoint, drain_s: float) -> None:
        served.state = "draining"
        endpoint.draining = True
        if served.listening is not None:
            sockets.remove(served.listening)
        if served.server is not None:
            served.server.close()
        end_s = self._loop.time() + drain_s
        quiet_s = self._loop.time()
        while (now_s := self._loop.time()) < end_s:
            if not all(connection.is_idle for connection in endpoint.connections):
                quiet_s = now_s
            elif now_s - quiet_s >= STRAGGLERS_S or not endpoint.connections:
                break
            await asyncio.sleep(POLL_S)
        endpoint.lane.close()
        await asyncio.sleep(0)  # let refusals be written
        for connection in list(endpoint.connections):
            if connection.is_idle:
                connection.close()
            else:
                connection.abort()

    def close(self) -> None:
        """Release the threads."""
        self._loading.shutdown(wait=False)
        self._readers.close()

    # --- telling -------------------------------------------------------------------------------------------------

    def all(self) -> list[Served]:
        """Everything that is served, loading or draining, oldest first."""
        return list(self._served.values())

    def lanes(self) -> list[tuple[str, str, Lane]]:
        """Model, version and lane of everything that is ready, oldest first."""
        return [
            (*served.order.key, served.endpoint.lane)
            for served in self._served.values()
            if served.endpoint is not None and served.state == "ready"
        ]

    def loads(self) -> list[tuple[str, str, ModelLoad]]:
        """Model, version and load of everything that is ready. What drains still works, so the others wait for it."""
        found = self._working()
        waits_s = _waits([lane for _, lane in found])
        loop_s = self._loop_time.recent()
        return [
            (*served.order.key, lane.load(wait_s, loop_s))
            for (served, lane), wait_s in zip(found, waits_s, strict=True)
            if served.state == "ready"
        ]

    def _working(self) -> list[tuple[Served, Lane]]:
        return [(served, served.endpoint.lane) for served in self._served.values() if served.endpoint is not None]

    def report(self) -> LoadReport:
        """How busy this engine is. Of a model that is ready in two versions, the one loaded last is reported."""
        memory = device_memory(self.device)
        loop_s = self._loop_time.recent()
        recent = [served.endpoint.lane.recent() for served in self._served.values() if served.endpoint is not None]
        answered_per_s = sum(each.answered_per_s for each in recent)
        busy = sum(each.utilization for each in recent) + answered_per_s * loop_s
        return LoadReport(
            application_utilization=min(1.0, busy),
            mem_utilization=memory_share(),
            rps_fractional=answered_per_s,
            eps=sum(each.failed_per_s for each in recent),
            named_metrics=named_metrics({model: load for model, _, load in self.loads()}),
            device=str(self.device),
            device_mem_utilization=memory.used_bytes / memory.total_bytes if memory is not None else 0.0,
        )

    def profiles(self) -> list[ModelProfile]:
        """What each model that is ready costs here, oldest first."""
        loop_s = self._loop_time.per_request_s
        return [
            model_profile(
                served.order.key,
                served.profile,
                served.endpoint.lane,
                footprint=served.footprint_bytes,
                load_s=served.load_s,
                loop_s=loop_s,
            )
            for served in self._served.values()
            if served.endpoint is not None and served.profile is not None and served.state == "ready"
        ]

    def profile(self) -> EngineProfile:
        """What this engine has, and what its models cost."""
        held_bytes = sum(served.footprint_bytes for served in self._served.values())
        return EngineProfile(capacity=capacity(self.device, held_bytes), profiles=tuple(self.profiles()))

    def sweep(self) -> None:
        """Keep time limits, take samples, learn; call once per second."""
        now_s = perf_counter()
        inline_s, answered = 0.0, 0
        for served in self._served.values():
            if served.endpoint is not None:
                gauges = served.endpoint.lane.gauges
                gauges.sample(now_s)
                inline_s += gauges.inline_s
                answered += gauges.answered
                sweep(served.endpoint.connections)
        inline_before_s, answered_before = self._totals
        self._totals = (inline_s, answered)
        if answered < answered_before:  # a model has gone, and its counts with it: nothing is known of this second
            self._loop_time.sample(now_s, math.inf, 0)
        else:
            self._loop_time.sample(now_s, max(0.0, inline_s - inline_before_s), answered - answered_before)
        self._sweeps += 1
        if self._sweeps % REST_EVERY == 0 and self._rests():
            give_back()

    def _rests(self) -> bool:
        """Whether no model has work, and no connection a request."""
        ends = [served.endpoint for served in self._served.values() if served.endpoint is not None]
        return all(end.lane.is_idle and all(each.is_idle for each in end.connections) for end in ends)


def sweep(connections: set[Link]) -> None:
    """Keep the time limits of ``connections``; call once per second."""
    for connection in list(connections):
        connection.sweep()


def _settle() -> None:
    """What a model is made of lives long: collections need not look at it again, until one of them has gone."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _waits(lanes: Sequence[Lane]) -> list[float]:
    return waits([lane.ahead_s() for lane in lanes], [lane.gauges.service_s for lane in lanes])


def _conflict(message: str) -> Refusal:
    return Refusal(409, wire.CODE_CONFLICT, message)
