"""A clock for durations: the wall clock of its first moment, and from then on a clock that nobody sets.

For how long a node has been silent. A wall clock that is put forward by an hour would make every node of the fleet
silent at once, and plans would no longer wait for their successors. Moments that must mean the same to others
(certificates, metadata, tokens) are read off the wall clock.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from nearcast.control.store import Clock


class SteadyClock:
    """Gives moments that never jump. Safe for several threads.

    Args:
        wall: the clock that may be set, read once.
        elapsed_s: seconds that never go back.
    """

    def __init__(self, wall: Clock, elapsed_s: Callable[[], float] = time.monotonic) -> None:
        self._elapsed_s = elapsed_s
        self._began, self._began_s = wall(), elapsed_s()

    def __call__(self) -> datetime:
        """Now."""
        return self._began + timedelta(seconds=self._elapsed_s() - self._began_s)
