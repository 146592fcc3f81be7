"""Scouts: a few sites that a site measures for the map's sake, though it would send no request there.

Decides which, and that they change slowly. A site's peers are near it or hold its models; a map that is made of those
alone would not know how its regions lie to one another. So each site also measures :data:`SCOUTS` sites that are spread
over the whole fleet. Who is scouted follows from a ring of all sites in an order that only the turn decides: a site's
scouts come next after it. Nobody is a landmark that everybody asks: a site is the scout of at most
2 x :data:`SCOUTS` others, and a site that joins or leaves moves the scouts of its neighbours in the ring only. All
such rings together are a random graph of short paths, which is what coordinates need.

Does not decide how often they are asked (`agent.measure`). A scout serves nothing to who measures it: it is in the
plan without models, so no route table has it.
"""

from bisect import bisect_right
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from nearcast.planning.holding import barred
from nearcast.planning.residency import refusals
from nearcast.resources.plan import Peer, SitePlan

SCOUTS: Final = 2
TURN_S: Final = 3600.0
"""How long a site keeps its scouts. A site's plan changes with its turn, so this is also the least age of a plan in a
fleet that is at rest."""


def scouts(sites: Iterable[str], now_s: float) -> dict[str, tuple[str, ...]]:
    """Site -> the sites that it shall measure besides its peers, at most :data:`SCOUTS`.

    Args:
        sites: all sites of the fleet.
        now_s: seconds since any fixed moment, the same for all callers; the turns of sites are spread over the hour.

    Returns:
        The same for the same sites and turn. Cost: O(S log S).
    """
    names = sorted(set(sites))
    turns = {name: int(now_s / TURN_S + _number(name) / 2.0**64) for name in names}
    rings = {turn: sorted((_number(f"{turn}/{name}"), name) for name in names) for turn in set(turns.values())}
    return {name: _after(rings[turns[name]], f"{turns[name]}/{name}", name) for name in names}


def _after(ring: list[tuple[int, str]], seed: str, name: str) -> tuple[str, ...]:
    start = bisect_right(ring, (_number(seed), name))
    steps = range(min(SCOUTS, len(ring) - 1))
    return tuple(ring[(start + step) % len(ring)][1] for step in steps)


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def is_scout(plan: SitePlan, peer: Peer) -> bool:
    """Whether ``peer`` has nothing that may be asked for from the site of ``plan``: it is measured for the map only."""
    return all(
        refusals(plan.residency, served.model, plan.site, peer.site) or barred(plan, served.model, peer.site)
        for served in peer.models
    )
