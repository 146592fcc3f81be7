"""What is known of a peer, from a row of probes: a smoothed round trip, its load, and whether it can be reached. Pure.

It decides how probes become an estimate. It does not probe (`measure`), and it does not choose (`planning.routes`).
"""

from dataclasses import dataclass, replace
from typing import Final

from nearcast.planning.routes import Observation
from nearcast.resources.load import LoadReport
from nearcast.resources.status import PeerObservation

DOWN_GAIN: Final = 0.5
"""A probe that is faster than the estimate is closer to the truth: noise only ever adds time."""
UP_GAIN: Final = 0.15
FAILURES: Final = 2
"""Probes in a row that must fail before a peer counts as unreachable; one may be an accident."""
JUMP: Final = 3
"""Probes in a row far above the estimate that are a new truth (another path), not noise."""
JUMP_RATIO: Final = 1.5


@dataclass(frozen=True, slots=True)
class Probe:
    """One answer, or none: ``round_trip_s`` is None when it failed, and ``message`` says why."""

    at_s: float
    round_trip_s: float | None = None
    load: LoadReport | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one peer.

    Attributes:
        measured_at_s: of the last answer; of the first failure where there never was one.
        round_trip_s: smoothed; 0 before the first answer.
        load: of the last answer.
        failures: probes in a row that failed.
        high: probes in a row that were far above the estimate.
        message: why the last probe failed.
    """

    measured_at_s: float
    round_trip_s: float = 0.0
    load: LoadReport | None = None
    failures: int = 0
    high: int = 0
    message: str = ""

    @property
    def is_reachable(self) -> bool:
        """Whether requests may be sent there."""
        return self.failures < FAILURES

    def observation(self) -> Observation | None:
        """What the route table wants to know; None while nothing can be said, and the plan's expectation holds."""
        if self.round_trip_s <= 0.0 and self.is_reachable:
            return None
        return Observation(
            measured_at_s=self.measured_at_s,
            reachable=self.is_reachable,
            round_trip_s=self.round_trip_s,
            load=self.load,
        )

    def report(self, site: str, now_s: float) -> PeerObservation:
        """What the status tells."""
        return PeerObservation(
            site=site,
            reachable=self.is_reachable,
            round_trip_s=self.round_trip_s,
            age_s=max(0.0, now_s - self.measured_at_s),
            load=self.load,
            message=self.message,
        )


def updated(before: Estimate | None, probe: Probe) -> Estimate:
    """The estimate after one more probe; ``before`` is None for the first."""
    if probe.round_trip_s is None:
        if before is None:
            return Estimate(measured_at_s=probe.at_s, failures=1, message=probe.message)
        return replace(before, failures=before.failures + 1, message=probe.message)
    if before is None or before.round_trip_s <= 0.0:
        return Estimate(measured_at_s=probe.at_s, round_trip_s=probe.round_trip_s, load=probe.load)
    high = before.high + 1 if probe.round_trip_s > before.round_trip_s * JUMP_RATIO else 0
    gain = DOWN_GAIN if probe.round_trip_s < before.round_trip_s or high >= JUMP else UP_GAIN
    return Estimate(
        measured_at_s=probe.at_s,
        round_trip_s=before.round_trip_s + gain * (probe.round_trip_s - before.round_trip_s),
        load=probe.load,
        high=high,
    )
