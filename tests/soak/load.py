"""A load of requests that come when they come (Poisson), not when the last one was answered; every answer is checked.

A client knows all gateways, as a user behind an anycast address or a DNS name with several records does. It retries in
one case only: its connection broke, or was refused, because the gateway at its other end had just been killed. Then it
asks the next gateway, once. A request that no place took since every queue was full is counted apart. Everything else
that is not a right answer is a failure.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

from nearcast.resources import wire

BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}]}
TIMEOUT_S = 30.0
IN_FLIGHT = 512
EXCUSE_S = 8.0
"""For how long after a killed gateway is back a broken connection to it is its own: clients find out when they ask."""


@dataclass
class Tally:
    """What the clients saw. Times in seconds from the begin of the load."""

    answers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    failures: list[dict[str, object]] = field(default_factory=list)
    rerouted: list[dict[str, object]] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    not_sent: int = 0

    @property
    def answered(self) -> int:
        return sum(self.answers.values())


class Load:
    """Requests to all gateways and models in turn. ``rate_per_s`` None: as fast as ``clients`` get answers."""

    def __init__(
        self, gateways: dict[str, str], models: tuple[str, ...], *, rate_per_s: float | None, clients: int, seed: int
    ) -> None:
        self.gateways, self.models, self.rate_per_s, self.clients = gateways, models, rate_per_s, clients
        self.tally = Tally()
        self.killed: dict[str, float] = {}
        self._dice = random.Random(seed)  # noqa: S311 - a load, not a secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def excuse(self, site: str) -> None:
        """The gateway of ``site`` is about to be killed."""
        self.killed[site] = float("inf")

    def is_back(self, site: str) -> None:
        """It answers again."""
        self.killed[site] = time.monotonic()

    def answered_at(self, site: str, model: str) -> int:
        """Right answers of ``model`` by ``site``, through its own gateway: both live while this grows."""
        return sum(
            count
            for (gateway, place, served), count in list(self.tally.answers.items())
            if gateway == place == site and served.partition("@")[0] == model
        )

    async def _run(self) -> None:
        self._begin_s = time.monotonic()
        limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as session:
            if self.rate_per_s is None:
                await asyncio.gather(*(self._closed(session) for _ in range(self.clients)))
            else:
                await self._open(session, self.rate_per_s)

    async def _closed(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            await self._ask(session)

    async def _open(self, session: aiohttp.ClientSession, rate_per_s: float) -> None:
        asked: set[asyncio.Task[None]] = set()
        due_s = time.monotonic()
        while not self._stop.is_set():
            due_s += self._dice.expovariate(rate_per_s)
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if len(asked) >= IN_FLIGHT:
                self.tally.not_sent += 1
                continue
            task = asyncio.create_task(self._ask(session))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        model = self._dice.choice(self.models)
        sites = self._dice.sample(sorted(self.gateways), len(self.gateways))
        begin_s = time.monotonic()
        problem = await self._post(session, sites[0], model)
        if problem and problem["kind"] == "connection" and self._is_excused(sites[0]):
            self.tally.rerouted.append(problem)
            problem = await self._post(session, sites[1], model)
        if problem and problem["kind"] == wire.CODE_QUEUE_FULL:
            self.tally.refused += 1
        elif problem:
            self.tally.failures.append(problem)
        now_s = time.monotonic()
        self.tally.waits.append((round(begin_s - self._begin_s, 3), round(now_s - begin_s, 4)))

    async def _post(self, session: aiohttp.ClientSession, site: str, model: str) -> dict[str, object] | None:
        """What went wrong, or None."""
        at_s = round(time.monotonic() - self._begin_s, 2)
        problem: dict[str, object] = {"at_s": at_s, "gateway": site, "model": model}
        try:
            async with session.post(f"http://{self.gateways[site]}/v2/models/{model}/infer", json=BODY) as answer:
                if answer.headers.get(wire.ERROR) == wire.CODE_QUEUE_FULL:
                    return problem | {"kind": wire.CODE_QUEUE_FULL}
                if answer.status != 200:
                    text = f"{answer.status} {(await answer.text())[:300]} {answer.headers.get('x-nearcast-site')}"
                    return problem | {"kind": "status", "text": text}
                served = answer.headers.get("x-nearcast-model", "?")
                values = (await answer.json())["outputs"][0]["data"]
        except TimeoutError:
            return problem | {"kind": "timeout", "text": f"no answer within {TIMEOUT_S:.0f} s"}
        except (aiohttp.ClientError, OSError) as error:
            return problem | {"kind": "connection", "text": f"{type(error).__name__}: {error}"}
        constant = float(served.partition("@")[2] or "nan")
        if served.partition("@")[0] != model or values != [
            1.0 + constant,
            2.0 + constant,
            3.0 + constant,
            4.0 + constant,
        ]:
            return problem | {"kind": "wrong", "text": f"{served} answered {values}"}
        self.tally.answers[site, answer.headers.get("x-nearcast-site", "?"), served] += 1
        return None

    def _is_excused(self, site: str) -> bool:
        return time.monotonic() - self.killed.get(site, float("-inf")) < EXCUSE_S


@contextmanager
def load(
    gateways: dict[str, str], models: tuple[str, ...], *, rate_per_s: float | None, clients: int = 24, seed: int = 0
) -> Iterator[Load]:
    """A load that runs while the block does."""
    running = Load(gateways, models, rate_per_s=rate_per_s, clients=clients, seed=seed)
    running._thread.start()
    try:
        yield running
    finally:
        running._stop.set()
        running._thread.join(TIMEOUT_S + 10)
