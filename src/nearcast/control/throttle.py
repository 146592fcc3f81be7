"""How often one address may fail to join: guessing is hopeless, and it should not be cheap to try either. Pure."""

from typing import Final

BURST: Final = 20
PER_S: Final = 0.2
MAX_ADDRESSES: Final = 10_000


class Throttle:
    """A bucket of failures per address. Not for several threads at once: asked on the event loop only."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, address: str, now_s: float) -> float:
        """How long ``address`` must wait before it may try again; 0 when it may."""
        failures = self._level(address, now_s)
        return 0.0 if failures < BURST else (failures - BURST + 1) / PER_S

    def failed(self, address: str, now_s: float) -> None:
        """Note a failure."""
        failures = self._level(address, now_s) + 1
        self._buckets.pop(address, None)
        if len(self._buckets) >= MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[address] = (failures, now_s)

    def _level(self, address: str, now_s: float) -> float:
        failures, since_s = self._buckets.get(address, (0.0, now_s))
        return max(0.0, failures - max(0.0, now_s - since_s) * PER_S)
