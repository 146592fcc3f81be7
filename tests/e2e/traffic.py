"""A steady load by aiohttp, which never retries a POST by itself: what fails here failed for a client."""

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 1.0, 1.0, 1.0]}]}


@dataclass
class Outcome:
    """What a load saw. ``answers`` counts (site, first value of y)."""

    answers: Counter[tuple[str, float]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    @property
    def sites(self) -> set[str]:
        return {site for site, _ in self.answers}

    @property
    def values(self) -> set[float]:
        return {value for _, value in self.answers}


class Load:
    """Requests to one gateway from `clients` tasks until stopped; `outcome` may be read while it runs."""

    def __init__(
        self, gateway: str, model: str, *, clients: int, pause_s: float, enter: Callable[[], None] = lambda: None
    ) -> None:
        self.gateway, self.model, self.clients, self.pause_s = gateway, model, clients, pause_s
        self.outcome = Outcome()
        self._stop = threading.Event()
        self._enter = enter
        self._thread = threading.Thread(target=self._work, daemon=True)

    def fresh(self) -> Outcome:
        """Begin a new outcome, and return the old one."""
        old, self.outcome = self.outcome, Outcome()
        return old

    def _work(self) -> None:
        self._enter()
        asyncio.run(self._run())

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        limits = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=limits) as session:
            while not self._stop.is_set():
                await self._ask(session)
                await asyncio.sleep(self.pause_s)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(f"http://{self.gateway}/v2/models/{self.model}/infer", json=BODY) as answer:
                if answer.status != 200:
                    self.outcome.failures.append(f"{answer.status} {dict(answer.headers)} {await answer.text()}")
                    return
                value = (await answer.json())["outputs"][0]["data"][0]
                self.outcome.answers[answer.headers.get("x-nearcast-site", "?"), value] += 1
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.outcome.failures.append(f"{type(error).__name__}: {error}")


class Calls(Load):
    """The same load by gRPC, whose client is told to retry nothing either."""

    async def _client(self) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
        raw = struct.pack("<4f", 1, 1, 1, 1)
        request = service_pb2.ModelInferRequest(model_name=self.model, inputs=[tensor], raw_input_contents=[raw])
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.gateway, options=options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self._stop.is_set():
                call = stub.ModelInfer(request, timeout=20)
                try:
                    (value,) = struct.unpack("<f", (await call).raw_output_contents[0][:4])
                    site = dict(await call.initial_metadata()).get("x-nearcast-site", "?")
                    self.outcome.answers[str(site), value] += 1
                except grpc.aio.AioRpcError as error:
                    self.outcome.failures.append(f"{error.code().name} {error.details()} {error.trailing_metadata()}")
                await asyncio.sleep(self.pause_s)


@contextmanager
def load(
    gateway: str,
    model: str,
    *,
    clients: int = 4,
    pause_s: float = 0.01,
    kind: type[Load] = Load,
    enter: Callable[[], None] = lambda: None,
) -> Iterator[Load]:
    """A load that runs while the block does, in a thread that calls ``enter`` first."""
    running = kind(gateway, model, clients=clients, pause_s=pause_s, enter=enter)
    running._thread.start()
    try:
        yield running
    finally:
        running._stop.set()
        running._thread.join(30)
