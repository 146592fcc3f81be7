"""What ``route explain`` answers, as data: light, since every command that talks to a control plane knows it."""

from typing import Literal

import msgspec

from nearcast.planning.routes import Verdict

Standing = Literal["serving", "standby", "unreachable", "not_ready", "refused", "not_placed"]


class PlaceExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """One place. Terms are in milliseconds, None for a place that is no candidate; ``rule`` says who refused it.

    ``base_percent`` is the share of its site in the fleet's plan, and ``expected_ms`` the time there (queue and
    service) that the plan expects; None where the plan names no shares for the model.
    """

    site: str
    standing: Standing
    share_percent: int = 0
    base_percent: float | None = None
    expected_ms: float | None = None
    total_ms: float | None = None
    round_trip_ms: float | None = None
    transfer_ms: float | None = None
    wait_ms: float | None = None
    service_ms: float | None = None
    cold_ms: float | None = None
    rule: str | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``nearcast route explain``.

    Attributes:
        verdict: whether requests are routed, and if not, why.
        reported: whether the site has reported; without a report, costs rest on the plan alone.
        places: candidates by cost, then the refused ones, then sites without the model.
        unlisted: how many sites without the model were left out.
        outside: sites that go on with the model although its placement leaves them out, until others serve.
        node: whose report this rests on; the other nodes of its site are places by the name ``site/node``.
    """

    model: str
    site: str
    verdict: Verdict
    reported: bool
    places: tuple[PlaceExplanation, ...]
    unlisted: int = 0
    outside: tuple[str, ...] = ()
    node: str = ""
