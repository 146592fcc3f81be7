"""What clients ask of each model here, as moving averages: totals go in, rates and mean sizes come out. Pure.

Decides how totals become rates. Which requests are demand is decided in `gateway.demand`, who asks Envoy in `meter`.
A rate is an exponential average with :data:`TIME_CONSTANT_S`: after a step, two thirds of it are seen within that time.
Sizes change slowly and are sampled, so their means look back :data:`SIZE_CONSTANT_S`.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from nearcast.gateway.demand import Asked
from nearcast.resources.status import ModelDemand

TIME_CONSTANT_S: Final = 5.0
SIZE_CONSTANT_S: Final = 60.0
MODELS_MAX: Final = 128
"""Models told of; of more, the most asked."""
LEAST_PER_S: Final = 0.001
"""Below, nobody asks."""
_NONE: Final = Asked()


@dataclass(slots=True)
class _Track:
    """One model: its rate, and sums of sampled sizes that fade."""

    rate_per_s: float = 0.0
    sized: float = 0.0
    received_bytes: float = 0.0
    sent_bytes: float = 0.0

    def take(self, before: Asked, after: Asked, elapsed_s: float) -> None:
        """Requests from ``before`` to ``after`` came within ``elapsed_s``."""
        if after.requests < before.requests or after.sized < before.sized:
            before = _NONE  # Envoy was started anew, and counts from the beginning
        gain = -math.expm1(-elapsed_s / TIME_CONSTANT_S)
        self.rate_per_s += gain * ((after.requests - before.requests) / elapsed_s - self.rate_per_s)
        sized = after.sized - before.sized
        if sized > 0:
            keep = math.exp(-elapsed_s / SIZE_CONSTANT_S)
            self.sized = keep * self.sized + sized
            self.received_bytes = keep * self.received_bytes + max(0, after.received_bytes - before.received_bytes)
            self.sent_bytes = keep * self.sent_bytes + max(0, after.sent_bytes - before.sent_bytes)

    def demand(self) -> ModelDemand:
        """As the status tells it."""
        return ModelDemand(
            rate_per_s=self.rate_per_s,
            request_bytes=self.received_bytes / self.sized if self.sized else 0.0,
            answer_bytes=self.sent_bytes / self.sized if self.sized else 0.0,
        )


class Demand:
    """Demand of one node's clients. Holds at most one track for each model of the plan."""

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._last: Mapping[str, Asked] = {}
        self._tracks: dict[str, _Track] = {}

    def take(self, totals: Mapping[str, Asked], catalog: Collection[str], now_s: float) -> None:
        """Look at the totals. The first ones are where counting begins: nobody knows when those requests came.

        Args:
            totals: of every model that Envoy has counted.
            catalog: models that a plan knows; others are nobody's demand.
            now_s: seconds that never go back.
        """
        before_s, last = self._at_s, self._last
        self._at_s, self._last = now_s, totals
        if before_s is None:
            return
        elapsed_s = max(now_s - before_s, 1e-3)
        for model in {*self._tracks, *totals} & set(catalog):
            track = self._tracks.setdefault(model, _Track())
            track.take(last.get(model, _NONE), totals.get(model, _NONE), elapsed_s)
        self._tracks = {
            model: track
            for model, track in self._tracks.items()
            if model in catalog and (track.rate_per_s >= LEAST_PER_S or track.sized)
        }

    def now(self) -> dict[str, ModelDemand]:
        """Model -> demand, by name; the :data:`MODELS_MAX` most asked."""
        asked = [item for item in self._tracks.items() if item[1].rate_per_s >= LEAST_PER_S]
        most = sorted(asked, key=lambda item: (-item[1].rate_per_s, item[0]))[:MODELS_MAX]
        return {model: track.demand() for model, track in sorted(most)}
