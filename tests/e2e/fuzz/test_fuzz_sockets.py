"""The sockets of a node and its metrics under garbage: who may open them is decided by files; nobody crashes them."""

import contextlib
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.agent_node import AgentNode, Depot, agent_node
from fuzz.amount import amount, limit_s, seeded
from fuzz.malformed import broken
from fuzz.raw import TIMEOUT_S, Closed, Connection, post, tcp, unix
from fuzz.vitals import Bounds, Watch, traces
from nearcast.resources import wire

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(limit_s(240))]

SHORT = 60
BOUNDS = Bounds(memory_bytes=48 << 20, descriptors=64, threads=12)
OWNERS_ONLY = (wire.ENGINE_ADMIN, wire.ENVOY_ADMIN, wire.ENVOY_PROBE)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentNode, int]]:
    folder: Path = tmp_path_factory.mktemp("sockets")
    depot, port = Depot(folder), free_port()
    depot.push("m", "1", 1.0)
    depot.plan("m@1")
    with agent_node(folder / "node", depot) as node:
        node.start("--metrics", f"127.0.0.1:{port}")
        node.ready("m@1")
        yield node, port


def test_permissions(served: tuple[AgentNode, int]) -> None:
    run_dir = served[0].layout.run_dir
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    for name in OWNERS_ONLY:
        assert stat.S_IMODE((run_dir / name).stat().st_mode) == 0o600, name
    others = [path for path in run_dir.iterdir() if path.is_socket() and path.name not in OWNERS_ONLY]
    assert others
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o007 == 0 for path in others), others


@pytest.mark.parametrize("name", [wire.ENVOY_ADMIN, wire.ENVOY_PROBE, wire.ENGINE_ADMIN, wire.ENGINE_STATUS, "metrics"])
def test_garbage(served: tuple[AgentNode, int], name: str) -> None:
    """Noise and broken requests; no order to stop is among them, which whoever may open the socket may give."""
    node, port = served
    assert node.process is not None
    logs = [node.log_file, node.layout.engine_log, node.layout.gateway_log]
    mark = {path: path.stat().st_size for path in logs}
    dice = seeded(f"socket-{name}")
    connect: Callable[[], socket.socket] = (
        tcp("127.0.0.1", port) if name == "metrics" else unix(node.layout.run_dir / name)
    )
    pids = {found: record.pid for found, record in node.records().items()} | {"agent": node.process.pid}

    def now() -> dict[str, int]:
        assert node.process is not None
        assert node.process.poll() is None, node.story("the agent ended")
        return {found: record.pid for found, record in node.records().items()} | {"agent": node.process.pid}

    watch = Watch(now, BOUNDS)
    for index in range(amount(SHORT)):
        good = post(dice.choice(("/metrics", "/-/load", "/ready", "/-/models/m/9", "/nope")), dice.randbytes(99))
        data = broken(dice, good) if dice.random() < 0.7 else dice.randbytes(dice.randrange(1, 3000))
        with Connection(connect) as line:
            line.send(data)
            line.finish_sending()
            with contextlib.suppress(Closed, OSError, ValueError):  # cut short: no answer is none that is wrong
                assert line.receive().status < 500 or name == wire.ENVOY_ADMIN
        if index % 20 == 0:
            assert node.ask("m", TIMEOUT_S) == ("m@1", 1.0)
    watch.check()
    assert now() == pids
    assert traces(logs, mark) == []
    node.ready("m@1")
