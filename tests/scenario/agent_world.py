"""A node without sockets, threads or waiting: virtual time, an engine that can die, a repository that can lie.

The transcript is what the agent's own log would say, with virtual seconds before each line.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nearcast.agent.engine_client import BrokenOff
from nearcast.agent.memory import Memory
from nearcast.agent.node import Node
from nearcast.agent.pull import Puller
from nearcast.agent.states import (
    EngineLost,
    EngineUp,
    GatewayAccepted,
    GatewayRefused,
    GatewayUp,
    Key,
    Serving,
    State,
)
from nearcast.errors import InvalidInput, NearcastError, NotFound
from nearcast.registry.fetch import FolderFetch
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan
from nearcast.resources.release import File, ReleaseManifest, Signature

SITE = SiteFacts(name="here", tier="edge", country="DE")


def manifest_of(key: Key) -> ReleaseManifest:
    return ReleaseManifest(
        model=key.model,
        version=key.version,
        runtime="onnx",
        task="tensor",
        entrypoint="model.onnx",
        files=(File(path="model.onnx", digest=f"sha256:{key}", size_bytes=100),),
        signature=Signature(inputs=(), outputs=()),
        created_at="then",
    )


def plan_of(version: int, *names: str) -> SitePlan:
    keys = [Key(*name.split("@")) for name in names]
    models = tuple(
        PlannedModel(model=key.model, version=key.version, release=f"sha256:{key}", deployment=key.model)
        for key in keys
    )
    return SitePlan(fleet="f", site=SITE, version=version, revision=f"r{version}", models=models)


class _Now(ThreadPoolExecutor):
    """Runs what is submitted at once, without a thread: under virtual time none may hold the clock up."""

    def __init__(self) -> None:
        super().__init__(1)
        self.broken: list[AssertionError] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except (NearcastError, OSError) as error:
            done.set_exception(error)
        except AssertionError as error:
            self.broken.append(error)
            done.set_exception(error)
        return done


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as nothing is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def jump(timeout: float | None) -> Any:
            if timeout:
                self.now_s += timeout
            assert timeout is not None, "nothing will ever happen again"
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now_s


class World:
    """What surrounds the reconciler's shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = VirtualLoop()
        self.transcript: list[str] = []
        self.offered_plan: SitePlan | NearcastError | None = None
        self.trouble: dict[str, NearcastError] = {}
        self.on_disk: set[str] = set()
        self.deadly: set[str] = set()
        self.refused: set[str] = set()
        self.gateway_refuses = False
        self.in_engine: dict[Key, str] = {}
        self.served: Serving | None = None
        self.crashes = 0
        self.incarnation = 0
        self.memory = Memory(folder)
        self.node: Node

    # --- the ports ---

    def poll_plan(self) -> SitePlan | None:
        return self.verified_plan()

    def verified_plan(self) -> SitePlan | None:
        if isinstance(self.offered_plan, NearcastError):
            raise self.offered_plan
        return self.offered_plan

    def release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        return manifest_of(Key(model, version))

    def verified_release(self, model: str, version: str, digest: str) -> ReleaseManifest:
        if digest not in self.on_disk:
            raise NotFound("never fetched")
        return manifest_of(Key(model, version))

    def refresh_releases(self) -> bool:
        return False

    def verify(self, manifest: ReleaseManifest, progress: object = None) -> Path:
        return self.folder

    def ensure(self, manifest: ReleaseManifest, fetch: object, progress: object = None) -> Path:
        name = f"{manifest.model}@{manifest.version}"
        if name in self.trouble:
            raise self.trouble[name]
        self.on_disk.add(f"sha256:{name}")
        return self.folder

    def collect(self, wanted: Any) -> int:
        gone = self.on_disk - set(wanted)
        self.on_disk -= gone
        return 100 * len(gone)

    def loaded(self) -> Mapping[Key, str]:
        return dict(self.in_engine)

    def load(self, manifest: ReleaseManifest, directory: Path) -> None:
        key = Key(manifest.model, manifest.version)
        if str(key) in self.refused:
            raise InvalidInput("the engine refuses it: no such operator")
        if str(key) in self.deadly:
            self.crash()
            raise BrokenOff("the engine broke off")
        self.in_engine[key] = f"sha256:{key}"

    def unload(self, key: Key, drain_s: float) -> None:
        assert self.served is None or key not in self.served.local, "unloads what is served"
        self.in_engine.pop(key, None)

    def is_live(self) -> bool:
        return True

    def route(self, generation: int, serving: Serving) -> None:
        if self.gateway_refuses:
            self.node.post(GatewayRefused(generation, "Rejected", "no"))
            return
        assert serving.local <= self.in_engine.keys(), "routes to what is not loaded"
        self.served = serving
        self.node.post(GatewayAccepted(generation, serving))

    # --- what happens ---

    def crash(self) -> None:
        """The engine dies and comes back a second later."""
        self.crashes += 1
        self.in_engine.clear()
        self.say("engine lost")
        self.loop.call_soon(self.node.post, EngineLost())
        self.loop.call_later(1.0, self.engine_up)

    def engine_up(self) -> None:
        self.incarnation += 1
        self.node.post(EngineUp(self.incarnation, dict(self.in_engine)))

    def poll(self) -> None:
        self.node.post(self.puller.poll())

    def publish(self, version: int, *names: str) -> None:
        self.offered_plan = plan_of(version, *names)
        self.say(f"published {version}")
        self.poll()

    def say(self, text: str) -> None:
        self.transcript.append(f"{self.loop.now_s:5.1f} {text}")

    def boot(self) -> None:
        """A new agent; the engine and the gateway are as they are."""
        self.puller = Puller(self, self, FolderFetch(self.folder))
        state = State(who="n", last_good=self.memory.last_good())
        self.node = Node(state, self.puller, self, self.memory, self.route, self.loop.time)
        stored = self.puller.stored_plan()
        if stored is not None:
            self.node.post(stored)
        self.engine_up()
        self.node.post(GatewayUp())

    def play(self, story: Callable[["World"], Coroutine[Any, Any, None]]) -> list[str]:
        """Run ``story`` beside the node; the transcript."""
        logger = logging.getLogger("nearcast.agent")
        handler = _Said(self)
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.INFO)
        executor = _Now()
        self.loop.set_default_executor(executor)
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._play(story))
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            asyncio.set_event_loop(None)
            self.loop.close()
        assert not executor.broken
        return self.transcript

    async def _play(self, story: Callable[["World"], Coroutine[Any, Any, None]]) -> None:
        self.boot()
        running = asyncio.create_task(self.node.run())
        await story(self)
        assert not running.done(), running
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class _Said(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.say(record.getMessage())
