"""The engine on a CUDA device beside the engine on the processor and the raw loop, on one machine.

    python -m bench.cuda OUT_FOLDER

Needs a CUDA device, `onnx`, and what the engine needs: httptools, uvloop, msgspec, numpy, tokenizers,
prometheus-client, onnxruntime-gpu. No network, no wrk, no other part of nearcast. Takes about five minutes. Writes
OUT_FOLDER/cuda.json, which belongs into bench/results/.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import uvloop

from bench import onnx_models
from bench.ports import free_port
from nearcast.engine.connection import Connection
from nearcast.engine.device import Device, device_memory, open_device
from nearcast.engine.exchange import Limits
from nearcast.engine.loading import Order
from nearcast.engine.refusal import Refusal
from nearcast.engine.runtime import OnnxModel
from nearcast.engine.serving import Serving
from nearcast.errors import NearcastError
from nearcast.resources.release import File, ReleaseManifest, Signature, Tensor, decode_release, encode_release

TOKENS = 32
CONNECTIONS = (1, 16, 64, 256)
BATCHES = {"cuda": (1, 2, 4, 8, 16, 32, 64, 128, 256), "cpu": (1, 8, 32)}
POINT_S = {"cuda": 0.5, "cpu": 1.5}
LOAD_S = 4.0
CALLERS = 4


def subjects(folder: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Name -> folder of a model, and one row of input."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (1, TOKENS), dtype=np.int64)
    image = rng.standard_normal((1, 3, 224, 224), dtype=np.float32)
    made = {
        "encoder-small": (onnx_models.encoder(folder / "small", hidden=384, layers=6, heads=12), ids),
        "encoder-large": (onnx_models.encoder(folder / "large", hidden=1024, layers=24, heads=16), ids),
        "residual": (onnx_models.residual(folder / "residual"), image),
    }
    for name, (directory, row) in made.items():
        _describe(directory, name, row)
    return made


def _describe(directory: Path, name: str, row: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    given, out = session.get_inputs()[0], session.get_outputs()[0]
    shape = (-1, *(size if isinstance(size, int) else -1 for size in given.shape[1:]))
    kind = "INT64" if row.dtype == np.int64 else "FP32"
    manifest = ReleaseManifest(
        model=name,
        version="1",
        runtime="onnx",
        task="tensor",
        entrypoint="model.onnx",
        files=(File(path="model.onnx", digest="0" * 64, size_bytes=(directory / "model.onnx").stat().st_size),),
        signature=Signature(
            inputs=(Tensor(name=given.name, datatype=kind, shape=shape),),  # type: ignore[arg-type]
            outputs=(Tensor(name=out.name, datatype="FP32", shape=(-1, *out.shape[1:])),),
        ),
        created_at=datetime.now(UTC).isoformat(),
    )
    (directory / "manifest.json").write_bytes(encode_release(manifest))


# --- the raw loop ----------------------------------------------------------------------------------------------------


def raw(directory: Path, row: np.ndarray, device: Device) -> dict[str, Any]:
    """Items per second by batch size, of `session.run` and, on a device, of bound inputs and outputs."""
    model = OnnxModel(directory, decode_release((directory / "manifest.json").read_bytes()), _cores(), device)
    found: dict[str, Any] = {}
    for bound in (False, True) if model.can_bind else (False,):
        model.bound = bound
        points = {}
        for batch in BATCHES[device.kind]:
            feeds = [np.repeat(row, batch, axis=0)]
            for _ in range(3):
                model.run(feeds)
            runs, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < POINT_S[device.kind]:
                model.run(feeds)
                runs += 1
            points[batch] = round(runs * batch / (time.perf_counter() - begun), 1)
        found["bound" if bound else "run"] = points
    return found


def agreement(directory: Path, row: np.ndarray, device: Device) -> float:
    """Largest difference between the device's answer and the processor's, relative to the largest value."""
    manifest = decode_release((directory / "manifest.json").read_bytes())
    here, there = (OnnxModel(directory, manifest, _cores(), each).run([row])[0] for each in (Device(), device))
    return float(np.abs(here - there).max() / np.abs(here).max())


# --- the engine ------------------------------------------------------------------------------------------------------


async def serve(directory: Path, port: int, device: Device) -> None:
    """One model on TCP until killed; everything but the kind of socket is what a site runs."""
    manifest = decode_release((directory / "manifest.json").read_bytes())
    with tempfile.TemporaryDirectory(prefix="nc-") as run_dir:
        serving = Serving(_cores(), Limits(), device)
        served = await serving.load(Order(directory, manifest, Path(run_dir) / "m-bench", 4096))
        endpoint = served.endpoint
        assert endpoint is not None
        server = await asyncio.get_running_loop().create_server(lambda: Connection(endpoint), "127.0.0.1", port)
        print(json.dumps(msgspec.to_builtins(served.profile)), flush=True)
        while server.is_serving():
            serving.sweep()
            await asyncio.sleep(1)


def engine(directory: Path, name: str, row: np.ndarray, wish: str, folder: Path) -> dict[str, Any]:
    """Requests per second by number of connections."""
    port = free_port()
    request = folder / f"{name}.http"
    request.write_bytes(_request(name, row))
    command = [sys.executable, "-m", "bench.cuda", "--serve", str(directory), str(port), wish]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            profile = json.loads(server.stdout.readline())
            ready_s = time.perf_counter() - begun
            points = {}
            for connections in CONNECTIONS:
                points[connections] = _load(port, connections, request)
                print(f"  {name} {wish} c={connections}: {points[connections]}", file=sys.stderr)
        finally:
            server.kill()
    return {"profile": profile, "start_to_ready_s": round(ready_s, 2), "connections": points}


def _request(name: str, row: np.ndarray) -> bytes:
    kind, given = ("INT64", "ids") if row.dtype == np.int64 else ("FP32", "image")
    described = {
        "name": given,
        "datatype": kind,
        "shape": list(row.shape),
        "parameters": {"binary_data_size": row.nbytes},
    }
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    body = head + row.tobytes()
    lines = (
        f"POST /v2/models/{name}/infer HTTP/1.1",
        "host: localhost",
        "content-type: application/octet-stream",
        f"inference-header-content-length: {len(head)}",
        f"content-length: {len(body)}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _load(port: int, connections: int, request: Path) -> dict[str, float]:
    callers = min(CALLERS, connections)
    command = [sys.executable, "-m", "bench.posts", str(port), str(connections // callers), str(LOAD_S), str(request)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(callers)]
    answers = [json.loads(each.communicate(timeout=LOAD_S + 60)[0]) for each in started]
    latencies = sorted(value for answer in answers for value in answer["latencies_ms"])
    return {
        "requests_per_s": round(sum(answer["requests"] / answer["seconds"] for answer in answers), 1),
        "p50_ms": statistics.median(latencies) if latencies else 0.0,
        "p99_ms": latencies[int(len(latencies) * 0.99)] if latencies else 0.0,
        "errors": sum(answer["errors"] for answer in answers),
    }


# --- all of it -------------------------------------------------------------------------------------------------------


def measure(folder: Path, wishes: tuple[str, ...] = ("cuda", "cpu")) -> dict[str, Any]:
    """Everything, in the same minutes on the same machine."""
    chosen = {wish: open_device(wish) for wish in wishes}
    memory = device_memory(chosen[wishes[0]])
    result: dict[str, Any] = {
        "machine": {
            "device": msgspec.to_builtins(memory),
            "cores": _cores(),
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
            "providers": onnxruntime.get_available_providers(),
        },
        "auto_chooses": str(open_device("auto")),
        "absent_device": _absent(),
        "models": {},
    }
    for name, (directory, row) in subjects(folder).items():
        print(f"measuring {name}", file=sys.stderr)
        figures: dict[str, Any] = {"size_bytes": (directory / "model.onnx").stat().st_size}
        for wish in wishes:
            figures[wish] = {"raw_items_per_s": raw(directory, row, chosen[wish])}
            figures[wish]["engine"] = engine(directory, name, row, wish, folder)
        figures["difference"] = agreement(directory, row, chosen[wishes[0]])
        result["models"][name] = figures
    result["too_small_a_limit"] = _limited(folder / "large", chosen[wishes[0]])
    return result


def _absent() -> str:
    try:
        return f"chosen: {open_device('cuda:99')}"
    except NearcastError as error:
        return error.message


def _limited(directory: Path, device: Device) -> str:
    """What is said about a model that does not fit into the bound of the device's memory."""
    small = Device(kind=device.kind, index=device.index, memory_limit_bytes=64 * 1024 * 1024)
    try:
        OnnxModel(directory, decode_release((directory / "manifest.json").read_bytes()), _cores(), small)
    except Refusal as refusal:
        return refusal.message[:300]
    return "loaded"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def main(arguments: list[str]) -> None:
    """Measure, or serve for a measurement."""
    if arguments[:1] == ["--serve"]:
        uvloop.run(serve(Path(arguments[1]), int(arguments[2]), open_device(arguments[3])))
        return
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        result = measure(Path(folder), tuple(arguments[1:]) or ("cuda", "cpu"))
    (out / "cuda.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
