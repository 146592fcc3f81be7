"""What became of the requests of one run: who answered, in which time, over which ways. Data; `measures` judges."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.twin.world import Floats

REFUSED: Final = -1
LOST: Final = -2
CLOSED: Final = -3
"""Instead of a place: every place was full; places died; no place may or can answer."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of N requests under one policy.

    Attributes:
        place: int32[N]: who answered; REFUSED, LOST or CLOSED where nobody did.
        time_s: float64[N]: to answer, or to the failure.
        network_s, wait_s, service_s: float64[N]: parts of it; all hops and tries are network.
        wan_bytes: float64[N]: between sites.
        attempts: int32[N]: places that were asked.
        entered: int32[N]: site at which the request entered in the end.
        busy_s: float64[S]: worker-seconds in use.
        moved_per_s: float64[T]: part of the traffic whose first place changed, by second.
        undone_per_s: float: part of the traffic whose first place changed and changed back within half a minute.
    """

    policy: str
    place: NDArray[np.int32]
    time_s: Floats
    network_s: Floats
    wait_s: Floats
    service_s: Floats
    wan_bytes: Floats
    attempts: NDArray[np.int32]
    entered: NDArray[np.int32]
    busy_s: Floats
    moved_per_s: Floats
    undone_per_s: float
