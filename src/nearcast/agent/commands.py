"""What the reconciler has done: each command is carried out once, and answered by the event that it names.

Data only; when each is given is decided in :mod:`nearcast.agent.reconcile`, how it is carried out in `node`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from nearcast.agent.states import GoodVersion, Key, Serving


@dataclass(frozen=True, slots=True)
class Fetch:
    """Verify the release on disk, or download it; answer with Fetched or FetchFailed."""

    key: Key
    release: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop a download that nobody wants any more; no answer is needed."""

    key: Key


@dataclass(frozen=True, slots=True)
class Load:
    """Load, warm up and open the socket; answer with Loaded or LoadFailed."""

    incarnation: int
    key: Key
    release: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Close the socket, finish what is in flight, unload; answer with Unloaded or UnloadFailed."""

    incarnation: int
    key: Key
    drain_s: float


@dataclass(frozen=True, slots=True)
class Route:
    """Make the gateway know this; answer with GatewayAccepted or GatewayRefused. A later one replaces it."""

    generation: int
    serving: Serving


@dataclass(frozen=True, slots=True)
class Remember:
    """Write the last good versions to disk; no answer."""

    last_good: Mapping[str, GoodVersion]


@dataclass(frozen=True, slots=True)
class Collect:
    """Releases on disk that are not in ``keep`` may go; no answer."""

    keep: frozenset[str]


Command: TypeAlias = Fetch | Abandon | Load | Unload | Route | Remember | Collect
