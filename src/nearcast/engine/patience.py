"""How long requests may wait at this engine, as the gateways that send them say.

Decides which of the places in the header is this one. The same few values come again and again, so what was read is
remembered.
"""

from typing import Final

from nearcast.resources import wire

KNOWN_MAX: Final = 1024
"""Values that are remembered; gateways make a handful each, and a client that invents some must not fill the memory."""


class Patience:
    """Reads :data:`wire.LONGEST_WAIT`.

    Args:
        site, node: whom this engine belongs to.
    """

    def __init__(self, site: str = "", node: str = "") -> None:
        self._site, self._node = site, node
        self._known: dict[bytes, float | None] = {}

    def of(self, value: bytes) -> float | None:
        """Seconds, or None where ``value`` says nothing of this place."""
        known = self._known
        if value in known:
            return known[value]
        found_ms = wire.longest_wait_ms(value.decode("latin-1"), self._site, self._node)
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[value] = found = None if found_ms is None else found_ms / 1000.0
        return found
