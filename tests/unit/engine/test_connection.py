"""Time limits and order of a connection, without sockets: the transport is a list of what was written."""

import asyncio

import pytest

from nearcast.engine.connection import Connection
from nearcast.engine.exchange import Exchange, Limits, Link
from nearcast.engine.headers import Spellings
from nearcast.engine.refusal import Family

GET = b"GET /a HTTP/1.1\r\nhost: e\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: e\r\ncontent-length: 4\r\n\r\n"


class Transport(asyncio.Transport):
    """What a connection did to its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.events: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.events.append("eof")

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")


class Later:
    """An endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.identity = b""
        self.limits = Limits(stall_s=3, request_s=6, linger_s=1, pipelined=2)
        self.spellings = Spellings()
        self.draining = False
        self.connections: set[Link] = set()
        self.asked: list[Exchange] = []

    def handle(self, exchange: Exchange) -> None:
        self.asked.append(exchange)

    def family(self, target: bytes) -> Family:
        return "oip"

    def answer(self, body: bytes = b"ok") -> None:
        self.asked.pop(0).reply(b"HTTP/1.1 200 OK\r\n", body)


@pytest.fixture
def endpoint() -> Later:
    return Later()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def connection(endpoint: Later, transport: Transport) -> Connection:
    made = Connection(endpoint)
    made.connection_made(transport)
    return made


def statuses(transport: Transport) -> list[bytes]:
    return [part[:3] for part in transport.written.split(b"HTTP/1.1 ")[1:]]


def test_one_at_a_time_in_order(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.data_received(GET + GET.replace(b"/a", b"/b"))
    assert [exchange.target for exchange in endpoint.asked] == [b"/a"]
    endpoint.answer(b"1")
    assert [exchange.target for exchange in endpoint.asked] == [b"/b"]
    endpoint.answer(b"2")
    assert transport.written.endswith(b"\r\n\r\n2")
    assert connection.is_idle


def test_reading_stops_while_too_much_is_pipelined(
    endpoint: Later, transport: Transport, connection: Connection
) -> None:
    connection.data_received(GET * 5)
    assert transport.events == ["pause"]
    for _ in range(5):
        endpoint.answer()
    assert transport.events == ["pause", "resume"]
    assert statuses(transport) == [b"200"] * 5


def test_a_request_that_stalls_is_told_so(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.data_received(POST + b"ab")
    for _ in range(3):
        connection.sweep()
    assert transport.written == b""
    connection.sweep()
    assert statuses(transport) == [b"408"]
    assert transport.events == ["eof"]
    connection.data_received(b"cd")
    assert endpoint.asked == []
    connection.sweep()
    connection.sweep()
    assert transport.events == ["eof", "abort"]


def test_a_request_that_trickles_is_told_so(transport: Transport, connection: Connection) -> None:
    connection.data_received(POST.replace(b" 4", b" 400"))
    for _ in range(7):
        connection.data_received(b"a")
        connection.sweep()
    assert statuses(transport) == [b"408"]


def test_an_idle_connection_and_one_that_waits_for_its_answer_have_no_limit(
    endpoint: Later, transport: Transport, connection: Connection
) -> None:
    for _ in range(100):
        connection.sweep()
    connection.data_received(GET)
    for _ in range(100):
        connection.sweep()
    endpoint.answer()
    assert (statuses(transport), transport.events) == ([b"200"], [])


def test_a_client_that_never_reads_is_dropped(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.data_received(GET)
    endpoint.answer()
    connection.pause_writing()
    for _ in range(4):
        connection.sweep()
    assert transport.events == ["pause", "abort"]


def test_a_client_that_reads_again_goes_on(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.pause_writing()
    connection.data_received(GET)
    connection.resume_writing()
    endpoint.answer()
    assert statuses(transport) == [b"200"]


def test_whoever_handles_a_request_hears_that_the_client_left(endpoint: Later, connection: Connection) -> None:
    heard: list[str] = []
    connection.data_received(GET + GET)
    endpoint.asked[0].on_lost = lambda: heard.append("lost")
    connection.connection_lost(None)
    assert heard == ["lost"]
    assert endpoint.connections == set()
    endpoint.answer()  # too late: nobody is there, and nothing happens


def test_a_draining_endpoint_says_goodbye(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.data_received(GET + GET)
    endpoint.draining = True
    endpoint.answer()
    assert transport.events == []
    endpoint.answer()
    assert transport.written.count(b"connection: close") == 1
    assert transport.events == ["close"]


def test_what_follows_a_refused_request_is_not_heard(
    endpoint: Later, transport: Transport, connection: Connection
) -> None:
    connection.data_received(GET + b"nonsense\r\n\r\n" + GET)
    endpoint.answer()
    connection.data_received(GET)
    assert statuses(transport) == [b"200", b"400"]
    assert endpoint.asked == []


def test_a_head_has_no_body(endpoint: Later, transport: Transport, connection: Connection) -> None:
    connection.data_received(GET.replace(b"GET", b"HEAD"))
    endpoint.answer(b"12345")
    assert transport.written.endswith(b"content-length: 5\r\n\r\n")


@pytest.mark.parametrize("more", [b"0\r\nx: ", b"0\r\n", b"1;x="])
def test_a_chunked_body_is_not_followed_by_trailers_without_end(
    more: bytes, endpoint: Later, transport: Transport, connection: Connection
) -> None:
    connection.data_received(b"POST /a HTTP/1.1\r\nhost: e\r\ntransfer-encoding: chunked\r\n\r\n" + more)
    for count in range(5):
        connection.data_received(
            b"v" * 20_000 if more != b"0\r\n" else b"".join(b"n%d-%d: v\r\n" % (count, n) for n in range(2000))
        )
    assert statuses(transport) == [b"431"]
    assert endpoint.asked == []


def test_a_chunked_body_in_many_pieces_is_read_whatever_its_size(
    endpoint: Later, transport: Transport, connection: Connection
) -> None:
    connection.data_received(b"POST /a HTTP/1.1\r\nhost: e\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(3000):
        connection.data_received(b"40\r\n" + b"v" * 64 + b"\r\n")
    connection.data_received(b"0\r\nx: y\r\n\r\n")
    assert len(endpoint.asked[0].body) == 3000 * 64
