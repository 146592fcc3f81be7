"""How long requests may wait at this engine, as the gateways that send them say.

Decides which of the places in the header is this one. The same few values come again and again, so what was read is
remembered.
"""

from typing import Final

from nearcast.resources import wire

KNOWN_MAX: Final = 1024
"""Values that are remembered; gateways make a handful each, and a client that invents some must not fill the memory."""

ATTEMPT_DIGITS: Final = 4


class Patience:
    """Reads :data:`wire.LONGEST_WAIT`.

    Args:
        site, node: whom this engine belongs to.
    """

    def __init__(self, site: str = "", node: str = "") -> None:
        self._site, self._node = site, node
        self._known: dict[tuple[bytes, bytes | None], float | None] = {}

    def of(self, value: bytes, attempt: bytes | None = None) -> float | None:
        """Seconds, or None where ``value`` says nothing of this place, or nothing for this ``attempt`` (from "1")."""
        known, key = self._known, (value, attempt)
        if key in known:
            return known[key]
        number = int(attempt) if attempt is not None and attempt.isdigit() and len(attempt) <= ATTEMPT_DIGITS else 1
        found_ms = wire.longest_wait_ms(value.decode("latin-1"), self._site, self._node, number)
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[key] = found = None if found_ms is None else found_ms / 1000.0
        return found
