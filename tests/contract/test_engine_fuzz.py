"""The sockets of an engine under malformed requests: each is refused in its caller's shape, and nobody else is hurt."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest

from contract import engine_models as models
from contract.engine_process import Engine, running_engine
from fuzz.amount import amount, seeded
from fuzz.malformed import binary_inference, broken, embeddings, inference
from fuzz.raw import Closed, Connection, Reply, post, unix
from fuzz.vitals import Watch, traces
from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest

VALID = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}
WARM_UP = 200
Throw = Callable[[Random, Connection], None]
"""Sends one malformed request, and judges its answer. The connection is the one that honest requests share."""


@dataclass
class Stand:
    """An engine with two models, and a connection that garbage and honest requests share."""

    engine: Engine
    adder: ReleaseManifest
    embedder: ReleaseManifest

    def socket(self, manifest: ReleaseManifest) -> Connection:
        return Connection(unix(self.engine.socket_of(manifest)))

    def pids(self) -> dict[str, int]:
        assert self.engine.process.poll() is None, self.engine.log.read_text()
        return {"engine": self.engine.process.pid}


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("models")
    with running_engine() as engine:
        adder, embedder = models.adder(folder / "adder"), models.embedder(folder / "words")
        for manifest in (adder, embedder):
            assert engine.load(folder / manifest.model, manifest).status_code == 200
        yield Stand(engine, adder, embedder)


def assert_clean(reply: Reply, sent: bytes) -> None:
    """A 4xx that says what is wrong, or an honest answer; nothing of our insides."""
    assert 200 <= reply.status < 500, (reply.status, reply.body[:300], sent[:300])
    assert b"Traceback" not in reply.body
    if reply.status >= 400:
        assert len(reply.message) > 8, (reply.body, sent[:300])
        assert len(reply.body) < 20_000, "an error does not send the input back"
        assert reply.headers[wire.ERROR]


def assert_honest_is_answered(connection: Connection, value: float) -> None:
    document = {"inputs": [{**VALID["inputs"][0], "data": [value, 0.0, 0.0, 0.0]}]}
    reply = connection.ask(post("/v2/models/adder/infer", json.dumps(document).encode()))
    assert reply.status == 200, reply.body
    assert reply.json["outputs"][0]["data"] == [value + 1.0, 1.0, 1.0, 1.0]


def thrown(stand: Stand, name: str, throw: Throw, count: int) -> None:
    """``count`` requests of ``throw`` after a warm-up, watched; an honest request after every tenth."""
    dice = seeded(name)
    mark = {stand.engine.log: stand.engine.log.stat().st_size}
    with stand.socket(stand.adder) as honest:
        for _ in range(WARM_UP):
            throw(dice, honest)
        watch = Watch(stand.pids)
        for index in range(count):
            throw(dice, honest)
            if index % 10 == 0:
                assert_honest_is_answered(honest, float(index))
        assert_honest_is_answered(honest, 7.0)
    watch.check()
    assert traces([stand.engine.log], mark) == []


def test_inference(stand: Stand) -> None:
    def throw(dice: Random, connection: Connection) -> None:
        data = post("/v2/models/adder/infer", inference(dice, VALID))
        assert_clean(connection.ask(data), data)

    thrown(stand, "engine-oip", throw, amount())


def test_inference_with_binary_tensors(stand: Stand) -> None:
    def throw(dice: Random, connection: Connection) -> None:
        body, headers = binary_inference(dice)
        data = post("/v2/models/adder/infer", body, headers)
        assert_clean(connection.ask(data), data)

    thrown(stand, "engine-binary", throw, amount())


def test_embeddings(stand: Stand) -> None:
    with stand.socket(stand.embedder) as connection:

        def throw(dice: Random, _honest: Connection) -> None:
            data = post("/v1/embeddings", embeddings(dice, "words"))
            reply = connection.ask(data)
            assert_clean(reply, data)
            assert reply.status == 200 or set(reply.json["error"]) == {"message", "type", "param", "code"}

        thrown(stand, "engine-embeddings", throw, amount())


def http(dice: Random) -> bytes:
    """A request whose frame is wrong, mostly."""
    body = json.dumps(VALID).encode()
    good = post("/v2/models/adder/infer", body, [("content-type", "application/json")])
    line = dice.choice(
        (b"GET", b"P\x00ST", b"POST" * 999, b"", b"\x16\x03\x01", b"PRI", b"CONNECT", b"get", b"OPTIONS")
    )
    how = dice.randrange(10)
    if how == 0:
        return line + dice.choice(
            (b" / HTTP/1.1\r\n\r\n", b" * HTTP/9.9\r\n\r\n", b"\r\n\r\n", b" /\r\n", b" / HTTP/1.1\n\n")
        )
    if how == 1:
        name = dice.choice((b"a b", b"", b"x\x00", b"\xff", b"content-length", b"transfer-encoding", b"x" * 70_000))
        value = dice.choice(
            (b"-1", b"1e3", b"99999999999999999999", b"\x00", b"chunked, identity", b"\xff\xfe", b"a\rb")
        )
        return good.replace(b"host:", name + b": " + value + b"\r\nhost:", 1)
    if how == 2:
        size = dice.choice((b"-5", b"zz", b"fffffffffffffffff", b"5;x=" + b"y" * 9000, b"0x5", b"5\n"))
        return b"POST /v2 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    if how == 3:
        return (
            b"GET /"
            + dice.choice((b"%", b"%zz", b"../" * 50, b"\xff", b"?" * 900, b"//x/y", b"http://[", b"*"))
            + (b" HTTP/1.1\r\nhost: x\r\n\r\n")
        )
    if how == 4:
        return dice.randbytes(dice.randrange(1, 2000))
    return broken(dice, good)


def test_bytes_that_are_not_http(stand: Stand) -> None:
    """Each on a connection of its own; half-closed at the end, so that what is cut short ends, too."""

    def throw(dice: Random, _honest: Connection) -> None:
        data = http(dice)
        with stand.socket(stand.adder) as connection:
            connection.send(data)
            connection.finish_sending()
            try:
                reply = connection.receive(head_only=data.startswith(b"HEAD"))
            except (Closed, ConnectionError):
                return  # cut short: a request that is not whole has no answer
        assert_clean(reply, data)

    thrown(stand, "engine-http", throw, amount())


@pytest.mark.parametrize("name", [wire.ENGINE_STATUS, wire.ENGINE_ADMIN])
def test_the_sockets_of_the_agent(stand: Stand, name: str) -> None:
    """Status and orders: nobody but the agent reaches them, and even its mistakes take no engine down."""
    order = {"directory": "/nowhere", "manifest": {"model": "m", "version": "1"}, "queue": 4}
    paths = (
        "/-/models/m/1",
        "/-/models/adder/1",
        "/-/models",
        "/-/load",
        "/metrics",
        "/-/models/../x/1",
        "/-/models/m/1/2",
    )
    with Connection(unix(stand.engine.run_dir / name)) as connection:

        def throw(dice: Random, _honest: Connection) -> None:
            path = dice.choice(paths)
            method = dice.choice(("PUT", "GET", "POST", "PATCH" if "adder" in path else "DELETE"))
            odd = inference(dice, {"inputs": [order | {"data": [1]}]})
            data = post(path, odd if dice.random() < 0.5 else broken(dice, json.dumps(order).encode()), method=method)
            assert_clean(connection.ask(data), data)

        thrown(stand, f"engine-{name}", throw, amount() // 2)


def test_numbers_that_no_float_holds_stay_in_their_request(stand: Stand) -> None:
    """NaN and infinities by binary tensors, beside an honest request: each gets its own answer."""
    values = [float("nan"), float("inf"), -float("inf"), 3e38]
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}]}
    document = json.dumps(head).encode()
    odd = post(
        "/v2/models/adder/infer",
        document + struct.pack("<4f", *values),
        [("inference-header-content-length", str(len(document)))],
    )
    with stand.socket(stand.adder) as odd_one, stand.socket(stand.adder) as honest:
        for turn in range(50):
            odd_one.send(odd)
            assert_honest_is_answered(honest, float(turn))
            reply = odd_one.receive()
            assert reply.json["outputs"][0]["data"][:3] == [None, None, None]
