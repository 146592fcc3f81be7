"""Cost in seconds: everything that a caller waits for is a time, so the terms add, and each can be shown."""

from dataclasses import dataclass
from typing import Final

UNKNOWN_SERVICE_S: Final = 0.01
"""Service time assumed of a model on which nobody has reported; the first load report replaces it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The expected time until a place's answer is here, by cause, in seconds.

    Attributes:
        round_trip_s: network, there and back; 0 for the local engines.
        transfer_s: payload over the rate of the slower of the two links; 0 where neither has one, and at home.
        wait_s: until the place takes the request up: work ahead of it over the rate of service.
        service_s: in the model.
        cold_s: until the model is loaded; 0 where it is.
    """

    round_trip_s: float = 0.0
    transfer_s: float = 0.0
    wait_s: float = 0.0
    service_s: float = UNKNOWN_SERVICE_S
    cold_s: float = 0.0

    @property
    def is_measured(self) -> bool:
        """Whether the time of service was told, and is not the one assumed of a model nobody has reported on."""
        return self.service_s != UNKNOWN_SERVICE_S

    @property
    def total_s(self) -> float:
        """What the caller waits."""
        return self.round_trip_s + self.transfer_s + self.wait_s + self.service_s + self.cold_s
