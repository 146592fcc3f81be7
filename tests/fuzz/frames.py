"""HTTP/2 by hand: frames and header blocks as no library would write them, without compression.

Only what a client sends is made here; of what comes back, frames are told apart, and statuses found in header blocks
where `:status` stands first (RFC 9113, section 8.3).
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 0x1, 0x4
_STATUS = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


@dataclass(frozen=True)
class Frame:
    """One frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One frame; ``length`` to lie about it."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block of literals, never indexed, names and values as they are."""
    return b"".join(b"\x10" + _text(name) + _text(value) for name, value in fields)


def _text(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes([size]) + value
    size -= 127
    head = bytearray([127])
    while size >= 128:
        head.append(size % 128 + 128)
        size //= 128
    return bytes([*head, size]) + value


def request(
    stream: int, fields: Iterable[tuple[bytes, bytes]], body: bytes = b"", trailers: Iterable[tuple[bytes, bytes]] = ()
) -> bytes:
    """A request on ``stream``: headers, body, trailers."""
    end = [*trailers]
    flags = END_HEADERS | (0 if body or end else END_STREAM)
    sent = frame(HEADERS, flags, stream, block(fields))
    if body:
        sent += frame(DATA, 0 if end else END_STREAM, stream, body)
    if end:
        sent += frame(HEADERS, END_HEADERS | END_STREAM, stream, block(end))
    return sent


def pseudo(path: bytes, method: bytes = b"POST", authority: bytes = b"nearcast.test") -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", authority), (b":path", path)]


class Http2:
    """A connection that speaks frames."""

    def __init__(self, sock: socket.socket, preface: bytes = PREFACE) -> None:
        self._sock = sock
        self._left = b""
        self.closed = False
        no_table = struct.pack(">HI", 1, 0)  # so that no status comes as an index that we would have to remember
        self.send(preface + frame(SETTINGS, 0, 0, no_table))

    def send(self, data: bytes) -> None:
        """Send; what the other side no longer reads is not an error here."""
        try:
            self._sock.sendall(data)
        except ConnectionError:
            self.closed = True

    def frames(self, silence_s: float) -> Iterator[Frame]:
        """Frames as they come, until the other side closes or is silent for ``silence_s``. Settings are confirmed."""
        self._sock.settimeout(silence_s)
        while True:
            while len(self._left) >= 9 and len(self._left) >= 9 + (size := int.from_bytes(self._left[:3])):
                head, payload = self._left[:9], self._left[9 : 9 + size]
                self._left = self._left[9 + size :]
                found = Frame(head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload)
                if found.kind == SETTINGS and not found.flags & 1:
                    self.send(frame(SETTINGS, 1, 0))
                yield found
            try:
                data = self._sock.recv(65536)
            except TimeoutError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.closed = True
                return
            self._left += data

    def answer(self, stream: int, timeout_s: float = 20.0) -> int | None:
        """The status on ``stream``; None when it was reset, or the connection ended."""
        for found in self.frames(timeout_s):
            if found.stream == stream and found.kind == HEADERS:
                return status_of(found.payload)
            if found.kind == GOAWAY or (found.stream == stream and found.kind == RST):
                return None
        assert self.closed, f"no answer on stream {stream} within {timeout_s:.0f} s"
        return None

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def status_of(payload: bytes) -> int:
    """The status in a header block; dynamic table updates before it are skipped."""
    while payload[0] & 0xE0 == 0x20:
        payload = payload[1:]
    if payload[0] & 0x80:
        index = payload[0] & 0x7F
        return _STATUS.get(index, 0)
    length = payload[1] & 0x7F
    text = payload[2 : 2 + length]
    return int(text) if not payload[1] & 0x80 else _unhuffed(text)


def _unhuffed(data: bytes) -> int:
    """Three digits in Huffman's code of RFC 7541: 0 to 2 have five bits, 3 to 9 six."""
    bits = "".join(f"{byte:08b}" for byte in data)
    codes = {"00000": "0", "00001": "1", "00010": "2"} | {f"{0b011001 + n:06b}": str(3 + n) for n in range(7)}
    text, at = "", 0
    while len(text) < 3:
        size = 5 if bits[at : at + 5] in codes else 6
        text, at = text + codes[bits[at : at + size]], at + size
    return int(text)
