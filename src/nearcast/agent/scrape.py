"""The node's one scrape target: ``GET /metrics`` on an address of the operator's choice, off unless asked for.

Decides how the figures of agent, gateway and engine come together. One that does not answer is left out (the agent's
own say that it is not ready), so that a scrape succeeds when it matters most. It needs no credential and tells no
secret; that is why loopback is the address to give.
"""

import asyncio
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
from nearcast.engine.exchange import Exchange, Limits
from nearcast.engine.headers import Spellings
from nearcast.engine.refusal import Family as ErrorShape
from nearcast.engine.refusal import method_not_allowed, not_found
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
        self.connections: set[Connection] = set()
        self._listen = listen
        self._gather = gather
        self._clock = clock
        self._held: tuple[float, list[Family]] | None = None
        self._gathering = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def family(self, target: bytes) -> ErrorShape:
        """Nearcast's own shape of errors."""
        del target
        return "nearcast"

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            InvalidInput: the address is taken, or none of this machine.
        """
        loop = asyncio.get_running_loop()
        host, port = self._listen.host, self._listen.port
        try:
            server = await loop.create_server(lambda: Connection(self), host, port)
        except OSError as error:
            raise InvalidInput(
                f"cannot serve metrics on {self._listen}: {error.strerror}", hint="give another --metrics IP:PORT"
            ) from error
        log.info(line("metrics are served", address=Address(host, int(server.sockets[0].getsockname()[1]))))
        try:
            while True:
                await asyncio.sleep(1.0)
                for connection in list(self.connections):
                    connection.sweep()
        finally:
            server.close()
            for connection in list(self.connections):
                connection.abort()

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
        async with self._gathering:
            held = self._held
            if held is None or self._clock() - held[0] >= FRESH_S:
                held = self._held = (self._clock(), await self._gather())
        accept = OPENMETRICS if exchange.target.endswith(b"?format=openmetrics") else ""
        content_type, body = await asyncio.to_thread(document, held[1], accept)
        exchange.reply(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % content_type.encode(), body)


async def engine_families(run_dir: Path) -> list[Family]:
    """The figures of the node's engine; none where it does not answer, or answers something else."""
    transport = httpx.AsyncHTTPTransport(uds=str(run_dir / wire.ENGINE_STATUS), retries=0)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://engine", timeout=TIMEOUT_S, trust_env=False
    ) as client:
        try:
            answer = await client.get(wire.METRICS_PATH)
        except httpx.HTTPError:
            return []
    return list(text_string_to_metric_families(answer.text)) if answer.status_code == 200 else []
