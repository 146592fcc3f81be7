"""The shell of a node: hands events to the reconciler, carries its commands out, and keeps the engine running.

It decides nothing about what runs: that is `reconcile`. Everything that blocks runs in threads; a command's outcome,
failure included, comes back as an event. One queue, one loop: the reconciler never runs twice at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, assert_never

from nearcast.agent.backoff import PROCESS
from nearcast.agent.commands import Abandon, Collect, Command, Fetch, Load, Remember, Route, Unload
from nearcast.agent.engine_client import BrokenOff
from nearcast.agent.memory import Memory
from nearcast.agent.pull import Abandoned, Puller
from nearcast.agent.reconcile import step, wake_at_s
from nearcast.agent.states import (
    Blame,
    EngineLost,
    EngineUp,
    Event,
    FetchProgressed,
    Key,
    Loaded,
    LoadFailed,
    Serving,
    State,
    Tick,
    Unloaded,
    UnloadFailed,
)
from nearcast.agent.supervise import until_gone
from nearcast.agent.tally import Tally
from nearcast.agent.tell import told
from nearcast.errors import InvalidInput, NearcastError
from nearcast.logs import line
from nearcast.resources.release import ReleaseManifest

PROGRESS_S: Final = 0.5
"""Between two reports of the progress of one download."""
STABLE_S: Final = 30.0
"""An engine that ran this long was sound: the next failure is a first one."""

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What is asked of the engine; `engine_client.EngineClient` does it. Methods block."""

    def loaded(self) -> Mapping[Key, str]:
        """What it serves: version -> digest of the release."""

    def load(self, manifest: ReleaseManifest, directory: Path) -> None:
        """Serve a release."""

    def unload(self, key: Key, drain_s: float) -> None:
        """Stop serving a version."""

    def is_live(self) -> bool:
        """Whether it answers, within a few seconds."""


class Process(Protocol):
    """The engine's process; `supervise.EngineProcess` is one. Methods block, except `pid`."""

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""

    def adopt(self) -> bool:
        """Take up one that runs already; whether there is one."""

    def start(self) -> None:
        """Start one and wait until it answers."""

    def kill(self) -> None:
        """End it at once."""


class Node:
    """The reconciler's shell. For the loop's thread.

    Args:
        state: to begin with; the plan on disk comes as an event.
        puller, engine, memory: carry commands out.
        route: makes the gateway know something (`router.Router.offer`).
        clock: seconds that never go back.

    Attributes:
        tally: what has happened.
    """

    def __init__(
        self,
        state: State,
        puller: Puller,
        engine: Engine,
        memory: Memory,
        route: Callable[[int, Serving], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = state
        self.changed = asyncio.Event()
        self.engine_restarts = 0
        self.tally = Tally()
        self._puller = puller
        self._engine = engine
        self._memory = memory
        self._route = route
        self._clock = clock
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: dict[Key, list[bool]] = {}
        self._fetching: dict[Key, asyncio.Task[None]] = {}
        self._files = asyncio.Lock()

    def post(self, event: Event) -> None:
        """Something happened. From the loop's thread."""
        self._events.put_nowait(event)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            while True:
                await self._once()
        finally:
            for flags in self._abandoned.values():
                flags[0] = True
            for task in list(self._tasks):
                task.cancel()

    async def run_engine(self, process: Process) -> None:
        """Keep an engine running, adopted or started, until cancelled."""
        failures, incarnation = 0, 0
        while True:
            began_s = self._clock()
            incarnation += 1
            pid = await self._engine_up(process, incarnation)
            if pid is not None:
                await until_gone("engine", pid, self._engine.is_live, process.kill)
                log.error(line("engine lost", pid=pid))
            self.post(EngineLost())
            self.engine_restarts += 1
            failures = 0 if self._clock() - began_s > STABLE_S else failures
            if failures:  # the first restart waits for nothing
                await asyncio.sleep(PROCESS.delay_s(failures, f"{self.state.who}/engine"))
            failures += 1

    async def _engine_up(self, process: Process, incarnation: int) -> int | None:
        """Adopt or start an engine and tell what it serves; its pid, or None where that failed."""
        try:
            adopted = await asyncio.to_thread(process.adopt)
            if not adopted:
                self.post(EngineLost())  # known to be down: the gateway need not wait to ask peers
                await asyncio.to_thread(process.start)
            loaded = await asyncio.to_thread(self._engine.loaded)
        except NearcastError as error:
            log.error(line("engine does not start", message=error.message))  # noqa: TRY400 - the message says it all
            return None
        pid = process.pid
        if pid is not None:
            how = "adopted" if adopted else "started"
            log.info(line(f"engine {how}", pid=pid, serves=",".join(map(str, sorted(loaded))) or None))
            self.post(EngineUp(incarnation, loaded))
        return pid

    # --- one step ----------------------------------------------------------------------------------------------------

    async def _once(self) -> None:
        wake_s = wake_at_s(self.state, self._clock())
        timeout_s = None if wake_s is None else max(0.0, wake_s - self._clock())
        event: Event
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._events.get()
        except TimeoutError:
            event = Tick()
        self.tally.observe(event)
        before = self.state
        self.state, commands = step(self.state, event, self._clock())
        for level, text in told(before, event):
            log.log(level, text)
        for command in commands:
            self._execute(command)
        if self.state is not before:
            self.changed.set()

    def _execute(self, command: Command) -> None:
        match command:
            case Fetch():
                self._fetching[command.key] = self._start(self._fetch(command, self._fetching.get(command.key)))
            case Abandon(key):
                self._abandoned.get(key, [True])[0] = True
            case Load():
                self._start(self._load(command))
            case Unload():
                self._start(self._unload(command))
            case Route(generation, serving):
                self._route(generation, serving)
            case Remember(last_good):
                self._start(asyncio.to_thread(self._memory.keep_last_good, last_good))
            case Collect(keep):
                self._start(self._collect(keep))
            case _:
                assert_never(command)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error(line("a command failed in an unforeseen way", error=repr(error)), exc_info=error)

    # --- commands ----------------------------------------------------------------------------------------------------

    async def _fetch(self, command: Fetch, before: asyncio.Task[None] | None) -> None:
        """One download per version at a time: one that was abandoned ends first."""
        if before is not None:
            await asyncio.wait([before])
        key = command.key
        abandoned = self._abandoned[key] = [False]
        loop = asyncio.get_running_loop()
        told_s = 0.0

        def progress(done_bytes: int, total_bytes: int) -> None:
            nonlocal told_s
            if abandoned[0]:
                raise Abandoned(f"{key} is not wanted any more")
            now_s = self._clock()
            if now_s - told_s >= PROGRESS_S:
                told_s = now_s
                loop.call_soon_threadsafe(self.post, FetchProgressed(key, done_bytes, total_bytes))

        async with self._files:
            pass  # a collection that is under way must not remove what is about to be found
        outcome = await asyncio.to_thread(self._puller.obtain, key, command.release, progress)
        if outcome is not None and not abandoned[0]:
            self.post(outcome)

    async def _load(self, command: Load) -> None:
        incarnation, key = command.incarnation, command.key
        held = self._puller.held(command.release)
        if held is None:
            message = f"the files of {key} are no longer on disk"
            self.post(LoadFailed(incarnation, key, Blame.TRANSIENT, "FilesGone", message, files_gone=True))
            return
        try:
            await asyncio.to_thread(self._engine.load, held.manifest, held.directory)
        except BrokenOff as error:
            self.post(LoadFailed(incarnation, key, Blame.CRASHED, "EngineCrashed", error.message))
        except InvalidInput as error:
            self.post(LoadFailed(incarnation, key, Blame.REFUSED, "EngineRefused", error.message))
        except NearcastError as error:
            self.post(LoadFailed(incarnation, key, Blame.TRANSIENT, "EngineUnavailable", error.message))
        else:
            self.post(Loaded(incarnation, key))

    async def _unload(self, command: Unload) -> None:
        try:
            await asyncio.to_thread(self._engine.unload, command.key, command.drain_s)
        except NearcastError as error:
            self.post(UnloadFailed(command.incarnation, command.key, error.message))
        else:
            self.post(Unloaded(command.incarnation, command.key))

    async def _collect(self, keep: frozenset[str]) -> None:
        async with self._files:
            needed = keep | {unit.release for unit in self.state.units.values()}
            try:
                freed = await asyncio.to_thread(self._puller.collect, needed)
            except (NearcastError, OSError) as error:
                log.warning(line("old releases could not be removed", message=str(error)))
                return
        if freed:
            log.info(line("removed old releases", freed_bytes=freed))
