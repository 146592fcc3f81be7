"""What a policy is asked, and what it may know when it decides: ports between the event loop and `policies`, `ours`.

Decides nothing. What is known, and how late, is `telemetry`'s.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from nearcast.twin.place import Routes
from nearcast.twin.world import Floats, Truths

TICK_S: Final = 0.25
"""Between two looks of policies at the world; sites take their turns in the ticks of a second."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a place told of itself at ``made_at_s``: requests that wait, by model; wait of a new one; service of each
    model, as it was lately; busy workers."""

    made_at_s: float
    waiting: tuple[int, ...]
    wait_s: float
    service_s: tuple[float, ...]
    busy: int
    utilization: float


class Moment(Protocol):
    """What a policy may know at a tick."""

    now_s: float
    tick: int
    routes: Routes

    def seen(self, observer: int, place: int) -> Report | None:
        """The last report of ``place`` that has reached ``observer``: its own at once, others' at telemetry's age."""

    def believed(self) -> Truths:
        """bool[S, S]: whom each site (row) takes to be within reach, as late as failures are detected."""

    def demand(self) -> Floats:
        """float64[S, M]: requests per second that entered, a moving average, as old as telemetry."""


class Policy(Protocol):
    """Decides routes. ``cyclic``: shares of a route are taken in turn, not drawn."""

    name: str
    cyclic: bool

    def begin(self, moment: Moment) -> None:
        """Set the first routes."""

    def step(self, moment: Moment) -> None:
        """Change routes, at every tick."""
