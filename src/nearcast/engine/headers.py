"""The few request headers that an engine reads, found without looking at the others.

Decides under which spelling each of them came. A client spells its headers in the same way in every request, so the
answer is worked out once per set of names and remembered: lower-casing all names of all requests would cost more than
parsing them did.
"""

from typing import Final, NamedTuple

from nearcast.resources import wire

CONTENT_LENGTH: Final = b"content-length"
EXPECT: Final = b"expect"
ENCODING: Final = b"content-encoding"
MODEL: Final = wire.MODEL.encode()
REQUEST_ID: Final = wire.REQUEST_ID.encode()
JSON_LENGTH: Final = wire.INFERENCE_HEADER_LENGTH.encode()
CONTENT_TYPE: Final = b"content-type"
LONGEST_WAIT: Final = wire.LONGEST_WAIT.encode()
ATTEMPT: Final = wire.ATTEMPT.encode()

KNOWN_MAX: Final = 256
KNOWN_BYTES_MAX: Final = 2048
"""Sets of names, and bytes of each, that are remembered: a client that invents names must not fill the memory."""

Headers = dict[bytes, bytes]


class Names(NamedTuple):
    """The spelling under which each header came; the empty name, which no header has, where it did not come."""

    content_length: bytes = b""
    expect: bytes = b""
    encoding: bytes = b""
    model: bytes = b""
    request_id: bytes = b""
    json_length: bytes = b""
    content_type: bytes = b""
    longest_wait: bytes = b""
    attempt: bytes = b""


class Spellings:
    """What is known of the spellings of an endpoint's clients."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, ...], Names] = {}
        self.known = self._known.get
        """The names of a tuple of spellings that came before, else None."""

    def learn(self, headers: Headers) -> Names:
        """The names in ``headers``. Of a header that came in two spellings the last counts."""
        lower = {name.lower(): name for name in headers}
        names = Names(*(lower.get(name, b"") for name in _WANTED))
        if sum(map(len, headers)) <= KNOWN_BYTES_MAX:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[tuple(headers)] = names
        return names


_WANTED: Final = (CONTENT_LENGTH, EXPECT, ENCODING, MODEL, REQUEST_ID, JSON_LENGTH, CONTENT_TYPE, LONGEST_WAIT, ATTEMPT)
