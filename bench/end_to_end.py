"""Client to engine and back, through a gateway and through a peer's gateway, against the sum of the parts.

The parts, in the same rounds: the engine alone (wrk on its TCP port, since wrk cannot connect to Unix sockets), the
gateway alone (in front of a mock that answers at once), the mock alone, and two gateways alone. What a way through
should take is what the engine takes, plus what the gateways add to a mock. Latency at one connection, where nobody
waits for anybody; CPU per request at 16, of all processes on the way but the client and the mock. Servers on core 0,
client and mock on core 1; the tiny model, a binary tensor of 256 bytes, the model in the path.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import envoys
from bench.load import cpu_seconds, wrk
from bench.models import SIZES, Subject, tiny
from bench.ports import free_port
from bench.running import mock, on_core

MODEL = "tiny"
ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = (1, 16)
SUMS = {
    "gateway, engine": ("engine", ("gateway, mock",)),
    "gateway, peer, engine": ("engine", ("gateway, peer, mock",)),
}
"""What is measured as a whole -> the engine, and what the gateways before it take with a mock."""


@dataclass(frozen=True)
class Way:
    """Where requests go in, and the processes on their way that count."""

    port: int
    pids: tuple[int, ...]


def run(folder: Path) -> dict[str, Any]:
    """All ways; returns raw points, medians and sums."""
    subject = Subject(MODEL, tiny(folder / MODEL), {"x": np.ones((1, SIZES[0]), np.float32)})
    before = os.getloadavg()[0]
    with _ways(folder, subject.directory) as ways:
        points: dict[str, dict[int, list[dict[str, float]]]] = {name: {c: [] for c in CONNECTIONS} for name in ways}
        for number in range(ROUNDS):
            for name, way in ways.items():
                for connections in CONNECTIONS:
                    point = _point(way, subject, connections)
                    points[name][connections].append(point)
                    told = f"{point['p50_us']:.0f} us, CPU {point['cpu_us']:.1f} us"
                    print(f"  {number + 1}/{ROUNDS} {name}, c={connections}: {told}", file=sys.stderr)
    latency = {name: statistics.median(point["p50_us"] for point in found[1]) for name, found in points.items()}
    cpu = {name: statistics.median(point["cpu_us"] for point in found[16]) for name, found in points.items()}
    return {
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
        "points": points,
        "median_p50_us": latency,
        "median_cpu_us": cpu,
        "sum_of_parts": {
            whole: {
                "p50_us": latency[engine] + sum(latency[part] - latency["mock"] for part in parts),
                "cpu_us": cpu[engine] + sum(cpu[part] for part in parts),
            }
            for whole, (engine, parts) in SUMS.items()
        },
    }


def _point(way: Way, subject: Subject, connections: int) -> dict[str, float]:
    body, headers = subject.request()
    before = sum(map(cpu_seconds, way.pids))
    found = wrk(
        f"http://127.0.0.1:{way.port}/v2/models/{MODEL}/infer",
        pid=way.pids[0] if way.pids else os.getpid(),
        connections=connections,
        seconds=SECONDS,
        body=body,
        headers=headers,
        core=1 if (os.cpu_count() or 1) > 1 else None,
    )
    if found.errors or not found.requests:
        raise RuntimeError(f"{found.errors} of {found.requests} requests failed: this point measures nothing")
    spent = sum(map(cpu_seconds, way.pids)) - before
    return {
        "p50_us": found.p50_ms * 1e3,
        "p99_us": found.p99_ms * 1e3,
        "requests_per_s": found.requests_per_s,
        "cpu_us": spent / found.requests * 1e6,
    }


@contextmanager
def _ways(folder: Path, directory: Path) -> Iterator[dict[str, Way]]:
    """Four gateways: one before the engine and one before the mock, and before each of these a peer's."""
    real, fake = envoys.place(folder, "real"), envoys.place(folder, "fake")
    to_real, to_fake = envoys.place(folder, "to-real"), envoys.place(folder, "to-fake")
    mock_port, engine_port = free_port(), free_port()
    states = [site.status_socket for site in (real, fake, to_real, to_fake)]
    with ExitStack() as stack:
        stack.enter_context(mock(mock_port, fake.socket(MODEL), *states))
        engine = stack.enter_context(_engine(directory, engine_port, real.socket(MODEL)))

        def gateway(site: envoys.Place, **given: Any) -> envoys.Running:
            return stack.enter_context(envoys.ours(folder, site, envoys.inputs(site, MODEL, **given)))

        before_engine = gateway(real, callers=(to_real,))
        before_mock = gateway(fake, callers=(to_fake,))
        peer_engine, peer_mock = gateway(to_real, peer=real), gateway(to_fake, peer=fake)
        yield {
            "mock": Way(mock_port, ()),
            "engine": Way(engine_port, (engine,)),
            "gateway, mock": Way(before_mock.port, (before_mock.pid,)),
            "gateway, engine": Way(before_engine.port, (before_engine.pid, engine)),
            "gateway, peer, mock": Way(peer_mock.port, (peer_mock.pid, before_mock.pid)),
            "gateway, peer, engine": Way(peer_engine.port, (peer_engine.pid, before_engine.pid, engine)),
        }


@contextmanager
def _engine(directory: Path, port: int, socket: Path) -> Iterator[int]:
    words = [sys.executable, "-m", "bench.engine_server", str(directory), MODEL, str(port), str(socket)]
    with subprocess.Popen(on_core(0, words), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()
