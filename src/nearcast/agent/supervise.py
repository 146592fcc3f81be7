"""The engine process: started in a session of its own, found again after the agent's death, watched, stopped.

Decides which process is ours: pid and start time on record and a live socket, or whoever listens on the engine's admin
socket where the record was lost. Does not decide when to start it again (`node`), nor what it serves (`reconcile`).
The engine outlives its agent: nothing here ties its life to ours. Envoy has the same in `gateway.envoy`.
"""

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nearcast
from nearcast.agent.book import ProcessBook, ProcessRecord, is_alive
from nearcast.agent.engine_client import EngineClient
from nearcast.errors import Unavailable
from nearcast.gateway.process import started_at, work_done
from nearcast.logs import bound, line
from nearcast.resources import wire
from nearcast.resources.revision import revision_of

ENGINE: Final = "engine"
GATEWAY: Final = "gateway"
START_S: Final = 30.0
"""How long an engine may take until its sockets answer."""
LOOK_S: Final = 1.0
"""Between two looks whether a process that lives still answers; a look itself waits two seconds for the answer."""
STUCK_LOOKS: Final = 2
"""So many looks in a row without an answer, and without a moment of processor time: it is stopped or stuck."""
SILENT_LOOKS: Final = 7
"""So many without an answer, though it works: no load starves a process for so long (some twenty seconds)."""
_POLL_S: Final = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineLaunch:
    """How an engine is started."""

    run_dir: Path
    log_file: Path
    threads: int = 0
    drain_s: float = 5.0
    device: str = "auto"
    device_memory_bytes: int = 0
    max_body_bytes: int = wire.BODY_BYTES
    otlp_traces: str | None = None
    name: str = ""
    place: str = ""

    def command(self) -> list[str]:
        """The command line."""
        return [
            *(sys.executable, "-m", "nearcast.engine"),
            *("--run-dir", str(self.run_dir)),
            *("--log", str(self.log_file)),
            *("--threads", str(self.threads)),
            *("--drain-s", f"{self.drain_s:g}"),
            *("--device", self.device),
            *("--device-memory", str(self.device_memory_bytes)),
            *("--max-body", str(self.max_body_bytes)),
            *("--place", self.place),
            *(() if self.otlp_traces is None else ("--otlp-traces", self.otlp_traces, "--name", self.name)),
        ]

    def how(self) -> str:
        """Content hash of what a running engine cannot change any more."""
        return revision_of([self.command(), nearcast.__version__, *_runtime_versions()])


def _runtime_versions() -> list[str]:
    """Versions of the distributions that bring ONNX Runtime: the plain one, the one with CUDA, or both."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(importlib.metadata.version(name))
    return found


class EngineProcess:
    """At most one engine, started here or adopted. Methods block and are called from one thread at a time."""

    def __init__(self, launch: EngineLaunch, book: ProcessBook, client: EngineClient) -> None:
        self._launch = launch
        self._book = book
        self._client = client
        self._record: ProcessRecord | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""
        return self._record.pid if self._record is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the process that was started or adopted still runs; collects a dead child."""
        if self._child is not None and self._child.poll() is not None:
            return False
        return self._record is not None and is_alive(self._record)

    def adopt(self) -> bool:
        """Take up an engine that runs already, if it was started the way we would and answers; else end it.

        Returns:
            Whether there is one now.
        """
        self.is_alive()  # collects a child that has died
        record = self._book.find(ENGINE)
        if record is None:
            pid = self._client.pid()
            record = None if pid is None else self._book.note(ENGINE, pid, self._launch.how())
        if record is None:
            return False
        self._record, self._child = record, None
        if record.how == self._launch.how() and self._answers(START_S):
            return True
        self.stop(self._launch.drain_s)
        return False

    def start(self) -> None:
        """Start an engine in its own session and wait until it answers.

        Raises:
            Unavailable: it ended, or did not answer in time; then it is gone.
        """
        self._launch.log_file.parent.mkdir(parents=True, exist_ok=True)
        bound(self._launch.log_file)
        with self._launch.log_file.open("ab") as output:
            child = subprocess.Popen(
                self._launch.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._launch.run_dir,
                start_new_session=True,
            )
        self._child = child
        self._record = self._book.note(ENGINE, child.pid, self._launch.how())
        if self._answers(START_S):
            return
        code = child.poll()
        self.kill()
        what = f"exited with {code}" if code is not None else f"did not answer within {START_S:g} s"
        raise Unavailable(f"the engine {what}; see {self._launch.log_file}")

    def stop(self, grace_s: float) -> None:
        """Ask it to finish and end, at most ``grace_s``, then make it."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + 5.0
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._book.forget(ENGINE)

    def _signal(self, number: signal.Signals) -> None:
        if self._record is not None and self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._record.pid, number)

    def _answers(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self.is_alive() and time.monotonic() < deadline:
            if self._client.is_live():
                return True
            time.sleep(_POLL_S)
        return False


async def gone(pid: int) -> None:
    """Return when the process ``pid`` has ended: at once by its pidfd (Linux), else within a fifth of a second.

    The caller must know that ``pid`` is the process it means, and looks again afterwards: a pid may be reused between
    its look and this call.
    """
    if not hasattr(os, "pidfd_open"):
        while started_at(pid) is not None:  # noqa: ASYNC110 - the system offers nothing to wait on
            await asyncio.sleep(0.2)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def until_gone(what: str, pid: int, answers: Callable[[], bool], kill: Callable[[], None]) -> None:
    """Return when the process ``pid`` has ended; one that lives and answers nobody is ended.

    Args:
        what: the process, for the log.
        pid: see :func:`gone`.
        answers: whether it answers, within some seconds; blocks.
        kill: ends it at once; blocks.
    """
    ending = asyncio.create_task(gone(pid))
    silence = Silence()
    try:
        while not (await asyncio.wait([ending], timeout=LOOK_S))[0]:
            answered = await asyncio.to_thread(answers)
            silence = silence.after(answered=answered, work=work_done(pid))
            if silence.is_death:
                log.error(line(f"{what} answers nobody", pid=pid, looks=silence.looks, idle=silence.idle))
                await asyncio.to_thread(kill)
                silence = Silence()
    finally:
        ending.cancel()


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a process has answered nobody. Pure.

    Attributes:
        looks: looks in a row without an answer.
        idle: of these, the last ones in a row during which it used no processor time.
        work: what it had used by the last look; None where that is not known.
    """

    looks: int = 0
    idle: int = 0
    work: int | None = None

    @property
    def is_death(self) -> bool:
        """Whether it will not answer any more."""
        return self.idle >= STUCK_LOOKS or self.looks >= SILENT_LOOKS

    def after(self, *, answered: bool, work: int | None) -> "Silence":
        """The silence after one more look."""
        if answered:
            return Silence(work=work)
        idle = self.idle + 1 if work is not None and work == self.work else 0
        return Silence(self.looks + 1, idle, work)
