"""How the shares of one model move in one step: from where they stand, a limited way, towards where they should be.

Decides exact shares (0 to 1) of places out of their costs. Two rules, one step per second:

* **Without a base** (the plan names no shares for the model, or is too old to be believed): each place that is clearly
  dearer than the cheapest gives to it, in proportion to the gap. Shares settle where costs are level, a Wardrop
  equilibrium, which is what the fleet's planner would find for the few places that one site can reach, less the
  waiting that its requests cause to others.
* **With a base**: shares go home to the base at :data:`RETURN_PER_S`. They leave it only where a place is *strained*:
  it takes clearly longer than the plan expected of it, and a cheaper place stands by. A farther place is not left just
  because it is farther: the plan knew that, and sends requests there so that the nearer one keeps its queue short.
  Once the strain is over, traffic returns by itself.

A place that is gone loses its share at once. All other changes together move at most :data:`MAX_SHIFT_PER_S`: many
sites look at the same report, and would all run to the same idle place otherwise.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nearcast.planning.cost import Terms
from nearcast.resources.plan import PlannedShare

MAX_SHIFT_PER_S: Final = 0.2
LEAVE_PER_S: Final = 0.05
"""From a place that the plan named: less than without a plan, since all sites see the same queue and leave at once."""
RETURN_PER_S: Final = 0.1
"""Slower than leaving, so that a place that is full at times is not hit in waves."""
GAP_S: Final = 0.002
GAP_RATIO: Final = 1.1
STRAIN_RATIO: Final = 2.5
"""A queue of a few requests comes and goes by chance; what is left to it costs less than what leaving in vain does.
Found by trying, on the digital twin with more demand than room: 2 and 3 do nearly as well, 4 brings fewer in time."""
STRAIN_S: Final = 0.01
_LEAST: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Base:
    """The plan's shares of one model by site, and the time at the place that it expects of each. Empty: no base."""

    share: Mapping[str, float]
    expected_s: Mapping[str, float]

    @classmethod
    def of(cls, shares: Iterable[PlannedShare], standing: Iterable[str]) -> "Base":
        """The base over those of its sites that have a standing place; empty where none has."""
        sites = {site_of(place) for place in standing}
        kept = [share for share in shares if share.site in sites and share.share > 0.0]
        total = sum(share.share for share in kept)
        return cls(
            {share.site: share.share / total for share in kept}, {share.site: share.expected_s for share in kept}
        )


def site_of(place: str) -> str:
    """The site of a place: its name, or what stands before the node of a sibling."""
    return place.partition("/")[0]


def step(
    terms: Mapping[str, Terms], standing: list[str], held: Mapping[str, float], base: Base, elapsed_s: float
) -> dict[str, float]:
    """Exact shares after ``elapsed_s``.

    Args:
        terms: costs of all candidates.
        standing: the candidates that may hold a share; at least one.
        held: the shares before.
        base: over sites of ``standing``.
        elapsed_s: since the shares before were made.

    Returns:
        Place -> share, positive, summing to 1.
    """
    cost = {name: terms[name].total_s for name in terms}
    best = min(standing, key=lambda name: (cost[name], name))
    weights = {name: held[name] for name in standing if held.get(name, 0.0) > 0.0}
    total = sum(weights.values())
    if total <= 0.0:
        return _begin(base, standing, cost) or {best: 1.0}
    weights[best] = weights.get(best, 0.0) + max(0.0, 1.0 - total)
    mover = _Mover(terms, cost, weights, base)
    left = mover.leave(best, (LEAVE_PER_S if base.share else MAX_SHIFT_PER_S) * elapsed_s)
    if base.share:
        left += (MAX_SHIFT_PER_S - LEAVE_PER_S) * elapsed_s
        mover.come_home(standing, min(left, RETURN_PER_S * elapsed_s))
    return {name: weight for name, weight in weights.items() if weight > _LEAST}


def _begin(base: Base, standing: list[str], cost: Mapping[str, float]) -> dict[str, float]:
    """The base itself, on the cheapest standing place of each site."""
    return {_cheapest(site, standing, cost): share for site, share in base.share.items()}


def _cheapest(site: str, standing: list[str], cost: Mapping[str, float]) -> str:
    return min((name for name in standing if site_of(name) == site), key=lambda name: (cost[name], name))


class _Mover:
    """Moves weight between places, in place."""

    def __init__(
        self, terms: Mapping[str, Terms], cost: Mapping[str, float], weights: dict[str, float], base: Base
    ) -> None:
        self._terms = terms
        self._cost = cost
        self._weights = weights
        self._base = base

    def leave(self, best: str, budget: float) -> float:
        """Give from places that are clearly dearer than ``best`` to it, the dearest first; the budget that is left."""
        for name in sorted(self._weights, key=lambda name: -self._cost[name]):
            if name == best or not self._is_dearer(name, best):
                continue
            if self._base.share and site_of(name) != site_of(best) and not self._is_strained(name):
                continue
            gap = (self._cost[name] - self._cost[best]) / self._cost[name]
            budget -= self._move(name, best, min(self._weights[name], budget * gap))
        return budget

    def come_home(self, standing: list[str], budget: float) -> None:
        """Give from sites above their base to those below, unless these are strained and dearer."""
        by_site: dict[str, float] = defaultdict(float)
        for name, weight in self._weights.items():
            by_site[site_of(name)] += weight
        lacking = {site: share - by_site[site] for site, share in self._base.share.items()}
        for site in sorted(lacking, key=lambda site: -lacking[site]):
            to = _cheapest(site, standing, self._cost)
            for name in sorted(self._weights, key=lambda name: -self._cost[name]):
                spare = by_site[site_of(name)] - self._base.share.get(site_of(name), 0.0)
                amount = min(self._weights[name], spare, lacking[site], budget)
                if amount <= 0.0 or (self._is_strained(to) and self._is_dearer(to, name)):
                    continue
                budget -= self._move(name, to, amount)
                by_site[site_of(name)] -= amount
                by_site[site] += amount
                lacking[site] -= amount

    def _move(self, name: str, to: str, amount: float) -> float:
        self._weights[name] -= amount
        self._weights[to] = self._weights.get(to, 0.0) + amount
        return amount

    def _is_dearer(self, name: str, other: str) -> bool:
        return self._cost[name] > self._cost[other] * GAP_RATIO + GAP_S

    def _is_strained(self, name: str) -> bool:
        """Whether a request takes clearly longer at the place than the plan expected."""
        terms = self._terms[name]
        expected_s = self._base.expected_s.get(site_of(name), 0.0) or terms.service_s
        return terms.wait_s + terms.service_s > expected_s * STRAIN_RATIO + STRAIN_S
