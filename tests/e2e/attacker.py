"""Somebody who holds a node's stolen key: one HTTP/2 connection that he never gives up, whatever he is told.

It ignores GOAWAY and pings for as long as the other side lets it. Frames are made by hand, since no client library
would go on after it was asked to leave.
"""

import socket
import ssl
import time
from pathlib import Path

from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Attacker:
    """A connection made with the files of a node's data directory."""

    def __init__(self, node: Path, address: tuple[str, int]) -> None:
        context = ssl.create_default_context(cafile=str(node / "identity" / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(node / "identity" / "cert.pem", node / "identity" / "key.pem")
        context.set_alpn_protocols(["h2"])
        self._socket = context.wrap_socket(socket.create_connection(address, 10))
        self._socket.settimeout(10)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._stream = -1
        self._authority = f"{address[0]}:{address[1]}"
        self.was_asked_to_leave = False
        settings = SettingsFrame(0)
        self._socket.sendall(PREFACE + settings.serialize())

    def ask(self, path: str, model: str) -> int:
        """The status of one answer."""
        self._stream += 2
        head = [(":method", "GET"), (":scheme", "https"), (":authority", self._authority), (":path", path)]
        frame = HeadersFrame(self._stream, flags=["END_HEADERS", "END_STREAM"])
        frame.data = self._encoder.encode([*head, ("x-nearcast-model", model)])
        self._socket.sendall(frame.serialize())
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            got = self._frame()
            if isinstance(got, HeadersFrame):
                headers = dict(self._decoder.decode(got.data))
                if got.stream_id == self._stream:
                    return int(headers[":status"])
        raise AssertionError("no answer in 10 s")

    def closed_after_s(self, timeout_s: float) -> float:
        """How long the connection lives on, pinged all the time."""
        began = time.monotonic()
        self._socket.settimeout(0.5)
        while time.monotonic() < began + timeout_s:
            try:
                self._socket.sendall(PingFrame(0, opaque_data=b"are you?").serialize())
                self._frame()
            except TimeoutError:
                continue
            except (OSError, EOFError):
                return time.monotonic() - began
        raise AssertionError(f"the connection stood for {timeout_s:g} s")

    def __enter__(self) -> "Attacker":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _frame(self) -> Frame:
        head = self._exactly(9)
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self._exactly(length)))
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._socket.sendall(SettingsFrame(0, flags=["ACK"]).serialize())
        self.was_asked_to_leave |= isinstance(frame, GoAwayFrame)
        return frame

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise EOFError("closed")
            data += more
        return data
