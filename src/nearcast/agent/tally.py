"""What has happened on this node since the agent started, counted: one look at each event of the reconciler. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from nearcast.agent.states import (
    Blame,
    EngineLost,
    Event,
    Fetched,
    FetchFailed,
    GatewayLost,
    GatewayRefused,
    LoadFailed,
    PlanReceived,
    PlanRefused,
    PlanUnchanged,
)

ENGINE: Final = "engine"
GATEWAY: Final = "gateway"


@dataclass(slots=True)
class Tally:
    """Counts by the words that metrics have for them.

    Attributes:
        polls: result -> looks for a new plan.
        fetches: result -> releases that were to be obtained.
        fetched_bytes: sizes of those that were.
        losses: process -> how often it was found gone.
        trust_refusals: offers that were not what somebody had signed.
        load_failures: model versions that the engine did not take.
        gateway_refusals: configurations that the gateway did not take.
        share_moves: times that the shares in force changed.
    """

    polls: Counter[str] = field(default_factory=lambda: Counter(new=0, unchanged=0, failed=0))
    fetches: Counter[str] = field(default_factory=lambda: Counter(done=0, failed=0))
    losses: Counter[str] = field(default_factory=lambda: Counter(engine=0, gateway=0))
    fetched_bytes: int = 0
    trust_refusals: int = 0
    load_failures: int = 0
    gateway_refusals: int = 0
    share_moves: int = 0

    def observe(self, event: Event) -> None:
        """Count ``event``."""
        match event:
            case PlanReceived():
                self.polls["new"] += 1
            case PlanUnchanged():
                self.polls["unchanged"] += 1
            case PlanRefused(blame):
                self.polls["failed"] += 1
                self.trust_refusals += blame is Blame.REFUSED
            case Fetched(total_bytes=size):
                self.fetches["done"] += 1
                self.fetched_bytes += size
            case FetchFailed(blame=blame):
                self.fetches["failed"] += 1
                self.trust_refusals += blame is Blame.REFUSED
            case EngineLost():
                self.losses[ENGINE] += 1
            case GatewayLost():
                self.losses[GATEWAY] += 1
            case LoadFailed():
                self.load_failures += 1
            case GatewayRefused():
                self.gateway_refusals += 1
            case _:
                pass
