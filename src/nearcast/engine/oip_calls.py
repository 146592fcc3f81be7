"""What all calls of the Open Inference Protocol over gRPC have in common: paths, a message's prefix, an answer's head.

Decides what is exactly one message, and the answers to calls that name no model. What messages say about a model is
decided in :mod:`~nearcast.engine.oip_grpc`. A call is an HTTP/1.1 request here, with its message as the body: Envoy
translates.

Source: Open Inference Protocol v2, "GRPC"; "gRPC over HTTP2" (length-prefixed messages).
"""

from typing import Final

from nearcast import __version__
from nearcast.engine.exchange import Exchange
from nearcast.engine.oip import EXTENSIONS
from nearcast.engine.protobuf import to_field
from nearcast.engine.refusal import invalid_request, unsupported
from nearcast.resources import wire

PREFIX: Final = wire.GRPC_PREFIX_BYTES
CALL_OK: Final = f"HTTP/1.1 200 OK\r\ncontent-type: {wire.GRPC_CONTENT_TYPES[0]}\r\n".encode()


def check_prefix(body: bytes) -> None:
    """Refuse ``body`` unless it is the prefix of exactly one message, and that message.

    Raises:
        Refusal: status 400, or 501 when the message is compressed.
    """
    if len(body) < PREFIX:
        raise invalid_request(f"expected one gRPC message, got {len(body)} bytes")
    if body[0] != 0:
        raise unsupported(501, "compressed messages are not supported: send them as they are (identity)")
    size = int.from_bytes(body[1:PREFIX], "big")
    if size != len(body) - PREFIX:
        raise invalid_request(f"expected one gRPC message of {size} bytes, got {len(body) - PREFIX}")


def framed(message: bytes) -> bytes:
    """``message`` behind its prefix."""
    return b"\0%b%b" % (len(message).to_bytes(4, "big"), message)


def truth() -> bytes:
    """A message whose field 1 is true, with its prefix: ServerLive, ServerReady and ModelReady answer so."""
    return framed(b"\x08\x01")


def server_answers() -> dict[bytes, bytes]:
    """Answers to the calls that name no model, by path, with their prefix."""
    extensions = b"".join(to_field(3, one.encode()) for one in EXTENSIONS)
    metadata = framed(to_field(1, b"nearcast") + to_field(2, __version__.encode()) + extensions)
    return {path("ServerLive"): truth(), path("ServerReady"): truth(), path("ServerMetadata"): metadata}


def path(method: str) -> bytes:
    """The path of a method of the protocol's service."""
    return f"{wire.GRPC_SERVICE_PATH}{method}".encode()


def answer_call(head: bytes, message: bytes, exchange: Exchange) -> None:
    """Answer a gRPC call whose own message says nothing.

    Raises:
        Refusal: it is not one message.
    """
    check_prefix(exchange.body)
    exchange.reply_call(head, message)
