"""The full public path beside plain Envoy, nginx and AI gateways: CPU per request, rates, latencies, memory.

One worker (or process) of each on core 0; wrk and a mock engine that answers at once on core 1. `plain Envoy` is a
listener, a router and a Unix socket. `nearcast` is what a site has: model out of the body, header hygiene, route map,
retries and outlier detection, health checks, answer headers, request ids, statistics, access log of errors. Bodies are
chats of text, the model's name first (as curl users write it) or last (as openai-python sends it). A stream is 20
events within 100 ms. Each load goes to every candidate in turn, then the next load, then all of it again; a ratio is
the median of the ratios of the rounds, each of two points that are seconds apart, so that a machine which is slow for a
while is so for both. LiteLLM costs a hundred times as much, so it gets one round. Everybody's children count.
"""

import dataclasses
import json
import os
import ssl
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import envoys, proxies
from bench.load import tree_pss_mib, wrk
from bench.machine import versions
from bench.ports import free_port
from bench.running import Running, mock
from bench.upstream import MODEL

PLAIN, OURS = "plain Envoy", "nearcast"
SECONDS = 2.0
SLOW_SECONDS = 8.0
ROUNDS = 4
HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True)
class Load:
    """What is asked, by how many connections."""

    name: str
    connections: int
    kilobytes: int
    stream: bool = False
    reconnects: bool = False


BODIES = (Load("1 KB", 16, 1), Load("32 KB", 16, 32), Load("128 KB", 16, 128))
OTHERS = (Load("1 KB, 1 connection", 1, 1), Load("1 KB, 64 connections", 64, 1), Load("stream", 64, 1, stream=True))
TLS = (*BODIES, Load("1 KB, new connections", 16, 1, reconnects=True))
SLOW = (BODIES[0], Load("stream", 16, 1, stream=True))
"""For what takes tens of milliseconds of CPU: 64 at once would wait for seconds."""


@dataclass(frozen=True)
class Candidate:
    """A gateway, how it is asked, and with what."""

    name: str
    running: Running
    loads: tuple[Load, ...]
    place: str = "first"
    rounds: int = ROUNDS


def run(folder: Path) -> dict[str, Any]:
    """All candidates; returns raw points and medians."""
    before = os.getloadavg()[0]
    with _candidates(folder) as (candidates, absent):
        points: dict[str, dict[str, list[dict[str, Any]]]] = {c.name: {} for c in candidates}
        for candidate in candidates:
            _warm(candidate)
        for number in range(ROUNDS):
            for name in dict.fromkeys(load.name for candidate in candidates for load in candidate.loads):
                for candidate, load in _asked(candidates, name, number):
                    point = _point(candidate, load)
                    points[candidate.name].setdefault(load.name, []).append(point)
                    told = f"{point['cpu_us_per_request']:.1f} us, {point['requests_per_s']:.0f}/s"
                    print(f"  {number + 1}/{ROUNDS} {candidate.name}, {load.name}: {told}", file=sys.stderr)
        memory = {c.name: tree_pss_mib(c.running.pid) for c in candidates if c.place == "first"}
    median = {name: {load: _median(found) for load, found in by_load.items()} for name, by_load in points.items()}
    return {
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "points": points,
        "median": median,
        "of_plain": {name: _of_plain(name, points) for name in points},
        "pss_mib": memory,
        "absent": absent,
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
        "versions": versions(proxies.ENVIRONMENTS),
    }


def _asked(candidates: list[Candidate], load_name: str, number: int) -> list[tuple[Candidate, Load]]:
    """Who is asked with this load in this round."""
    return [
        (candidate, load)
        for candidate in candidates
        for load in candidate.loads
        if load.name == load_name and number < candidate.rounds
    ]


def _of_plain(name: str, points: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, float]:
    """Times the CPU of plain Envoy under the same load in the same round; with TLS that of plain Envoy with TLS."""
    plain = points[f"{PLAIN}, TLS" if "TLS" in name else PLAIN]
    return {
        load: statistics.median(
            each["cpu_us_per_request"] / base["cpu_us_per_request"]
            for each, base in zip(found, plain[load], strict=False)  # a slow candidate has fewer rounds
        )
        for load, found in points[name].items()
    }


def _median(points: list[dict[str, Any]]) -> dict[str, float]:
    wanted = ("cpu_us_per_request", "requests_per_s", "p50_ms", "p99_ms")
    return {name: statistics.median(point[name] for point in points) for name in wanted}


@contextmanager
def _candidates(folder: Path) -> Iterator[tuple[list[Candidate], dict[str, str]]]:
    """All that are here, started; and why the others are not."""
    every = (*BODIES, *OTHERS)
    absent: dict[str, str] = {}
    open_site, tls_site = envoys.place(folder, "open"), envoys.place(folder, "closed", tls=True)
    engine, engine_port = open_site.socket(MODEL), free_port()
    with ExitStack() as stack:
        sites = [path for site in (open_site, tls_site) for path in (site.socket(MODEL), site.status_socket)]
        stack.enter_context(mock(*sites, engine_port))
        pair = envoys.self_signed(folder)
        plain = stack.enter_context(envoys.plain(folder, engine))
        ours = stack.enter_context(envoys.ours(folder, open_site, envoys.inputs(open_site, MODEL)))
        plain_tls = stack.enter_context(envoys.plain(folder, engine, pair))
        ours_tls = stack.enter_context(envoys.ours(folder, tls_site, envoys.inputs(tls_site, MODEL), pair))
        found = [
            Candidate(PLAIN, plain, every),
            Candidate(OURS, ours, every),
            Candidate(f"{OURS}, model last", ours, BODIES, "last"),
            Candidate(f"{OURS}, model in the path", ours, BODIES, "path"),
            Candidate(f"{PLAIN}, TLS", _secure(plain_tls), TLS),
            Candidate(f"{OURS}, TLS", _secure(ours_tls), TLS),
        ]
        if proxies.has_nginx():
            found.insert(1, Candidate("nginx", stack.enter_context(proxies.nginx(folder, engine)), every))
            nginx_tls = stack.enter_context(proxies.nginx(folder, engine, pair))
            found.append(Candidate("nginx, TLS", _secure(nginx_tls), TLS))
        else:
            absent["nginx"] = "not installed (Debian: apt-get install nginx-light)"
        for name, start in proxies.ROUTERS.items():
            slow = name == "LiteLLM"
            try:
                running = stack.enter_context(start(folder, engine_port))
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                absent[name] = str(error).splitlines()[-1] if str(error) else type(error).__name__
                print(f"  {name} is left out: {error}", file=sys.stderr)
                continue
            found.append(Candidate(name, running, SLOW if slow else every, rounds=1 if slow else ROUNDS))
        yield found, absent


def _warm(candidate: Candidate) -> None:
    """One request, with all the time that a first one may take; it must be answered with 200."""
    url = f"{candidate.running.scheme}://127.0.0.1:{candidate.running.port}/v1/chat/completions"
    request = urllib.request.Request(url, chat(1024, model_first=True), HEADERS)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        answer.read()


def _secure(running: Running) -> Running:
    return dataclasses.replace(running, scheme="https")


def _point(candidate: Candidate, load: Load) -> dict[str, Any]:
    path = f"/m/{MODEL}/v1/chat/completions" if candidate.place == "path" else "/v1/chat/completions"
    body = chat(load.kilobytes * 1024, model_first=candidate.place != "last", stream=load.stream)
    point = wrk(
        f"{candidate.running.scheme}://127.0.0.1:{candidate.running.port}{path}",
        pid=candidate.running.pid,
        connections=load.connections,
        seconds=SECONDS if candidate.rounds == ROUNDS else SLOW_SECONDS,
        body=body,
        headers=HEADERS | ({"connection": "close"} if load.reconnects else {}),
        core=1 if (os.cpu_count() or 1) > 1 else None,
    )
    if point.errors or not point.requests:
        raise RuntimeError(f"{candidate.name}, {load.name}: {point.errors} of {point.requests} requests failed")
    return dataclasses.asdict(point)


def chat(size_bytes: int, *, model_first: bool, stream: bool = False) -> bytes:
    """A chat of `size_bytes` bytes of JSON."""
    text = 'The place that answers soonest, among those that may. "Quoted", with a line\nbreak. '
    messages: list[dict[str, str]] = []
    document: dict[str, Any] = {"model": MODEL} if model_first else {}
    document["messages"] = messages
    if stream:
        document["stream"] = True
    if not model_first:
        document["model"] = MODEL
    while len(json.dumps(document)) < size_bytes - 600:
        messages.append({"role": "user", "content": text * 5})
    messages.append({"role": "user", "content": ""})
    messages[-1]["content"] = "x" * max(0, size_bytes - len(json.dumps(document)))
    return json.dumps(document).encode()
