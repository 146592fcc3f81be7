"""How long each process takes to start, and what it holds then: engine with 0 to 3 models, Envoy, agent, control."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.load import pss_mib
from bench.models import subjects
from nearcast.agent.engine_client import EngineClient
from nearcast.gateway.envoy import binary
from nearcast.registry.release import describe

HOLD = "import {}; print('ready', flush=True); input()"


def run(folder: Path) -> dict[str, Any]:
    """Seconds to ready and MiB (proportional set size) by process."""
    return {
        "control, imported": _imported("nearcast.control.server"),
        "agent, imported": _imported("nearcast.agent.main"),
        "gateway (Envoy), ready": _envoy(),
        **_engine(folder),
    }


def _imported(module: str) -> dict[str, float]:
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = {"seconds": time.perf_counter() - begun, "mib": pss_mib(process.pid)}
        process.kill()
    return found


def _envoy() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nc-") as folder:
        pipe = Path(folder) / "admin"
        config = json.dumps({"admin": {"address": {"pipe": {"path": str(pipe)}}}})
        command = [str(binary()), "--config-yaml", config, "--concurrency", "1", "--log-level", "off"]
        with _started(command, pipe.exists) as (process, seconds):
            return {"seconds": seconds, "mib": pss_mib(process.pid)}


def _engine(folder: Path) -> dict[str, dict[str, float]]:
    found = {}
    with tempfile.TemporaryDirectory(prefix="nc-") as run_dir:
        client = EngineClient(Path(run_dir))
        command = [sys.executable, "-m", "nearcast.engine", "--run-dir", run_dir, "--threads", "1"]
        with _started(command, client.is_live) as (process, seconds):
            found["engine, 0 models"] = {"seconds": seconds, "mib": pss_mib(process.pid)}
            for count, subject in enumerate(subjects(folder), start=1):
                manifest = describe(subject.directory, model=subject.name, version="1", now=datetime.now(UTC)).manifest
                begun = time.perf_counter()
                client.load(manifest, subject.directory)
                took_s = time.perf_counter() - begun
                found[f"engine, {count} models (+ {subject.name})"] = {"seconds": took_s, "mib": pss_mib(process.pid)}
    return found


@contextlib.contextmanager
def _started(command: list[str], is_ready: Callable[[], bool]) -> "Iterator[tuple[subprocess.Popen[bytes], float]]":
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not is_ready() and time.perf_counter() - begun < 30:
                time.sleep(0.01)
            yield process, time.perf_counter() - begun
        finally:
            process.kill()
