"""The socket of one model version: which call a request is, and the answers to all of them.

Decides paths, methods and that header, path and body name this model. Queueing and computing are the lane's; what
is well-formed is the codecs'. Every answer of a model's socket names the model version, errors too.
"""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from nearcast import __version__
from nearcast.engine.aside import Aside
from nearcast.engine.embedding import Embedding, Texts, tokenized
from nearcast.engine.exchange import Exchange, Limits, Link, timed
from nearcast.engine.headers import Spellings
from nearcast.engine.lane import Lane
from nearcast.engine.layout import Part
from nearcast.engine.oip import EXTENSIONS, InferCodec, InferRequest
from nearcast.engine.oip_calls import CALL_OK, answer_call, path, server_answers, truth
from nearcast.engine.oip_grpc import GrpcCodec
from nearcast.engine.patience import Patience
from nearcast.engine.reading import Readers
from nearcast.engine.refusal import (
    Family,
    Refusal,
    family_of,
    invalid_request,
    method_not_allowed,
    model_mismatch,
    not_found,
    unsupported,
)
from nearcast.engine.text import Embedder
from nearcast.engine.work import Timing, Work
from nearcast.resources import wire

TEXT_INLINE_MAX: Final = 4096
"""Bodies up to this size are tokenised in the loop (well below a millisecond), larger ones on a thread."""

JSON_INLINE_MAX: Final = 128 * 1024
"""JSON, and texts, up to this size are read in the loop (about a millisecond), more on a thread, in pieces."""

Call = Callable[[Exchange], None]


class ModelEndpoint:
    """Answers the requests of one model version.

    Args:
        codec: reads and writes inference.
        lane: queue and computation.
        embedder: for models that serve embeddings, else None.
        readers: read what is long.
        limits: bounds of each connection.
        patience: reads how long a request may wait here.
    """

    def __init__(
        self,
        codec: InferCodec,
        lane: Lane,
        embedder: Embedder | None,
        *,
        readers: Readers,
        limits: Limits,
        patience: Patience | None = None,
    ) -> None:
        self.limits = limits
        self._inference, self._embedding = Inference, Embedding
        self._inference_call = InferenceCall
        self.spellings = Spellings()
        self.draining = False
        self.connections: set[Link] = set()
        self.codec = codec
        self.grpc = GrpcCodec(codec)
        self.lane = lane
        self.embedder = embedder
        self._patience = patience or Patience()
        self.aside = Aside(codec.model, readers, self.check_room)
        self._model = codec.model.encode()
        identity = f"{wire.MODEL}: {wire.model_at(codec.model, codec.version)}\r\n".encode()
        self.identity = identity
        self.ok = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + identity
        self.ok_binary = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n" + identity
        self.ok_call = CALL_OK + identity
        self._calls = {**self._table(), **self._grpc_table()}

    def family(self, target: bytes) -> Family:
        """OpenAI's shape below ``/v1``, the Open Inference Protocol's elsewhere."""
        return family_of(target)

    # --- which call ----------------------------------------------------------------------------------------------

    def _table(self) -> dict[bytes, dict[bytes, Call]]:
        def read(body: bytes) -> dict[bytes, Call]:
            answer = partial(self._document, body)
            return {b"GET": answer, b"HEAD": answer}

        model = f"/v2/models/{self.codec.model}"
        server = msgspec.json.encode({"name": "nearcast", "version": __version__, "extensions": EXTENSIONS})
        ready = msgspec.json.encode({"name": self.codec.model, "ready": True})
        table: dict[bytes, dict[bytes, Call]] = {
            b"/v2": read(server),
            wire.LIVE_PATH.encode(): read(b'{"live":true}'),
            wire.READY_PATH.encode(): read(b'{"ready":true}'),
        }
        for base in (model, f"{model}/versions/{self.codec.version}"):
            table[base.encode()] = read(self.codec.metadata())
            table[f"{base}/ready".encode()] = read(ready)
            table[f"{base}/infer".encode()] = {b"POST": self._infer}
        if self.embedder is not None:
            table[wire.EMBEDDINGS_PATH.encode()] = {b"POST": partial(self._embed, self.embedder)}
        return table

    def _grpc_table(self) -> dict[bytes, dict[bytes, Call]]:
        calls: dict[bytes, Call] = {
            path("ModelInfer"): self._infer_call,
            path("ModelReady"): partial(self._model_call, truth()),
            path("ModelMetadata"): partial(self._model_call, self.grpc.metadata()),
            **{target: partial(answer_call, self.ok_call, message) for target, message in server_answers().items()},
        }
        return {target: {b"POST": partial(_only_calls, call)} for target, call in calls.items()}

    def handle(self, exchange: Exchange) -> None:
        """Answer ``exchange``, now or when its work is done."""
        named = exchange.model
        try:
            if named is not None and named != self._model:
                raise model_mismatch(f"expected model {self.codec.model!r}, {wire.MODEL} names {_text(named)!r}")
            methods = self._calls.get(exchange.target)
            if methods is None:
                methods = self._calls.get(_plain(exchange.target))
                if methods is None:
                    raise self._no_such_path(_plain(exchange.target).decode("utf-8", "replace"))
            call = methods.get(exchange.method)
            if call is None:
                raise method_not_allowed(_text(exchange.method), ", ".join(sorted(map(_text, methods))))
            call(exchange)
        except Refusal as refusal:
            exchange.refuse(refusal)

    def _no_such_path(self, path: str) -> Refusal:
        parts = path.split("/")
        if parts[:3] == ["", "v2", "models"] and len(parts) > 3:
            same = parts[3] == self.codec.model
            if not same or (len(parts) > 5 and parts[4] == "versions" and parts[5] != self.codec.version):
                asked = parts[3] if not same else wire.model_at(parts[3], parts[5])
                here = wire.model_at(self.codec.model, self.codec.version)
                return Refusal(404, wire.CODE_MODEL_NOT_FOUND, f"expected {here}, the path names {asked!r}")
        if path == wire.EMBEDDINGS_PATH:
            return not_found(f"{self.codec.model} has no tokenizer and embedding output: it serves no embeddings")
        return not_found(f"no such path: {path}")

    def _document(self, body: bytes, exchange: Exchange) -> None:
        exchange.reply(self.ok, body)

    def check_room(self, exchange: Exchange) -> None:
        """Refuse what has no room here, or would wait for longer than it may.

        Raises:
            Refusal: status 503, marked as full.
        """
        told = exchange.longest_wait
        self.lane.check_room(None if told is None else self._patience.of(told, exchange.attempt))

    # --- inference -----------------------------------------------------------------------------------------------

    def _infer(self, exchange: Exchange) -> None:
        self.check_room(exchange)
        body, json_length = exchange.body, _json_length(exchange.json_length)
        if len(body) > JSON_INLINE_MAX and (
            json_length is None or json_length > JSON_INLINE_MAX or self.codec.has_texts
        ):
            read = partial(self.codec.parse_large, body, json_length)
            self.aside.read(exchange, read, partial(self._submit, self._inference))
            return
        self._submit(self._inference, exchange, self.codec.parse(body, json_length))

    def _submit(self, kind: "type[Inference]", exchange: Exchange, request: InferRequest) -> None:
        """Hand a request over to the lane. What it keeps in memory is what it counts for."""
        work = kind(self, exchange, request, perf_counter())
        if work.raw is None:
            if exchange.json_length is None and not exchange.is_call:
                exchange.body = b""
            work.size_bytes = max(work.size_bytes, len(exchange.body))
        exchange.on_lost = work.lost
        self.lane.submit(work)

    def _infer_call(self, exchange: Exchange) -> None:
        self.check_room(exchange)
        if self.grpc.takes_long(exchange.body):
            read = partial(self.grpc.parse, exchange.body)
            self.aside.read(exchange, read, partial(self._submit, self._inference_call))
            return
        self._submit(self._inference_call, exchange, self.grpc.parse(exchange.body))

    def _model_call(self, message: bytes, exchange: Exchange) -> None:
        self.grpc.check_model(exchange.body)
        exchange.reply_call(self.ok_call, message)

    # --- embeddings ----------------------------------------------------------------------------------------------

    def _embed(self, embedder: Embedder, exchange: Exchange) -> None:
        self.check_room(exchange)
        read = partial(tokenized, embedder, exchange.body, self.codec.model)
        if len(exchange.body) <= TEXT_INLINE_MAX:
            self._embed_read(embedder, perf_counter(), exchange, read())
        else:
            self.aside.read(exchange, read, partial(self._embed_read, embedder, perf_counter()))

    def _embed_read(self, embedder: Embedder, arrived_s: float, exchange: Exchange, read: Texts) -> None:
        request, rows = read
        exchange.body = b""
        embedding = self._embedding(
            exchange, request, embedder, self.lane, head=self.ok, model=self.codec.model, arrived_s=arrived_s
        )
        embedding.begin(rows)


class Inference(Work):
    """One inference request in the lane."""

    __slots__ = ("_endpoint", "_exchange", "_request")

    def __init__(self, endpoint: ModelEndpoint, exchange: Exchange, request: InferRequest, arrived_s: float) -> None:
        super().__init__(request.feeds, request.rows, arrived_s)
        self._endpoint = endpoint
        self._exchange = exchange
        self._request = request

    def lost(self) -> None:
        self._endpoint.lane.cancel([self])

    def finished(self, results: Part, timing: Timing) -> None:
        endpoint = self._endpoint
        endpoint.lane.gauges.answered += 1
        body, json_length = endpoint.codec.encode(self._request, results)
        started_s = timing.started_s
        if json_length is None:
            head = timed(endpoint.ok, started_s - self.arrived_s, timing.finished_s - started_s)
        else:
            head = timed(endpoint.ok_binary, started_s - self.arrived_s, timing.finished_s - started_s)
            head = b"%binference-header-content-length: %d\r\n" % (head, json_length)
        self._exchange.reply(head, body)

    def failed(self, refusal: Refusal) -> None:
        self._exchange.refuse(refusal)


class InferenceCall(Inference):
    """One inference request that came by gRPC."""

    __slots__ = ()

    def finished(self, results: Part, timing: Timing) -> None:
        endpoint = self._endpoint
        endpoint.lane.gauges.answered += 1
        message = endpoint.grpc.encode(self._request, results)
        started_s = timing.started_s
        head = timed(endpoint.ok_call, started_s - self.arrived_s, timing.finished_s - started_s)
        self._exchange.reply_call(head, message)


def _only_calls(call: Call, exchange: Exchange) -> None:
    if not exchange.is_call:
        raise unsupported(415, f"expected a gRPC call, with content-type {' or '.join(wire.GRPC_CONTENT_TYPES)}")
    call(exchange)


def _json_length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise invalid_request(f"{wire.INFERENCE_HEADER_LENGTH} must be a byte count, got {_text(value)!r}")
    return int(value)


def _plain(target: bytes) -> bytes:
    """The path of a target: without query, percent escapes, or the scheme and host of the absolute form."""
    text = target.decode("latin-1")
    try:
        path = text.partition("?")[0] if text.startswith("/") else urlsplit(text).path
    except ValueError:
        path = text
    return unquote(path, "utf-8", "replace").encode("utf-8", "replace")


def _text(value: bytes) -> str:
    return value.decode("latin-1")
