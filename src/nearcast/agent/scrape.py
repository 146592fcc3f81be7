"""The node's one scrape target: ``GET /metrics`` on an address of the operator's choice, off unless asked for.

Decides how the figures of agent, gateway and engine come together. One that does not answer is left out (the agent's
own say that it is not ready), so that a scrape succeeds when it matters most. It needs no credential and tells no
secret; that is why loopback is the address to give, and another one is warned of.
"""

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from nearcast.agent.settings import Address
from nearcast.engine.connection import Connection
from nearcast.engine.exchange import Exchange, Limits, Link
from nearcast.engine.headers import Spellings
from nearcast.engine.refusal import Family as ErrorShape
from nearcast.engine.refusal import engine_failure, method_not_allowed, not_found
from nearcast.errors import InvalidInput
from nearcast.logs import line
from nearcast.metrics import document
from nearcast.resources import wire

TIMEOUT_S: Final = 2.0
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
"""Asked for by ``/metrics?format=openmetrics``; the text format is what every scraper reads."""
FRESH_S: Final = 1.0
"""Scrapes that come sooner after one another get the same document: nobody can keep the node busy by asking."""

log = logging.getLogger(__name__)

Gather = Callable[[], Coroutine[Any, Any, list[Family]]]


class Scrape:
    """Serves ``/metrics``. For the loop's thread.

    Args:
        listen: where; port 0 means any free one, told in the log.
        gather: all families of now.
    """

    def __init__(self, listen: Address, gather: Gather, clock: Callable[[], float] = time.monotonic) -> None:
        self.identity = b""
        self.limits = Limits(body_bytes=0, head_bytes=16 * 1024, stall_s=10, request_s=10)
        self.spellings = Spellings()
        self.draining = False
        self.connections: set[Link] = set()
        self._listen = listen
        self._gather = gather
        self._clock = clock
        self._held: tuple[float, list[Family]] | None = None
        self._gathering = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def family(self, target: bytes) -> ErrorShape:
        """Nearcast's own shape of errors."""
        del target
        return "nearcast"

    async def start(self) -> None:
        """Listen.

        Raises:
            InvalidInput: the address is taken, or none of this machine.
        """
        loop = asyncio.get_running_loop()
        host, port = self._listen.host, self._listen.port
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port)
        except OSError as error:
            raise InvalidInput(
                f"cannot serve metrics on {self._listen}: {error.strerror}", hint="give another --metrics IP:PORT"
            ) from error
        bound = Address(host, self.port)
        log.info(line("metrics are served", address=bound))
        if not ipaddress.ip_address(host).is_loopback:
            log.warning(line("whoever reaches the address of the metrics may read them, unencrypted", address=bound))

    async def run(self) -> None:
        """Serve until cancelled; listens first unless it was started.

        Raises:
            InvalidInput: see :meth:`start`.
        """
        if self._server is None:
            await self.start()
        try:
            while True:
                await asyncio.sleep(1.0)
                for connection in list(self.connections):
                    connection.sweep()
        finally:
            self.close()
            for connection in list(self.connections):
                connection.abort()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101  (it was started)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def handle(self, exchange: Exchange) -> None:
        """See `engine.connection.Endpoint`."""
        if exchange.path != wire.METRICS_PATH.encode():
            exchange.refuse(not_found("expected /metrics"))
        elif exchange.method not in {b"GET", b"HEAD"}:
            exchange.refuse(method_not_allowed(exchange.method.decode("latin-1"), "GET, HEAD"))
        else:
            task = asyncio.get_running_loop().create_task(self._answer(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        made: tuple[str, bytes] | None = None
        try:
            async with self._gathering:
                held = self._held
                if held is None or self._clock() - held[0] >= FRESH_S:
                    held = self._held = (self._clock(), await self._gather())
            accept = OPENMETRICS if exchange.target.endswith(b"?format=openmetrics") else ""
            made = await asyncio.to_thread(document, held[1], accept)
        finally:
            if made is None:  # a bug: the loop's handler tells of it, the scraper must not wait for ever
                exchange.refuse(engine_failure("the figures could not be gathered; the agent's log says why"))
            else:
                exchange.reply(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % made[0].encode(), made[1])


async def engine_families(run_dir: Path) -> list[Family]:
    """The figures of the node's engine; none where it does not answer, or answers something else."""
    transport = httpx.AsyncHTTPTransport(uds=str(run_dir / wire.ENGINE_STATUS), retries=0)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://engine", timeout=TIMEOUT_S, trust_env=False
    ) as client:
        try:
            answer = await client.get(wire.METRICS_PATH)
            return list(text_string_to_metric_families(answer.text)) if answer.status_code == 200 else []
        except (httpx.HTTPError, ValueError):
            return []
