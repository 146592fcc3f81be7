"""Requests per second of the engine beside the raw ONNX Runtime loop, the bare Protocol, and other model servers.

The raw loop is the limit: `session.run` with nothing around it, at batch sizes 1, 8 and 32, just before and just after
each turn of ours, to which that turn is compared. Each server gets one core, wrk the other; all run the same session
with one intra-op thread. Servers take their turns within a model: ours and the bare Protocol before, amid and after the
others, so that a machine that grows slower meanwhile shows. Every point is kept. A server that cannot be installed or
does not answer here is told of with the reason.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine_peers import BARE, OTHERS, OURS, Peer, running
from bench.load import wrk
from bench.models import Subject, subjects
from bench.ports import free_port

CONNECTIONS = (1, 16, 64)
BATCHES = (1, 8, 32)
SECONDS = 2.0
SLOW_SECONDS = 5.0
"""For models of milliseconds: in 2 s a server runs so few batches that the last one counts for much."""
RAW_SECONDS = 1.0
PROBE_PAUSE_S = 0.02
RAW = """
import json, sys, time
import numpy as np, onnxruntime
path, feeds, batch, seconds = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options)
inputs = {name: np.repeat(feeds[name], batch, axis=0) for name in feeds.files}
for _ in range(5):
    session.run(None, inputs)
runs, start = 0, time.perf_counter()
while time.perf_counter() - start < seconds:
    session.run(None, inputs)
    runs += 1
print(json.dumps(runs * batch / (time.perf_counter() - start)))
"""


def run(folder: Path, others: Sequence[Peer] = OTHERS) -> dict[str, Any]:
    """All models; returns raw results by model."""
    notes = {peer.name: peer.note for peer in (OURS, BARE, *others)}
    return {"notes": notes, "models": {subject.name: _one(subject, folder, others) for subject in subjects(folder)}}


def _one(subject: Subject, folder: Path, others: Sequence[Peer]) -> dict[str, Any]:
    feeds = folder / f"{subject.name}.npz"
    np.savez(feeds, **subject.feeds)
    raw: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    turns: list[dict[int, float]] = []
    servers: dict[str, dict[int, list[dict[str, Any]]]] = {}
    unable: dict[str, str] = {}
    half = len(others) // 2
    for peer in (OURS, BARE, *others[:half], OURS, BARE, *others[half:], BARE, OURS):
        before = _raws(subject, feeds) if peer is OURS else {}
        try:
            points = _points(peer, subject, folder)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            unable[peer.name] = str(error)[-400:]
            print(f"  {subject.name} {peer.name}: {error}", file=sys.stderr)
            continue
        for connections, point in points.items():
            servers.setdefault(peer.name, {}).setdefault(connections, []).append(point)
        if peer is OURS:
            after = _raws(subject, feeds)
            for batch in BATCHES:
                raw[batch] += [before[batch], after[batch]]
            best = max((before[batch] + after[batch]) / 2 for batch in BATCHES)
            turns.append({connections: point["requests_per_s"] / best for connections, point in points.items()})
    return {
        "raw_items_per_s": raw,
        "servers": servers,
        "unable": unable,
        "new_connection": _new_connections(subject, folder),
        "median_raw_items_per_s": {batch: statistics.median(values) for batch, values in raw.items()},
        "median_requests_per_s": {
            name: {c: statistics.median(each["requests_per_s"] for each in found[c]) for c in found}
            for name, found in servers.items()
        },
        "of_best_raw_by_turn": turns,
        "of_best_raw": {c: statistics.median(turn[c] for turn in turns) for c in CONNECTIONS},
    }


def _raws(subject: Subject, feeds: Path) -> dict[int, float]:
    return {batch: _raw(subject.directory / "model.onnx", feeds, batch) for batch in BATCHES}


def _points(peer: Peer, subject: Subject, folder: Path) -> dict[int, dict[str, Any]]:
    port = free_port()
    path, body, headers = peer.request(subject)
    points = {}
    with running(peer, subject, port, 0, folder / "server.log") as server:
        for connections in CONNECTIONS:
            point = wrk(
                f"http://127.0.0.1:{port}{path}",
                pid=server.pid,
                connections=connections,
                seconds=SECONDS if subject.name == "tiny" else SLOW_SECONDS,
                body=body,
                headers=headers,
                core=1 if (os.cpu_count() or 1) > 1 else None,
            )
            points[connections] = dataclasses.asdict(point)
            print(f"  {subject.name} {peer.name} c={connections}: {point.requests_per_s:.0f}/s", file=sys.stderr)
    return points


def _new_connections(subject: Subject, folder: Path) -> dict[str, float]:
    """Milliseconds from connecting anew to the answer of a health check, while 64 connections keep the engine busy."""
    port = free_port()
    path, body, headers = OURS.request(subject)
    waits: list[float] = []
    over = threading.Event()

    def probe() -> None:
        time.sleep(0.5)
        while not over.wait(PROBE_PAUSE_S):
            begun = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/v2/health/live")
            connection.getresponse().read()
            connection.close()
            waits.append((time.perf_counter() - begun) * 1e3)

    with running(OURS, subject, port, 0, folder / "server.log") as server:
        probing = threading.Thread(target=probe)
        probing.start()
        try:
            url = f"http://127.0.0.1:{port}{path}"
            wrk(url, pid=server.pid, connections=64, seconds=4.0, body=body, headers=headers, core=1)
        finally:
            over.set()
            probing.join()
    waits.sort()
    return {
        "probes": len(waits),
        "p50_ms": statistics.median(waits),
        "p99_ms": waits[int(len(waits) * 0.99)],
        "max_ms": waits[-1],
    }


def _raw(model: Path, feeds: Path, batch: int) -> float:
    command = ["taskset", "-c", "0", sys.executable, "-c", RAW, str(model), str(feeds), str(batch), str(RAW_SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="nearcast-bench-") as name:
        print(json.dumps(run(Path(name)), indent=2))
