"""A clock for durations: some clock's first moment, and from then on one that nobody sets.

For how long a node has been silent. A wall clock that is put forward by an hour would make every node of the fleet
silent at once, and plans would no longer wait for their successors. Replicas compare such moments with one another, so
theirs begin with the database's clock, and follow it. Moments that must mean the same to others (certificates,
metadata, tokens) are read off the wall clock.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from nearcast.control.store import Clock


class SteadyClock:
    """Gives moments that jump only when told. Safe for several threads.

    Args:
        wall: the clock that may be set, or another machine's, read once.
        elapsed_s: seconds that never go back.
    """

    def __init__(self, wall: Clock, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._elapsed_s = elapsed_s
        self._began = wall(), elapsed_s()

    def __call__(self) -> datetime:
        """Now."""
        began, began_s = self._began
        return began + timedelta(seconds=self._elapsed_s() - began_s)

    def follow(self, now: datetime) -> None:
        """Go on from ``now``: what the clock that all replicas share shows at this moment."""
        self._began = now, self._elapsed_s()
