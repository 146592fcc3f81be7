"""Requests per second of the engine beside the raw ONNX Runtime loop, on the same core, in the same minute.

The raw loop is the limit: `session.run` with nothing around it, at batch sizes 1, 8 and 32, one thread. The engine
gets one core, wrk the other. Rounds are interleaved; the median is reported, every round is kept.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.load import wrk
from bench.models import Subject, subjects
from bench.ports import free_port

CONNECTIONS = (1, 16, 64)
BATCHES = (1, 8, 32)
SECONDS = 4.0
ROUNDS = 3
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


def run(folder: Path) -> dict[str, Any]:
    """All models; returns raw results by model."""
    return {subject.name: _one(subject, folder) for subject in subjects(folder)}


def _one(subject: Subject, folder: Path) -> dict[str, Any]:

    feeds = folder / f"{subject.name}.npz"
    np.savez(feeds, **subject.feeds)
    body, headers = subject.request()
    port = free_port()
    command = ["taskset", "-c", "0", sys.executable, "-m", "bench.engine_server"]
    raw: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    ours: dict[int, list[dict[str, Any]]] = {connections: [] for connections in CONNECTIONS}
    with subprocess.Popen(
        [*command, str(subject.directory), subject.name, str(port)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            profile = server.stdout.readline().strip()
            url = f"http://127.0.0.1:{port}/v2/models/{subject.name}/infer"
            for _ in range(ROUNDS):
                for batch in BATCHES:
                    raw[batch].append(_raw(subject.directory / "model.onnx", feeds, batch))
                for connections in CONNECTIONS:
                    point = wrk(
                        url,
                        pid=server.pid,
                        connections=connections,
                        seconds=SECONDS,
                        body=body,
                        headers=headers,
                        core=1 if (os.cpu_count() or 1) > 1 else None,
                    )
                    ours[connections].append(dataclasses.asdict(point))
                    print(f"  {subject.name} c={connections}: {point.requests_per_s:.0f}/s", file=sys.stderr)
        finally:
            server.kill()
    best = max(statistics.median(values) for values in raw.values())
    return {
        "profile": profile,
        "raw_items_per_s": raw,
        "engine": ours,
        "median_requests_per_s": {c: statistics.median(p["requests_per_s"] for p in ours[c]) for c in CONNECTIONS},
        "median_p99_ms": {c: statistics.median(p["p99_ms"] for p in ours[c]) for c in CONNECTIONS},
        "median_raw_items_per_s": {batch: statistics.median(values) for batch, values in raw.items()},
        "of_best_raw": {c: statistics.median(p["requests_per_s"] for p in ours[c]) / best for c in CONNECTIONS},
    }


def _raw(model: Path, feeds: Path, batch: int) -> float:
    command = ["taskset", "-c", "0", sys.executable, "-c", RAW, str(model), str(feeds), str(batch), "1.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="nearcast-bench-") as name:
        print(json.dumps(run(Path(name)), indent=2))
