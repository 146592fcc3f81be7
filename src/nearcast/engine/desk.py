"""The engine's own two sockets: ``engine.status`` tells, ``engine.admin`` loads and unloads.

Decides their paths and documents. What loading means is decided in :mod:`~nearcast.engine.serving`. Errors have
nearcast's own shape: ``{"error": {"code", "message"}}``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from nearcast.engine.exchange import Exchange, Limits, Link
from nearcast.engine.headers import Spellings
from nearcast.engine.loading import Order
from nearcast.engine.metrics import exposition
from nearcast.engine.oip_calls import CALL_OK, answer_call, server_answers
from nearcast.engine.refusal import Family, Refusal, engine_failure, invalid_request, method_not_allowed, not_found
from nearcast.engine.serving import Served, Serving
from nearcast.resources import wire
from nearcast.resources.release import decode_release

DRAIN_S: Final = 10.0
QUEUE_MAX: Final = 100_000
DOCUMENT_MAX: Final = 4 * 1024 * 1024

_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class _Load(msgspec.Struct, forbid_unknown_fields=True):
    directory: str
    manifest: msgspec.Raw
    socket: str | None = None
    queue: int | None = None


class _Desk:
    """What both sockets share."""

    def __init__(self) -> None:
        self.identity = b""
        self.limits = Limits(body_bytes=DOCUMENT_MAX)
        self.spellings = Spellings()
        self.draining = False
        self.connections: set[Link] = set()

    def family(self, target: bytes) -> Family:
        """Nearcast's own shape of errors."""
        del target
        return "nearcast"


class StatusDesk(_Desk):
    """Answers ``engine.status``: load report, profile, metrics, health; also the gRPC calls that name no model.

    Args:
        serving: what is told about.
    """

    def __init__(self, serving: Serving) -> None:
        super().__init__()
        self._calls = server_answers()
        self._documents: dict[bytes, Callable[[], tuple[bytes, bytes]]] = {
            wire.LOAD_PATH.encode(): lambda: (_OK, msgspec.json.encode(serving.report())),
            wire.PROFILE_PATH.encode(): lambda: (_OK, msgspec.json.encode(serving.profile())),
            wire.METRICS_PATH.encode(): lambda: _metrics(serving),
            wire.LIVE_PATH.encode(): lambda: (_OK, b'{"live":true}'),
            wire.READY_PATH.encode(): lambda: (_OK, b'{"ready":true}'),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer at once."""
        if exchange.is_call:
            self._answer_call(exchange)
            return
        document = self._documents.get(exchange.path)
        if document is None:
            exchange.refuse(not_found(f"no such path: {exchange.path.decode('latin-1')}"))
        elif exchange.method not in {b"GET", b"HEAD"}:
            exchange.refuse(method_not_allowed(exchange.method.decode("latin-1"), "GET, HEAD"))
        else:
            exchange.reply(*document())

    def _answer_call(self, exchange: Exchange) -> None:
        message = self._calls.get(exchange.path)
        try:
            if message is None:
                raise not_found(f"no such method here: {exchange.path.decode('latin-1')}")
            answer_call(CALL_OK, message, exchange)
        except Refusal as refusal:
            exchange.refuse(refusal)


def _metrics(serving: Serving) -> tuple[bytes, bytes]:
    content_type, body = exposition(serving)
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n" % content_type.encode(), body


class AdminDesk(_Desk):
    """Answers ``engine.admin``: load, unload, list.

    Args:
        serving: what is loaded into.
        run_dir: where sockets are made unless an order says otherwise.
        queue: bound of a queue unless an order says otherwise.
    """

    def __init__(self, serving: Serving, run_dir: Path, queue: int) -> None:
        super().__init__()
        self._serving = serving
        self._run_dir = run_dir
        self._queue = queue
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer when it is done; a client that goes away does not undo what it asked for."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        answer: bytes | None = None
        refusal: Refusal = engine_failure("the engine failed; its log says why")
        try:
            answer = msgspec.json.encode(await self._call(exchange)(exchange))
        except Refusal as error:
            refusal = error
        except OSError as error:
            refusal = engine_failure(f"the system refused: {error}")
        finally:
            if answer is not None:
                exchange.reply(_OK, answer)
            else:
                exchange.refuse(refusal)

    def _call(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[dict[str, Any]]]:
        path = exchange.path.decode("latin-1")
        if path == wire.ADMIN_MODELS_PATH:
            calls = {b"GET": self._list, b"HEAD": self._list}
        elif path.startswith(wire.ADMIN_MODELS_PATH + "/") and path.count("/") == 4:
            calls = {b"PUT": self._load, b"DELETE": self._unload}
        else:
            raise not_found(f"no such path: {path}")
        call = calls.get(exchange.method)
        if call is None:
            raise method_not_allowed(
                exchange.method.decode("latin-1"), ", ".join(sorted(key.decode() for key in calls))
            )
        return call

    async def _list(self, exchange: Exchange) -> dict[str, Any]:
        del exchange
        return {"models": [_described(served) for served in self._serving.all()]}

    async def _load(self, exchange: Exchange) -> dict[str, Any]:
        return _described(await self._serving.load(self._order(exchange)))

    def _order(self, exchange: Exchange) -> Order:
        try:
            load = msgspec.json.decode(exchange.body, type=_Load)
            manifest = decode_release(bytes(load.manifest))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_request(f"not an order to load a model: {error}") from error
        key = manifest.model, manifest.version
        if key != _key(exchange):
            raise invalid_request(f"the path names {'@'.join(_key(exchange))}, the manifest {'@'.join(key)}")
        queue = self._queue if load.queue is None else load.queue
        if not 1 <= queue <= QUEUE_MAX:
            raise invalid_request(f"expected queue from 1 to {QUEUE_MAX}, got {queue}")
        socket = Path(load.socket) if load.socket else self._run_dir / wire.model_socket(*key)
        if len(str(socket)) >= wire.SUN_PATH_MAX or "\0" in str(socket):
            raise invalid_request(f"expected a socket path below {wire.SUN_PATH_MAX} bytes, got {len(str(socket))}")
        return Order(Path(load.directory), manifest, socket, queue)

    async def _unload(self, exchange: Exchange) -> dict[str, Any]:
        query = parse_qs(exchange.target.partition(b"?")[2].decode("latin-1"))
        text = query.get("drain_s", [str(DRAIN_S)])[-1]
        try:
            drain_s = float(text)
        except ValueError:
            drain_s = -1.0
        if not 0 <= drain_s <= 3600:
            raise invalid_request(f"expected drain_s in seconds, 0 to 3600, got {text!r}")
        model, version = _key(exchange)
        await self._serving.unload((model, version), drain_s)
        return {"model": model, "version": version, "state": "unloaded"}


def _key(exchange: Exchange) -> tuple[str, str]:
    _, _, _, model, version = exchange.path.decode("latin-1").split("/")
    return unquote(model), unquote(version)


def _described(served: Served) -> dict[str, Any]:
    model, version = served.order.key
    return {
        "model": model,
        "version": version,
        "state": served.state,
        "release": served.digest,
        "socket": str(served.order.socket),
        "queue": served.order.queue,
        "embeddings": served.endpoint is not None and served.endpoint.embedder is not None,
        "profile": None if served.profile is None else msgspec.to_builtins(served.profile),
    }
