"""Processes that are measured: where they listen, on which core they run, and how they end."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import tree
from bench.ports import await_port


@dataclass(frozen=True)
class Running:
    """A server on a port of the loopback interface, and its process; children count as it."""

    port: int
    pid: int
    scheme: str = "http"


def pin(pid: int, core: int = 0) -> None:
    """All threads of `pid`, and of its children, on one core."""
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        for process in tree(pid):
            for task in Path(f"/proc/{process}/task").iterdir():
                os.sched_setaffinity(int(task.name), {core})


def on_core(core: int, command: list[str]) -> list[str]:
    """`command` on one core, where there are several."""
    return ["taskset", "-c", str(core), *command] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else command


@contextmanager
def server(command: list[str], port: int, log: Path, *, core: int = 0, timeout_s: float = 60.0) -> Iterator[Running]:
    """A server that is started by `command` and listens on `port` when it is ready; it and its children are ended."""
    with (
        log.open("wb") as output,
        subprocess.Popen(on_core(core, command), stdout=output, stderr=output, start_new_session=True) as process,
    ):
        try:
            await_port(port, timeout_s=timeout_s, alive=lambda: process.poll() is None)
            yield Running(port, process.pid)
        except TimeoutError as error:
            raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}") from error
        finally:
            for pid in reversed(tree(process.pid) if process.poll() is None else []):
                os.kill(pid, 9)


@contextmanager
def mock(*addresses: Path | int) -> Iterator[int]:
    """A mock engine at `addresses`; its process id."""
    command = on_core(1, [sys.executable, "-m", "bench.upstream", *map(str, addresses)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()
