"""What the fleet's plan asks of single sites, by names: sites of ``auto`` placements, the shares to begin with, and who
is near where distance does not say.

The part of a plan that is published. It changes only where the difference matters (`decision`), since each change is a
new site plan to sign and to fetch.
"""

from typing import Final

import msgspec

from nearcast.resources.plan import PlannedShare

Shares = tuple[PlannedShare, ...]


class Guidance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Guidance for a whole fleet.

    Attributes:
        placements: deployment with an ``auto`` placement -> its sites, sorted.
        routes: site -> model -> shares that add up to 1. What is left out is routed by cost alone, which is right
            wherever all of the requests go to the place that answers soonest.
        near: site without a location -> near site -> round trip in seconds (`planning.nearness`).
    """

    placements: dict[str, tuple[str, ...]] = {}
    routes: dict[str, dict[str, Shares]] = {}
    near: dict[str, dict[str, float]] = {}


UNGUIDED: Final = Guidance()
"""Before the first plan: nothing is chosen, and everything goes by cost."""
