"""How long a request may wait at each place of its order before the next one is asked.

Decides the longest wait at each place, in coarse steps. A place that would keep a request waiting for longer says that
it is full, and the gateway asks the next one. So the newest knowledge of a queue, which only the place itself has,
decides about each request, while shares follow reports that are seconds old. Does not decide the order (`routes`).

* A request goes on where the next places would answer sooner, by the last reports. The way to a place is spent whether
  it takes the request or not, so it does not count.
* Where the deployment says how soon it wants answers (``latencyTarget``), a place takes what it can answer in time, and
  no more: whoever is too late anyway makes all behind it late. What is in time by a margin stays, although the next
  place would be a little sooner: ways cost traffic.
* The last place takes whatever it has room for: a target is an objective, not a deadline. Only where an answer that is
  late is worth nothing (`realtime`) it takes what it answers within :data:`LATE` times the target, or what waits no
  longer than its own service takes. A fleet without room then refuses early, and most of its answers are in time.

A target that no place of the order can meet, idle as it may be, counts for nothing.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from nearcast.planning.cost import Terms

STEPS_MS: Final = (2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560, 5120, 10240)
"""Coarse, so that the gateway's routes change seldom for it."""
MARGIN: Final = 0.7
"""Part of the time that is left at a place for which a request stays in any case."""
STAY_S: Final = 0.1
"""It stays for no longer than this, or than the next part of the wait that the plan expects there."""
PLANNED: Final = 0.6
"""The plan lets requests wait where elsewhere they would be later; those that leave all the same take more tries. Found
by trying, on the digital twin: 0.8 does as well, and the whole wait loses where there is more demand than room."""
LATE: Final = 2.0
"""Rather a little late than refused, and rather refused than late for all that come behind."""


def longest_waits_ms(
    order: Sequence[str],
    standing: Mapping[str, Terms],
    target_s: float = 0.0,
    expected_s: Mapping[str, float] = MappingProxyType({}),
    *,
    urgent: bool = False,
) -> tuple[int, ...]:
    """Milliseconds for the places of ``order``, first to last; those left out take whatever they have room for.

    Args:
        order: places.
        standing: what is known of those that stand, their queues included.
        target_s: how soon the deployment wants answers; 0 where it does not say.
        expected_s: place -> the time there that the plan expects of a request that it sends there, its wait included.
        urgent: whether an answer that is much later is worth nothing.
    """
    idle_s = {name: standing[name].total_s - standing[name].wait_s for name in order if name in standing}
    if min(idle_s.values(), default=0.0) >= target_s:
        target_s = 0.0
    found: list[int] = []
    for spot, name in enumerate(order):
        if name not in standing:
            break
        later = [standing[other].total_s for other in order[spot + 1 :] if other in standing]
        slack_s = max(0.0, target_s - idle_s[name])
        service_s = standing[name].service_s
        if later:
            longest_s = max(0.0, min(later) - service_s)
            if target_s:
                stay_s = max(STAY_S, PLANNED * (expected_s.get(name, 0.0) - service_s))
                longest_s = max(min(longest_s, slack_s), min(MARGIN * slack_s, stay_s))
        elif target_s and urgent:
            longest_s = max(LATE * target_s - idle_s[name], service_s)
        else:
            break
        found.append(max((step for step in STEPS_MS if step <= 1000.0 * longest_s), default=STEPS_MS[0]))
    return tuple(found)
