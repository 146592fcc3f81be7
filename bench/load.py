"""Loads from wrk (Debian's package `wrk`), bounded in time, and the CPU that a process spent on them."""

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


class WrkIsMissing(RuntimeError):
    """wrk is not on the PATH."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """One point: what wrk saw, and what the process under test spent."""

    connections: int
    seconds: float
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us_per_request: float


def cpu_seconds(pid: int) -> float:
    """User and system time that ``pid`` and its descendants have spent, all threads, in seconds.

    Read from ``schedstat``, which counts nanoseconds where ``stat`` counts ticks of ten milliseconds.
    """
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for process in tree(pid)
        for task in Path(f"/proc/{process}/task").iterdir()
    )


def tree(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB: shared pages are counted by halves, thirds, …"""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)) / 1024


def tree_pss_mib(pid: int) -> float:
    """That of ``pid`` and its descendants."""
    return sum(pss_mib(process) for process in tree(pid))


def wrk(
    url: str, *, pid: int, connections: int, seconds: float, body: bytes, headers: dict[str, str], core: int | None
) -> Measured:
    """POST ``body`` to ``url`` over ``connections`` keep-alive connections for ``seconds``."""
    if shutil.which("wrk") is None:
        raise WrkIsMissing("the benchmarks need wrk: install Debian's package (`apt-get install wrk`)")
    with _script(body, headers) as script:
        pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
        command = [
            *pin,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:.0f}s",
            "--timeout",
            "30s",
            "--latency",
            "-s",
            str(script),
            url,
        ]
        before = sum(map(cpu_seconds, tree(pid)))
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
        spent = sum(map(cpu_seconds, tree(pid))) - before
    return _parse(answer.stdout, connections, spent)


@contextmanager
def _script(body: bytes, headers: dict[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nearcast-bench-") as folder:
        payload = Path(folder) / "body"
        payload.write_bytes(body)
        lines = [
            'wrk.method = "POST"',
            f'local f = io.open("{payload}", "rb")',
            'wrk.body = f:read("*a")',
            "f:close()",
            *(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()),
        ]
        script = Path(folder) / "post.lua"
        script.write_text("\n".join(lines))
        yield script


def _parse(text: str, connections: int, cpu_s: float) -> Measured:
    requests, seconds = re.search(r"(\d+) requests in ([\d.]+)s", text).groups()  # type: ignore[union-attr]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = (int(bad.group(1)) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Measured(
        connections=connections,
        seconds=float(seconds),
        requests=int(requests),
        requests_per_s=round(int(requests) / float(seconds), 1),
        p50_ms=_latency(text, "50%"),
        p99_ms=_latency(text, "99%"),
        errors=errors,
        cpu_us_per_request=round(cpu_s / max(1, int(requests)) * 1e6, 2),
    )


def _latency(text: str, quantile: str) -> float:
    value, unit = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return round(float(value) * _UNITS[unit], 4)
