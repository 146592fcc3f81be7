"""CPU per request of the full public path beside plain Envoy, at bodies of 1, 32 and 128 KB.

The same binary, one worker thread, on core 0; wrk and a mock engine that answers at once on core 1. `plain` is a
listener, a router and a Unix socket. `nearcast` is what the renderer writes: model out of the body, header hygiene,
route map, composite cluster with retries and outlier detection, answer headers. Bodies are chats of text, the model's
name first (as curl users write it) or last (as openai-python sends it). Rounds are interleaved.
"""

import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.load import pss_mib, wrk
from bench.ports import free_port
from nearcast.control.authority import load_or_create_authority
from nearcast.gateway.apply import Gateway
from nearcast.gateway.envoy import binary
from nearcast.gateway.render import GatewayInputs, Identity, Listen, LocalModel, render
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources import wire
from nearcast.resources.plan import PlannedModel, SiteFacts, SitePlan
from nearcast.resources.status import Share

MODEL = "chat"
FLEET = "bench.nearcast.internal"
KILOBYTES = (1, 32, 128)
CONNECTIONS = 16
SECONDS = 4.0
ROUNDS = 5
TYPE = "type.googleapis.com/envoy.extensions."
HEADERS = {"content-type": "application/json"}


def run(folder: Path) -> dict[str, Any]:
    """All sizes; returns raw points and medians."""
    with _upstream(folder) as engine, _plain(folder, engine) as plain, _ours(folder, engine) as ours:
        candidates = {
            "plain": (plain, "first"),
            "nearcast, model first": (ours, "first"),
            "nearcast, model last": (ours, "last"),
            "nearcast, model in the path": (ours, "path"),
        }
        points: dict[str, dict[int, list[dict[str, Any]]]] = {
            name: {size: [] for size in KILOBYTES} for name in candidates
        }
        for _ in range(ROUNDS):
            for size in KILOBYTES:
                for name, ((port, pid), place) in candidates.items():
                    points[name][size].append(_point(port, pid, size, place))
                    print(f"  {size} KB {name}: {points[name][size][-1]['cpu_us_per_request']} us", file=sys.stderr)
        memory = {"plain": pss_mib(plain[1]), "nearcast": pss_mib(ours[1])}
    median = {
        name: {size: statistics.median(p["cpu_us_per_request"] for p in by_size[size]) for size in KILOBYTES}
        for name, by_size in points.items()
    }
    return {
        "connections": CONNECTIONS,
        "points": points,
        "median_cpu_us_per_request": median,
        "of_plain": {
            name: {size: by_size[size] / median["plain"][size] for size in KILOBYTES}
            for name, by_size in median.items()
            if name != "plain"
        },
        "pss_mib": memory,
    }


def _point(port: int, pid: int, size: int, place: str) -> dict[str, Any]:
    path = f"/m/{MODEL}/v1/chat/completions" if place == "path" else "/v1/chat/completions"
    point = wrk(
        f"http://127.0.0.1:{port}{path}",
        pid=pid,
        connections=CONNECTIONS,
        seconds=SECONDS,
        body=chat(size * 1024, model_first=place != "last"),
        headers=HEADERS,
        core=1 if (os.cpu_count() or 1) > 1 else None,
    )
    if point.errors:
        raise RuntimeError(f"{point.errors} requests failed: this point measures nothing")
    return dataclasses.asdict(point)


def chat(size_bytes: int, *, model_first: bool) -> bytes:
    """A chat of `size_bytes` bytes of JSON."""
    text = 'The place that answers soonest, among those that may. "Quoted", with a line\nbreak. '
    messages: list[dict[str, str]] = []
    document: dict[str, Any] = {"model": MODEL, "messages": messages} if model_first else {"messages": messages}
    if not model_first:
        document["model"] = MODEL
    while len(json.dumps(document)) < size_bytes - 600:
        messages.append({"role": "user", "content": text * 5})
    messages.append({"role": "user", "content": ""})
    messages[-1]["content"] = "x" * max(0, size_bytes - len(json.dumps(document)))
    return json.dumps(document).encode()


@contextmanager
def _upstream(folder: Path) -> Iterator[Path]:
    run_dir = folder / "run"
    run_dir.mkdir(mode=0o700)
    path = run_dir / wire.model_socket(MODEL, "1")
    command = ["taskset", "-c", "1", sys.executable, "-m", "bench.upstream", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield path
        finally:
            process.kill()


@contextmanager
def _plain(folder: Path, engine: Path) -> Iterator[tuple[int, int]]:
    """Port and pid of an Envoy that only proxies."""
    port = free_port()
    manager = {
        "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "v",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "engine",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(engine)}}}}]}],
        },
    }
    config = folder / "plain.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    command = [str(binary()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            _pin(process.pid)
            _await(port)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGKILL)


@contextmanager
def _ours(folder: Path, engine: Path) -> Iterator[tuple[int, int]]:
    """Port and pid of an Envoy with the configuration of a site that serves one model."""
    listen = Listen("127.0.0.1", free_port(), "127.0.0.1", free_port())
    site = SiteFacts(name="bench", tier="edge", country="DE", jurisdictions=("EEA", "EU"))
    planned = PlannedModel(model=MODEL, version="1", release="sha256:0", deployment=MODEL)
    inputs = GatewayInputs(
        plan=SitePlan(fleet=FLEET, site=site, version=1, revision="r", models=(planned,), catalog=(MODEL,)),
        node="n",
        listen=listen,
        run_dir=str(folder / "run"),
        envoy_dir=str(folder / "envoy"),
        local=(LocalModel(MODEL, "1", str(engine)),),
        active={MODEL: "1"},
        routes=RouteTable(models={MODEL: ModelRoute("routed", (Share(percent=100, order=("bench",)),))}),
    )
    gateway = Gateway(folder / "envoy", folder / "run", folder / "envoy.log", concurrency=1)
    gateway.install_identity(_identity(folder))
    gateway.start_or_adopt(render(inputs))
    pid = gateway.pid()
    assert pid is not None
    try:
        _pin(pid)
        _await(listen.public_port)
        yield listen.public_port, pid
    finally:
        gateway.kill()


def _identity(folder: Path) -> Identity:
    now = datetime.now(UTC)
    authority = load_or_create_authority(folder / "ca", FLEET, now)
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    issued = authority.issue_node(request.public_bytes(Encoding.PEM).decode(), "bench", "n", now)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Identity(issued.pem, key_pem, authority.pem)


def _pin(pid: int) -> None:
    """All threads of `pid` on core 0."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {0})


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
