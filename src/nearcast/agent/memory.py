"""What an agent remembers over a restart, beside the signed plan: last good versions, and the shares in force.

Neither is needed to be right: a node without them serves what its plan says, and measures again. So an unreadable file
is an empty one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from nearcast.agent.states import GoodVersion
from nearcast.durable import read_if_exists, write_whole
from nearcast.planning.routes import RouteTable
from nearcast.resources.unreadable import UNREADABLE

LAST_GOOD_FILE: Final = "last_good.json"
ROUTES_FILE: Final = "routes.json"

_Kind = TypeVar("_Kind")


class Memory:
    """Files below ``directory``, each replaced as a whole. Blocking.

    Args:
        directory: the node's ``plan/``.
    """

    def __init__(self, directory: Path) -> None:
        self._last_good = directory / LAST_GOOD_FILE
        self._routes = directory / ROUTES_FILE

    def last_good(self) -> dict[str, GoodVersion]:
        """Model -> the version that was routed to last."""
        return _read(self._last_good, dict[str, GoodVersion]) or {}

    def keep_last_good(self, last_good: Mapping[str, GoodVersion]) -> None:
        """Remember it, durably; nothing is written where nothing changed."""
        data = msgspec.json.encode(dict(sorted(last_good.items())))
        if read_if_exists(self._last_good) != data:
            write_whole(self._last_good, data)

    def routes(self) -> RouteTable | None:
        """The route table that was in force last, so that a restart does not move shares."""
        return _read(self._routes, RouteTable)

    def keep_routes(self, table: RouteTable) -> None:
        """Remember it."""
        write_whole(self._routes, msgspec.json.encode(table))


def _read(file: Path, kind: type[_Kind]) -> _Kind | None:
    data = read_if_exists(file)
    try:
        return None if data is None else msgspec.json.decode(data, type=kind)
    except UNREADABLE:
        return None
