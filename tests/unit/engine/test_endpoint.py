"""What a model's endpoint reads in the loop, and what its requests count for while they wait. No socket, no model."""

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nearcast.engine import lane as lanes
from nearcast.engine.datatypes import Array
from nearcast.engine.endpoint import ModelEndpoint
from nearcast.engine.exchange import Exchange, Limits
from nearcast.engine.headers import Spellings
from nearcast.engine.lane import Lane
from nearcast.engine.oip import InferCodec
from nearcast.engine.oip_calls import framed
from nearcast.engine.profile import Profile
from nearcast.engine.protobuf import to_field, to_packed_varints
from nearcast.engine.reading import Readers, Ticket
from nearcast.engine.refusal import Refusal
from nearcast.engine.text import Embedder
from nearcast.engine.work import Work
from nearcast.resources import wire
from nearcast.resources.release import Signature, Tensor

CALL = {b"content-type": b"application/grpc"}
INFER = wire.GRPC_SERVICE_PATH.encode() + b"ModelInfer"


class Held:
    """A model whose runs wait until they may go on."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        assert self.gate.wait(20)
        return [feeds[0].astype(np.float32)]


class Client:
    """Both ends of a connection: asks, and hears the answers."""

    def __init__(self, endpoint: ModelEndpoint) -> None:
        self.endpoint = endpoint
        self.heard: list[bytes | int] = []

    def ask(self, target: bytes, body: bytes, headers: dict[bytes, bytes]) -> None:
        names = Spellings().learn(headers)
        self.endpoint.handle(Exchange(self, b"POST", target, headers, names, body))

    is_idle = False

    def sweep(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    def answer(self, exchange: Exchange, head: bytes, body: bytes, *, trailers: bytes | None = None) -> None:
        self.heard.append(body)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self.heard.append(refusal.status)


async def until(check: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if check():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen within 20 s")


def with_client(
    story: Callable[[Client, Held, threading.Event], Coroutine[None, None, None]], *, embedder: Embedder | None = None
) -> None:
    """Run ``story``; what is read on a thread waits for its event."""
    name = embedder.input_names[0] if embedder else "x"

    async def run() -> None:
        signature = Signature(
            inputs=(Tensor(name=name, datatype="INT64", shape=(-1, -1)),),
            outputs=(Tensor(name="y", datatype="FP32", shape=(-1, -1)),),
        )
        model, free = Held(), threading.Event()
        readers = Readers()
        begun: list[None] = []

        def hold() -> bool:
            begun.append(None)
            return free.wait(20)

        held = [readers.submit("other", 1, hold) for _ in range(2)]
        await until(lambda: len(begun) == 2)  # one for each thread
        lane = Lane("m@1", model, Profile(max_batch=1), pad=False, queue=100, loop=asyncio.get_running_loop())
        codec = InferCodec("m", "1", signature)
        endpoint = ModelEndpoint(codec, lane, embedder, readers=readers, limits=Limits())
        try:
            await story(Client(endpoint), model, free)
        finally:
            free.set()
            model.gate.set()
            await asyncio.gather(*(ticket.done for ticket in held))
            readers.close()
            lane.close()

    asyncio.run(run())


def call(count: int, *, raw: bool, more: bytes = b"") -> bytes:
    values = np.ones(count, np.int64)
    given = to_field(1, b"x") + to_field(2, b"INT64") + to_field(3, to_packed_varints(np.array([1, count])))
    if not raw:
        given += to_field(5, to_field(3, to_packed_varints(values)))
    tensor = to_field(7, values.tobytes()) if raw else b""
    return framed(to_field(1, b"m") + to_field(5, given) + tensor + more)


def test_a_call_with_many_typed_numbers_is_read_on_the_thread() -> None:
    async def story(client: Client, model: Held, free: threading.Event) -> None:
        model.gate.set()
        client.ask(INFER, call(20_000, raw=True), CALL)
        await until(lambda: len(client.heard) == 1)  # 160 kB of raw bytes cost nothing to read
        client.ask(INFER, call(200_000, raw=False), CALL)
        assert client.endpoint.aside.size_bytes > 200_000
        client.ask(INFER, call(1, raw=False), CALL)
        await until(lambda: len(client.heard) == 2)
        free.set()
        await until(lambda: len(client.heard) == 3)
        assert all(isinstance(each, bytes) for each in client.heard)

    with_client(story)


def test_a_long_list_of_tokens_is_read_on_the_thread() -> None:
    words = Embedder(Tokenizer(WordLevel({"a": 0}, unk_token="a")), 8, 1, ("x",), 0, 1, shortenable=False)

    async def story(client: Client, model: Held, free: threading.Event) -> None:
        client.ask(wire.EMBEDDINGS_PATH.encode(), b'{"model":"m","input":[' + b"0," * 4000, {})
        assert client.heard == []
        assert client.endpoint.aside.size_bytes > 8000
        free.set()
        await until(lambda: client.heard == [400])
        assert client.endpoint.aside.size_bytes == 0

    with_client(story, embedder=words)


def test_what_nobody_waits_for_any_more_is_not_read_and_its_bytes_are_free_at_once() -> None:
    async def story(client: Client, model: Held, free: threading.Event) -> None:
        model.gate.set()
        body = call(200_000, raw=False)
        names = Spellings().learn(CALL)
        lost = Exchange(client, b"POST", INFER, CALL, names, body)
        client.endpoint.handle(lost)
        client.ask(INFER, body, CALL)
        assert lost.on_lost is not None
        lost.on_lost()
        await until(lambda: client.endpoint.aside.size_bytes == len(body))
        free.set()
        await until(lambda: len(client.heard) == 1)
        await until(lambda: client.endpoint.aside.size_bytes == 0)

    with_client(story)


def leftovers(work: Callable[[], object]) -> list[object]:
    """Objects that only Python's collector would let go of after ``work``: those of ours, and errors."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        work()
        gc.collect()
        return [found for found in gc.garbage if isinstance(found, Exchange | Work | Refusal | np.ndarray | Ticket)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


EMBEDDINGS = wire.EMBEDDINGS_PATH.encode()


@pytest.mark.parametrize(
    ("target", "headers", "body", "heard"),
    [
        pytest.param(INFER, CALL, call(1, raw=True), bytes, id="answered"),
        pytest.param(INFER, CALL, call(200_000, raw=False), bytes, id="read on a thread"),
        pytest.param(EMBEDDINGS, {}, b'{"model":"m","input":["a","a"]}', bytes, id="embedded"),
        pytest.param(EMBEDDINGS, {}, b'{"model":"m","input":"%b"}' % (b"a " * 4000), int, id="too long"),
        pytest.param(EMBEDDINGS, {}, b'{"model":"m","input":7}', int, id="refused at once"),
    ],
)
def test_a_request_leaves_nothing_to_the_collector(
    target: bytes, headers: dict[bytes, bytes], body: bytes, heard: type
) -> None:
    """It seldom runs in an engine, and a refused text of 100 KB has made a megabyte of tokens by then."""
    tokenizer = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    words = Embedder(tokenizer, 8, 1, ("input_ids",), 0, 1, shortenable=False)

    async def story(client: Client, model: Held, free: threading.Event) -> None:
        model.gate.set()
        free.set()
        for count in range(1, 4):
            client.ask(target, body, headers)
            await until(lambda count=count: len(client.heard) == count)  # type: ignore[misc]
        assert {type(each) for each in client.heard} == {heard}

    assert leftovers(lambda: with_client(story, embedder=None if target == INFER else words)) == []


@pytest.mark.parametrize("binary", [False, True])
def test_a_request_counts_for_all_the_memory_that_it_holds(binary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "QUEUE_BYTES", 150_000)
    body: bytes = call(1, raw=True, more=to_field(9, bytes(100_000)))
    target, headers = INFER, CALL
    if binary:
        head = b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1,1],"parameters":{"binary_data_size":8}}]%b}' % (
            b" " * 100_000
        )
        body = head + bytes(8)
        target, headers = wire.infer_path("m").encode(), {wire.INFERENCE_HEADER_LENGTH.encode(): b"%d" % len(head)}

    async def story(client: Client, model: Held, free: threading.Event) -> None:
        client.ask(target, body, headers)
        await until(lambda: client.endpoint.lane.waiting == 0)  # it runs
        for _ in range(3):
            client.ask(target, body, headers)
        assert client.heard == [503]

    with_client(story)


def test_the_text_of_json_is_let_go_when_it_is_read() -> None:
    async def story(client: Client, model: Held, free: threading.Event) -> None:
        asked: list[Any] = []
        handle = client.endpoint.handle
        client.endpoint.handle = lambda exchange: (asked.append(exchange), handle(exchange))[1]  # type: ignore[method-assign]
        client.ask(
            wire.infer_path("m").encode(),
            b'{"inputs":[{"name":"x","datatype":"INT64","shape":[1,1],"data":[1]}]%b}' % (b" " * 100_000),
            {},
        )
        assert asked[0].body == b""

    with_client(story)
