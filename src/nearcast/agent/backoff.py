"""How long to wait before trying again: exponential, capped, and spread, without rolling dice.

It decides durations only. The spread comes from a hash of who waits and which attempt it is, so that a thousand nodes
that lost the same server do not come back together, and so that a decision replayed in a test is the same decision.
"""

import hashlib
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of waits.

    Attributes:
        base_s: longest wait after the first failure.
        factor: by how much it grows with each further failure.
        cap_s: longest wait of all.
    """

    base_s: float
    factor: float
    cap_s: float

    def delay_s(self, attempt: int, who: str) -> float:
        """Seconds to wait after the ``attempt``-th failure in a row (1 is the first), between half and all of the step.

        Args:
            attempt: at least 1.
            who: names the waiter; equal arguments give equal waits.
        """
        # The exponent is bounded so that a long outage cannot overflow a float.
        step = min(self.cap_s, self.base_s * self.factor ** min(attempt - 1, 64))
        return step * (0.5 + 0.5 * spread(f"{who}#{attempt}"))


def eager_s(delay_s: float, age_s: float) -> float:
    """``delay_s``, bounded for an agent of this age that the control plane has never answered yet: a machine that boots
    starts both at once, and whoever is up first shall not wait long for the other."""
    return min(delay_s, EAGER_PAUSE_S) if age_s < EAGER_S else delay_s


def spread(who: str) -> float:
    """A number in [0, 1) that follows from ``who`` and looks random."""
    return int.from_bytes(hashlib.sha256(who.encode()).digest()[:6], "big") / 2**48


EAGER_S: Final = 30.0
EAGER_PAUSE_S: Final = 1.0
TRANSIENT: Final = Backoff(base_s=1.0, factor=2.0, cap_s=60.0)
"""Something was not reachable."""
REFUSED: Final = Backoff(base_s=5.0, factor=2.0, cap_s=300.0)
"""Bytes were wrong, or the engine refused them: only somebody else's repair helps, so ask seldom."""
CRASHED: Final = Backoff(base_s=1.0, factor=6.0, cap_s=3600.0)
"""A model took its engine down while it was loading: every further try costs all other models a restart."""
PROCESS: Final = Backoff(base_s=0.2, factor=2.0, cap_s=15.0)
"""A child process died."""
