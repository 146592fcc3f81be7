"""A whole site under malformed requests through its gateway: Envoy, engine and agent hold no more than before."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from e2e.local_fleet import LocalFleet
from e2e.tiny_models import adder, embedder
from fuzz.amount import amount, limit_s, seeded
from fuzz.malformed import binary_inference, broken, embeddings, inference
from fuzz.raw import Closed, Connection, Reply, post, tcp
from fuzz.vitals import Bounds, Watch, traces

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(limit_s(600))]

VALID = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}
BOUNDS = Bounds(memory_bytes=48 << 20, descriptors=64, threads=12)
"""Envoy keeps buffers and upstream connections of the busiest moment; the agent its own round."""
SHORT = 500
Throw = Callable[[Random, Connection], None]


class Stand:
    """One site of a fleet, and where it listens."""

    def __init__(self, fleet: LocalFleet) -> None:
        self.fleet = fleet
        host, _, port = fleet.gateway("frankfurt").partition(":")
        self.connect = tcp(host, int(port))
        self.logs = [*(fleet.data_dir / "sites" / "frankfurt" / "logs").glob("*.log")]

    def pids(self) -> dict[str, int]:
        return self.fleet.pids("frankfurt")


@pytest.fixture(scope="module")
def stand(fleet: LocalFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    fleet.push("fuzz-adder", "1", adder(folder / "adder", 1.0))
    fleet.push("fuzz-words", "1", embedder(folder / "words"))
    fleet.deploy("fuzz-adder", "1", "frankfurt")
    fleet.deploy("fuzz-words", "1", "frankfurt")
    yield Stand(fleet)
    for name in ("fuzz-adder", "fuzz-words"):
        fleet.run("delete", f"deployment/{name}", check=False)


def assert_clean(reply: Reply, sent: bytes) -> None:
    assert 200 <= reply.status < 500, (reply.status, reply.body[:300], sent[:300])
    assert b"Traceback" not in reply.body
    if reply.status >= 400:
        assert len(reply.message) > 8, (reply.body, sent[:300])
        assert len(reply.body) < 20_000


def assert_honest_is_answered(connection: Connection, value: float) -> None:
    document = {"inputs": [{**VALID["inputs"][0], "data": [value, 0.0, 0.0, 0.0]}]}
    reply = connection.ask(post("/v2/models/fuzz-adder/infer", json.dumps(document).encode()))
    assert reply.status == 200, (reply.status, reply.body)
    assert reply.json["outputs"][0]["data"] == [value + 1.0, 1.0, 1.0, 1.0]


def thrown(stand: Stand, name: str, throw: Throw) -> None:
    dice = seeded(f"gateway-{name}")
    mark = {path: path.stat().st_size for path in stand.logs}
    with Connection(stand.connect) as line:
        for _ in range(200):
            throw(dice, line)
        watch = Watch(stand.pids, BOUNDS)
        for index in range(amount(SHORT)):
            throw(dice, line)
            if index % 10 == 0:
                assert_honest_is_answered(line, float(index))
        assert_honest_is_answered(line, 7.0)
    watch.check()
    assert traces(stand.logs, mark) == []


def test_inference(stand: Stand) -> None:
    def throw(dice: Random, line: Connection) -> None:
        data = post("/v2/models/fuzz-adder/infer", inference(dice, VALID))
        assert_clean(line.ask(data), data)

    thrown(stand, "oip", throw)


def test_inference_with_binary_tensors(stand: Stand) -> None:
    def throw(dice: Random, line: Connection) -> None:
        body, headers = binary_inference(dice)
        data = post("/v2/models/fuzz-adder/infer", body, headers)
        assert_clean(line.ask(data), data)

    thrown(stand, "binary", throw)


def test_embeddings(stand: Stand) -> None:
    """The model is in the body: what the gateway cannot find there, and what the engine finds otherwise."""

    def throw(dice: Random, line: Connection) -> None:
        data = post("/v1/embeddings", embeddings(dice, "fuzz-words"))
        reply = line.ask(data)
        assert_clean(reply, data)
        assert reply.status == 200 or {"message", "type", "param", "code"} <= set(reply.json["error"])

    thrown(stand, "embeddings", throw)


def test_bytes_that_are_not_http(stand: Stand) -> None:
    good = post("/v2/models/fuzz-adder/infer", json.dumps(VALID).encode())

    def throw(dice: Random, _line: Connection) -> None:
        data = broken(dice, good) if dice.random() < 0.7 else dice.randbytes(dice.randrange(1, 2000))
        with Connection(stand.connect) as own:
            own.send(data)
            own.finish_sending()
            try:
                reply = own.receive()
            except (Closed, OSError, ValueError):
                return  # cut short, or taken for HTTP/2: no answer is none that is wrong
        assert_clean(reply, data)

    thrown(stand, "http", throw)
