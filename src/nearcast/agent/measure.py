"""Asking peers how far and how busy they are, through our own gateway: over the very links that requests take.

Decides when to ask (each peer at its own moments: every 1 to 2 s whom requests may go to, every 10 to 20 s who is only
measured for the map of the network) and whom (the plan's peers, at most :data:`MAX_PEERS`, of which :data:`MAX_RARE`
are only measured). So a node sends at most 16 questions per second, 11 on the average. What the answers mean is decided
in `estimate`; the own engine is asked by `engine_client`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import httpx

from nearcast.agent.estimate import Estimate, Probe, updated
from nearcast.errors import InvalidInput
from nearcast.resources import wire
from nearcast.resources.load import MAX_REPORT_BYTES, parse_load

MAX_PEERS: Final = 16
MAX_RARE: Final = 4
LEAST_PAUSE_S: Final = 1.0
MOST_PAUSE_S: Final = 2.0
RARE: Final = 10.0
"""So many times longer is the pause between two questions to a peer that is only measured."""
TIMEOUT_S: Final = 2.5


class Prober(Protocol):
    """Asks one peer once. Never raises: a peer that does not answer is a result."""

    async def probe(self, site: str) -> Probe:
        """One exchange with ``site``; at most a few seconds."""


class GatewayProber:
    """Asks through the probe pipe of the own gateway.

    Args:
        run_dir: where the pipe is.
        clock: seconds that never go back.
    """

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        transport = httpx.AsyncHTTPTransport(
            uds=str(run_dir / wire.ENVOY_PROBE), retries=0, limits=httpx.Limits(max_connections=MAX_PEERS)
        )
        self._client = httpx.AsyncClient(
            transport=transport, base_url="http://gateway", timeout=TIMEOUT_S, trust_env=False
        )
        self._clock = clock

    async def probe(self, site: str) -> Probe:
        """See :class:`Prober`. The round trip runs from the question to the end of the answer."""
        began_s = self._clock()
        body = bytearray()
        try:
            async with self._client.stream("GET", f"/-/peers/{site}/load") as answer:
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_REPORT_BYTES:
                        break
        except httpx.HTTPError as error:
            return Probe(at_s=self._clock(), message=f"no answer to the end: {type(error).__name__}")
        now_s = self._clock()
        if answer.status_code != 200:
            said = bytes(body[:200]).decode(errors="replace")
            return Probe(at_s=now_s, message=f"answered {answer.status_code}: {said}")
        try:
            return Probe(at_s=now_s, round_trip_s=now_s - began_s, load=parse_load(bytes(body)))
        except InvalidInput as error:
            return Probe(at_s=now_s, message=error.message)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class Measurements:
    """The estimates of all peers, kept fresh by one task per peer. For the loop's thread.

    Args:
        prober: asks.
        pause_s: how long to wait between two questions to one peer.
    """

    def __init__(self, prober: Prober, pause_s: Callable[[], float] | None = None) -> None:
        self._prober = prober
        self._pause_s = pause_s or _pause
        self._estimates: dict[str, Estimate] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._rare: frozenset[str] = frozenset()

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """Site -> what is known of it."""
        return dict(self._estimates)

    def follow(self, sites: tuple[str, ...], rare: tuple[str, ...] = ()) -> None:
        """Ask exactly these from now on; what is known of others is forgotten.

        Args:
            sites: whom requests may go to; the first :data:`MAX_PEERS`.
            rare: who is only measured; as many as there is room for, at most :data:`MAX_RARE`.
        """
        often = sites[:MAX_PEERS]
        seldom = tuple(site for site in rare if site not in often)[: min(MAX_RARE, MAX_PEERS - len(often))]
        chosen = (*often, *seldom)
        # Whoever requests may go to from now on is asked at once: its last answer may be many seconds old.
        for site in (set(self._tasks) - set(chosen)) | (self._rare & set(often)):
            self._tasks.pop(site).cancel()
            if site not in chosen:
                self._estimates.pop(site, None)
        self._rare = frozenset(seldom)
        for site in chosen:
            if site not in self._tasks:
                self._tasks[site] = asyncio.create_task(self._ask(site))

    async def stop(self) -> None:
        """Ask nobody any more."""
        tasks = list(self._tasks.values())
        self.follow(())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, site: str) -> None:
        while True:
            probe = await self._prober.probe(site)
            self._estimates[site] = updated(self._estimates.get(site), probe)
            await asyncio.sleep(self._pause_s() * (RARE if site in self._rare else 1.0))


def _pause() -> float:
    return random.uniform(LEAST_PAUSE_S, MOST_PAUSE_S)  # noqa: S311 - jitter, not a secret
