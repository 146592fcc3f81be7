"""``python -m nearcast.engine``: one engine process, from its arguments to its exit code.

Decides start and end: claim the run directory, listen on the admin and status sockets, serve until SIGTERM or SIGINT,
drain, exit 0. Everything between is decided elsewhere.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from nearcast import logs
from nearcast.engine import sockets
from nearcast.engine.connection import Connection
from nearcast.engine.desk import DRAIN_S, AdminDesk, StatusDesk
from nearcast.engine.device import Device, open_device
from nearcast.engine.exchange import Endpoint, Limits
from nearcast.engine.serving import Serving, sweep
from nearcast.errors import NearcastError, meaning_of
from nearcast.notify import ignore_signals
from nearcast.resources import wire
from nearcast.resources.device import DEVICE_RULE

if TYPE_CHECKING:
    from nearcast.engine.tracing import Tracing

ADMIN_MODE: Final = 0o600
STATUS_MODE: Final = 0o660
QUEUE: Final = 128
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the loop may keep a worker from handing back its results (Python's default is ten times as long)."""
GC_THRESHOLD: Final = 50_000
"""Requests make no reference cycles: collecting every 700 objects would only cost."""

log = logging.getLogger("nearcast.engine")


def arguments(argv: list[str]) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m nearcast.engine", description="Serve models over Unix sockets.")
    parser.add_argument("--run-dir", type=Path, required=True, help="short directory for sockets, mode 0700")
    parser.add_argument("--queue", type=int, default=QUEUE, metavar="N", help="most requests that wait, per model")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads for one run of a model; 0: as many as cores"
    )
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help=f"{DEVICE_RULE}; auto: CUDA where it works, else cpu"
    )
    parser.add_argument(
        "--device-memory", type=int, default=0, metavar="BYTES", help="device memory that each model may take; 0: all"
    )
    parser.add_argument("--max-body", type=int, default=Limits().body_bytes, metavar="BYTES", help="largest body")
    parser.add_argument("--drain-s", type=float, default=DRAIN_S, metavar="S", help="time to finish on SIGTERM")
    parser.add_argument("--log", type=Path, default=None, metavar="FILE", help="append the log here, not to stderr")
    parser.add_argument("--otlp-traces", default=None, metavar="URL", help="export spans there (default: no spans)")
    parser.add_argument("--name", default="", help="who this engine belongs to, in spans")
    parser.add_argument("--place", default="", metavar="SITE/NODE", help="where it is, as gateways name places")
    return parser.parse_args(argv)


def tracing_of(given: argparse.Namespace) -> "Tracing | None":
    """What makes spans; None, and nothing of OpenTelemetry loaded, where nobody asked for them."""
    if given.otlp_traces is None:
        return None
    tracing: Tracing = importlib.import_module("nearcast.engine.tracing").Tracing(given.otlp_traces, given.name)
    return tracing


async def serve(
    run_dir: Path,
    *,
    queue: int,
    threads: int,
    max_body: int,
    drain_s: float,
    device: Device,
    tracing: "Tracing | None" = None,
    place: str = "",
) -> None:
    """Serve until the process is told to end, then drain."""
    loop = asyncio.get_running_loop()
    ended, hurried = asyncio.Event(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _told, ended, hurried)
    site, _, node = place.partition("/")
    serving = Serving(threads, Limits(body_bytes=max_body), device, tracing, (site, node))
    desks: list[StatusDesk | AdminDesk] = [StatusDesk(serving), AdminDesk(serving, run_dir, queue)]
    opened = [
        await _open(desks[0], run_dir / wire.ENGINE_STATUS, STATUS_MODE),
        await _open(desks[1], run_dir / wire.ENGINE_ADMIN, ADMIN_MODE),
    ]
    sweeping = loop.create_task(_sweep(serving, desks))
    log.info("engine %d listens in %s, models run on %s", os.getpid(), run_dir, device)
    await ended.wait()
    log.info("draining")
    for listening, server in opened:
        sockets.remove(listening)
        server.close()
    await _drain(serving, drain_s, hurried)
    for desk in desks:
        for connection in list(desk.connections):
            connection.close()
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping
    serving.close()
    ignore_signals()
    log.info("engine %d ends", os.getpid())


async def _drain(serving: Serving, drain_s: float, hurried: asyncio.Event) -> None:
    """Unload everything, or stop to wait for that once ``hurried``."""
    tasks = [asyncio.create_task(serving.unload_all(drain_s)), asyncio.create_task(hurried.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _told(ended: asyncio.Event, hurried: asyncio.Event) -> None:
    """A signal to end: after draining at the first, at once at the second."""
    (hurried if ended.is_set() else ended).set()


async def _open(endpoint: Endpoint, path: Path, mode: int) -> tuple[sockets.Listening, asyncio.Server]:
    listening = sockets.listen(path, mode)
    loop = asyncio.get_running_loop()
    return listening, await loop.create_unix_server(lambda: Connection(endpoint), sock=listening.socket)


async def _sweep(serving: Serving, desks: list[StatusDesk | AdminDesk]) -> None:
    while True:
        await asyncio.sleep(1.0)
        serving.sweep()
        for desk in desks:
            sweep(desk.connections)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: list[str]) -> int:
    """Run one engine; returns its exit code."""
    given = arguments(argv)
    logs.set_up(file=given.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD, 20, 100)
    given.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    threads = given.threads or cores()
    try:
        claim = sockets.claim(given.run_dir)
        device = open_device(given.device, given.device_memory)
        tracing = tracing_of(given)
        uvloop.run(
            serve(
                given.run_dir,
                queue=given.queue,
                threads=threads,
                max_body=given.max_body,
                drain_s=given.drain_s,
                device=device,
                tracing=tracing,
                place=given.place,
            )
        )
        if tracing is not None:
            tracing.close()
    except NearcastError as error:
        log.error("%s", error.message)  # noqa: TRY400  the message says it all
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        return meaning_of(error).exit_code
    os.close(claim)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
