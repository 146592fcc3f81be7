"""What a prober makes of a peer that answers something else than a load report: a reason, and never an estimate."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nearcast.agent.estimate import FAILURES, Estimate, Probe, updated
from nearcast.agent.measure import GatewayProber
from nearcast.resources import wire
from nearcast.resources.load import MAX_REPORT_BYTES


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with TemporaryDirectory(prefix="nc-", dir="/tmp") as folder:
        yield Path(folder)


def _answer(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def _report(**figures: object) -> bytes:
    return _answer(json.dumps({"named_metrics": figures}).encode())


GOOD = _report(**{"m.service_s": 0.01, "m.wait_s": 0.0})


def _probes(run_dir: Path, *answers: bytes) -> list[Probe]:
    """One probe per answer; each answer is all that the connection gives before it is closed."""

    async def story() -> list[Probe]:
        left = list(answers)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            writer.close()

        server = await asyncio.start_unix_server(serve, run_dir / wire.ENVOY_PROBE)
        prober = GatewayProber(run_dir)
        try:
            return [await prober.probe("iad") for _ in answers]
        finally:
            await prober.close()
            server.close()

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer"),
        (_answer(b'{"named_metrics": {', length=500), "no answer"),
        (_answer(b"<html>proxy</html>"), "no load report"),
        (_answer(b"\xff\xfe\x00"), "no load report"),
        (_answer(b"[]"), "no load report"),
        (_answer(b'{"named_metrics": {"m.wait_s": NaN}}'), "no load report"),
        (_answer(b'{"named_metrics": {"m.wait_s": 1e999}}'), "no load report"),
        (_answer(b'{"application_utilization": -1}'), "application_utilization"),
        (_report(**{"m.wait_s": -5.0, "m.service_s": 0.1}), "m.wait_s"),
        (_report(**{"m.wait_s": 0.0, "m.service_s": 1e12}), "m.service_s"),
        (_answer(b" " * (MAX_REPORT_BYTES + 1) + b"{}"), "at most"),
        (_answer(b"<html>gateway time-out</html>", "504 Gateway Timeout"), "answered 504"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_garbage_is_told_and_a_peer_that_heals_is_back(run_dir: Path, answer: bytes, reason: str) -> None:
    probes = _probes(run_dir, GOOD, *([answer] * FAILURES), GOOD)
    estimate: Estimate | None = None
    seen = []
    for probe in probes:
        estimate = updated(estimate, probe)
        seen.append((estimate.is_reachable, estimate.message))
    assert seen[0] == (True, "")
    assert not seen[FAILURES][0]
    assert reason in seen[FAILURES][1]
    assert seen[-1] == (True, "")
    assert all(probe.load is None for probe in probes[1:-1])
