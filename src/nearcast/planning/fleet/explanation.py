"""What ``plan explain`` and ``plan list`` answer, as data: light, since every command that asks knows it."""

from typing import Literal

import msgspec

Role = Literal["pinned", "chosen", "held", "open", "refused", "unable", "outside"]
"""pinned: its placement names it; chosen: by the planner; held: no longer needed, kept for a while; open: could hold
the model; refused: a policy, tenancy or licence closes it; unable: no node that could run it; outside: the placement
does not ask for it."""


class PlanHeading(msgspec.Struct, frozen=True, kw_only=True):
    """One decision in a list."""

    id: int
    at: str
    reason: tuple[str, ...]
    size_bytes: int = 0


class PlannedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A site as a place for the model.

    Attributes:
        demand_per_s: requests for the model that enter there.
        serves_per_s: requests for the model that the plan sends there, from wherever.
        work_ms: time of a worker that one request takes when the site is busy; not the time of an answer.
        utilization: share of the site's workers that the plan keeps busy, with all models: of each, ``serves_per_s``
            times its work, over the number of workers.
        wait_ms: expected in its queue.
        why: why it holds the model, or why not.
    """

    site: str
    role: Role
    demand_per_s: float = 0.0
    serves_per_s: float = 0.0
    work_ms: float | None = None
    utilization: float | None = None
    wait_ms: float | None = None
    why: str = ""


class PlannedWay(msgspec.Struct, frozen=True, kw_only=True):
    """A place as seen from the site that was asked about; times in milliseconds, idle but for ``wait_ms``.

    ``extra_ms`` is price, energy and carbon of the work of one request by the deployment's weights, no time.
    """

    site: str
    share_percent: float
    total_ms: float
    round_trip_ms: float
    transfer_ms: float
    wait_ms: float
    service_ms: float
    extra_ms: float = 0.0
    why: str = ""


class PlanExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``plan explain``: one deployment in one decision.

    Attributes:
        decision, at, reason: which decision, and what changed with it.
        age_s: how long ago the decision was made.
        planned: how much of the fleet the decision planned anew: whole, part or none.
        planned_sites: of a part, those that had changed; planned with them was whom they touch.
        planned_why: why so much; empty where nothing was.
        since: what changed since in what is planned; explained is what was.
        demand_now_per_s: what clients ask at this moment; None where nobody looked.
        placement: what the placement asks for.
        target_ms: time to answer that is wanted.
        demand_per_s: requests for the model in the whole fleet, smoothed.
        unserved_per_s: of these, what no open place has room for, or what no place may answer.
        closed_per_s: of ``unserved_per_s``, what enters where no place may answer: by rules, or since none lives.
        routing_gap, placement_gap: by which part the whole plan costs more than its lower bounds, at most.
        places: those with the model first, then others that matter; ``unlisted`` more were left out.
        site: which site's requests ``ways`` are about; empty: none was asked about.
    """

    decision: int
    at: str
    reason: tuple[str, ...]
    deployment: str
    model: str
    version: str
    objective: str
    target_ms: float
    is_auto: bool
    demand_per_s: float
    unserved_per_s: float
    closed_per_s: float = 0.0
    planned: Literal["whole", "part", "none"] = "whole"
    planned_sites: tuple[str, ...] = ()
    planned_why: str = ""
    age_s: float = 0.0
    since: tuple[str, ...] = ()
    demand_now_per_s: float | None = None
    placement: str = ""
    routing_gap: float
    placement_gap: float
    places: tuple[PlannedPlace, ...]
    unlisted: int = 0
    site: str = ""
    ways: tuple[PlannedWay, ...] = ()
