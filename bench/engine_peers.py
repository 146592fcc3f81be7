"""The model servers that the engine is measured beside: how each is started, and what one request to it looks like.

Each runs the same session (bench/servers/onnx_session.py) on the same core, configured as its documentation advises
for speed. Where a server has no binary form of tensors, or a faster one of its own, it gets that.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.models import Subject
from bench.peers import ROOT, environment

SERVERS = ROOT / "bench" / "servers"
START_S = 60.0

Request = tuple[str, bytes, dict[str, str]]
"""Path, body, headers."""


@dataclass(frozen=True)
class Peer:
    """One server under comparison.

    Attributes:
        name: as it is known.
        requirements: what its environment holds; empty for our own.
        command: its command line, from (python of its environment, directory, model, port).
        request: one inference.
        note: how it is set up.
        base: the Python that its environment is made of.
    """

    name: str
    requirements: tuple[str, ...]
    command: Callable[[Path, Path, str, int], list[str]]
    request: Callable[[Subject], Request]
    note: str
    base: str = sys.executable

    def python(self) -> Path:
        """The Python of its environment; installs it at the first call."""
        if not self.requirements:
            return Path(sys.executable)
        home = environment(self.name.lower(), "onnxruntime", "numpy", *self.requirements, base=self.base)
        return home / "bin" / "python"


def _oip(subject: Subject) -> Request:
    return f"/v2/models/{subject.name}/infer", *subject.request()


def _raw(subject: Subject) -> Request:
    return "/inference", b"".join(feed.tobytes() for feed in subject.feeds.values()), {}


def _oip_json(subject: Subject) -> Request:
    kinds = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
    inputs = [
        {"name": name, "shape": feed.shape, "datatype": kinds[str(feed.dtype)], "data": feed.ravel().tolist()}
        for name, feed in subject.feeds.items()
    ]
    return f"/v2/models/{subject.name}/infer", json.dumps({"inputs": inputs}).encode(), _JSON


def _named_json(subject: Subject) -> Request:
    return "/predict", json.dumps({name: feed.tolist() for name, feed in subject.feeds.items()}).encode(), _JSON


def _one_array(subject: Subject) -> Request:
    row = [value for feed in subject.feeds.values() for value in feed.ravel().tolist()]
    return "/infer", json.dumps({"x": [row]}).encode(), _JSON


def _module(name: str) -> Callable[[Path, Path, str, int], list[str]]:
    return lambda python, directory, model, port: [str(python), "-m", f"bench.{name}", str(directory), model, str(port)]


def _script(name: str) -> Callable[[Path, Path, str, int], list[str]]:
    return lambda python, directory, model, port: [str(python), str(SERVERS / f"with_{name}.py")]


def _granian(python: Path, directory: Path, model: str, port: int) -> list[str]:
    del directory, model
    options = ["--interface", "rsgi", "--loop", "uvloop", "--workers", "1", "--http", "1", "--no-access-log"]
    target = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(SERVERS), "with_granian:app"]
    return [str(python.parent / "granian"), *options, *target]


def _mlserver(python: Path, directory: Path, model: str, port: int) -> list[str]:
    folder = directory / "mlserver"
    folder.mkdir(exist_ok=True)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": port + 1,
        "metrics_port": port + 2,
        "parallel_workers": 0,
        "metrics_endpoint": None,
    }
    batching = {} if model == "tiny" else {"max_batch_size": 32, "max_batch_time": 0.002}
    (folder / "settings.json").write_text(json.dumps(settings))
    described = {"name": model, "implementation": "with_mlserver.Infer", **batching}
    (folder / "model-settings.json").write_text(json.dumps(described))
    return [str(python.parent / "mlserver"), "start", str(folder)]


def _bentoml(python: Path, directory: Path, model: str, port: int) -> list[str]:
    del directory, model
    place = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(SERVERS)]
    return [str(python.parent / "bentoml"), "serve", "with_bentoml:Infer", *place]


def _system_python() -> str:
    """Triton's Python backend brings a libpython that is older than the standard libraries of newer patch releases."""
    system = Path("/usr/bin/python3")
    return str(system) if system.exists() else sys.executable


_JSON = {"content-type": "application/json"}

OURS = Peer("nearcast", (), _module("engine_server"), _oip, "all features on")
BARE = Peer("bare Protocol", (), _module("bare"), _oip, "no limits, errors, metrics, threads: bench/bare.py")
OTHERS = (
    Peer("Mosec", ("mosec",), _script("mosec"), _raw, "raw bytes, one worker, batches of 32 or 2 ms"),
    Peer("Granian", ("granian", "uvloop", "msgspec"), _granian, _oip, "RSGI, uvloop, batches by loop tick, binary"),
    Peer(
        "Triton",
        ("nvidia-pytriton",),
        _script("triton"),
        _oip,
        "nvidia-pytriton: Python backend, dynamic batching without delay, binary",
        base=_system_python(),
    ),
    Peer("KServe", ("kserve",), _script("kserve"), _oip, "binary tensors; it does not batch"),
    Peer("MLServer", ("mlserver",), _mlserver, _oip_json, "no parallel workers; batches of 32 or 2 ms, none on tiny"),
    Peer(
        "LitServe", ("litserve",), _script("litserve"), _named_json, "fast queue; batches of 32 or 2 ms, none on tiny"
    ),
    Peer("BentoML", ("bentoml",), _bentoml, _one_array, "one worker; adaptive batching, none on tiny"),
)


@contextmanager
def running(peer: Peer, subject: Subject, port: int, core: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server of ``peer``, ready to answer, on one core; stopped with all its processes at the end.

    Raises:
        RuntimeError: it did not come up; the message holds the end of its log.
    """
    rows = {name: [feed.dtype.str, feed.shape] for name, feed in subject.feeds.items()}
    (subject.directory / "rows.json").write_text(json.dumps(rows))
    command = ["taskset", "-c", str(core), *peer.command(peer.python(), subject.directory, subject.name, port)]
    inherited = os.environ.get("PYTHONPATH", "")
    settings = {
        "BENCH_SERVER": f"{subject.directory};{subject.name};{port}",
        "PYTHONPATH": str(SERVERS) if peer.requirements else inherited,
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{peer.python().parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **settings}, start_new_session=True
        ) as process,
    ):
        try:
            _wait(peer, subject, port, process, log)
            yield process
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End its whole process group, gently first."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)


def _wait(peer: Peer, subject: Subject, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until one inference was answered with 200."""
    path, body, headers = peer.request(subject)
    end = time.monotonic() + START_S
    answer = ""
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.2)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = f"{response.status} {response.read()[:300]!r}"
            if response.status == 200:
                return
        except OSError as error:
            answer = str(error)
        finally:
            connection.close()
    tail = log.read_text(errors="replace")[-600:]
    raise RuntimeError(f"{peer.name} did not answer within {START_S:.0f} s; last: {answer}; log: {tail}")
