"""When which sites are lost, and who cannot reach whom: the failures of a scenario on the clock of the run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nearcast.twin.scenario import Failure, ScenarioSpec
from nearcast.twin.world import Truths, World


@dataclass(frozen=True, eq=False)
class Outage:
    """``sites`` (bool[S]) are lost, with all that runs there, from ``from_s`` up to ``until_s``."""

    from_s: float
    until_s: float
    sites: Truths


@dataclass(frozen=True, eq=False)
class Cut:
    """No way between the pairs of ``apart`` (bool[S, S], symmetric) from ``from_s`` up to ``until_s``."""

    from_s: float
    until_s: float
    apart: Truths


@dataclass(frozen=True, eq=False)
class Outages:
    """All that breaks in one run."""

    outages: tuple[Outage, ...] = ()
    cuts: tuple[Cut, ...] = ()

    def up(self, at_s: float, count: int) -> Truths:
        """bool[S]: the sites that stand."""
        found = np.ones(count, dtype=np.bool_)
        for outage in self.outages:
            if outage.from_s <= at_s < outage.until_s:
                found &= ~outage.sites
        return found

    def reach(self, at_s: float, count: int) -> Truths:
        """bool[S, S]: whether the site of the row reaches that of the column, which stands."""
        found = np.broadcast_to(self.up(at_s, count), (count, count)).copy()
        for cut in self.cuts:
            if cut.from_s <= at_s < cut.until_s:
                found &= ~cut.apart
        return found

    def broken_s(self, one: int, other: int, from_s: float, until_s: float) -> float | None:
        """When the way between two sites broke under what was on it from ``from_s`` up to ``until_s``, if it did."""
        for cut in self.cuts:
            if cut.from_s < until_s and cut.until_s > from_s and cut.apart[one, other]:
                return max(cut.from_s, from_s)
        return None

    def moments_s(self) -> tuple[float, ...]:
        """When anything breaks or is whole again, rising."""
        parts: Sequence[Outage | Cut] = (*self.outages, *self.cuts)
        return tuple(sorted({moment for part in parts for moment in (part.from_s, part.until_s)}))


def resolve(spec: ScenarioSpec, world: World, seed: int) -> Outages:
    """The failures of ``spec``; a share of the sites is drawn by ``seed``, never all of them."""
    dice = np.random.default_rng([seed, 5])
    outages, cuts = [], []
    for failure in spec.failures:
        until_s = failure.at_s + failure.lasts_s
        lost = _lost(failure, world, dice)
        if lost is not None:
            outages.append(Outage(failure.at_s, until_s, lost))
        else:
            cuts.append(Cut(failure.at_s, until_s, _apart(failure, world)))
    return Outages(tuple(outages), tuple(cuts))


def _lost(failure: Failure, world: World, dice: np.random.Generator) -> Truths | None:
    count = len(world.sites)
    found = np.zeros(count, dtype=np.bool_)
    if failure.sites is not None:
        found[[world.problem.sites.index(name) for name in failure.sites]] = True
        return found
    if failure.share is not None:
        number = min(count - 1, max(1, round(failure.share * count)))
        found[dice.permutation(count)[:number]] = True
        return found
    return None


def _apart(failure: Failure, world: World) -> Truths:
    count = len(world.sites)
    if failure.cut_off is not None:
        inside = world.within(failure.cut_off)
        return np.asarray(inside[:, None] != inside[None, :])
    apart = np.zeros((count, count), dtype=np.bool_)
    if failure.link is not None:
        one, other = (world.problem.sites.index(name) for name in failure.link)
        apart[one, other] = apart[other, one] = one != other
    return apart
