"""What a run is, in lines for people: how much is asked, what happens in it, and what to doubt of its figures.

Decides words only; the table of the command and the page share them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from nearcast.twin.compare import Comparison, Stage
from nearcast.twin.scenario import Crowd, Failure
from nearcast.twin.world import Truths

FEW: Final = 1000
"""Measured requests below which a p99 rests on fewer than ten of them."""


def asked_per_s(stage: Stage) -> float:
    """Requests per second over the whole run, crowds included."""
    return len(stage.workload) / stage.spec.duration_s


def size_of(stage: Stage) -> str:
    """How large the run is."""
    world, spec = stage.world, stage.spec
    return (
        f"{_count(len(world.sites), 'site')}, {_count(len(world.models), 'model')}, "
        f"{_count(len(stage.workload), 'request')} in {spec.duration_s:g} s, seed {spec.seed}"
    )


def load_of(stage: Stage) -> str:
    """What is asked beside what the fleet could do."""
    asked, most = asked_per_s(stage), stage.world.capacity_per_s
    return f"{_rate(asked)}/s of {_rate(most)}/s that the fleet could serve at most ({100 * asked / most:.0f} %)"


def loads_of(found: Comparison) -> tuple[str, ...]:
    """As :func:`load_of`; of a fleet and its change, both."""
    if found.before is None:
        return (load_of(found.stage),)
    return f"now: {load_of(found.before)}", f"changed: {load_of(found.stage)}"


def measured_of(found: Comparison) -> tuple[str, ...]:
    """Which requests the figures are of, and whether they are too few."""
    spec = found.stage.spec
    count = max((one.requests for one in found.figures), default=0)
    said = []
    if spec.warm_up_s > 0:
        said.append(f"the first {spec.warm_up_s:g} s warm up: the figures are of {_count(count, 'request')} after them")
    if count < FEW:
        said.append(f"percentiles of {_count(count, 'request')} are chance: --duration and --load bring more")
    return tuple(said)


def events_of(stage: Stage) -> tuple[str, ...]:
    """What the scenario has happen, in its order: crowds, then failures."""
    spec = stage.spec
    outages, cuts = iter(stage.outages.outages), iter(stage.outages.cuts)
    told = [(crowd.at_s, crowd.lasts_s, _crowd(crowd, stage)) for crowd in spec.demand.crowds]
    for failure in spec.failures:
        lost = next(outages).sites if failure.sites or failure.share else None
        apart = next(cuts).apart if lost is None else None
        told.append((failure.at_s, failure.lasts_s, _failure(failure, stage, lost, apart)))
    return tuple(
        f"at {at_s:g} s for {lasts_s:g} s: {what}"
        + (f"; never, since the run ends at {spec.duration_s:g} s" if at_s >= spec.duration_s else "")
        for at_s, lasts_s, what in told
    )


def _crowd(crowd: Crowd, stage: Stage) -> str:
    world = stage.world
    entered = np.array([site.demand for site in world.sites])
    inside = entered & world.within(crowd.where) if crowd.where else entered
    models = f" for {', '.join(crowd.models)}" if crowd.models else ""
    return f"{crowd.times:g} times the demand{models} at {inside.sum()} of {entered.sum()} sites"


def _failure(failure: Failure, stage: Stage, lost: Truths | None, apart: Truths | None) -> str:
    names = stage.world.problem.sites
    if lost is not None:
        return f"lost: {_listed(names[site] for site in np.flatnonzero(lost))}"
    if failure.link is not None:
        return f"no way between {failure.link[0]} and {failure.link[1]}"
    inside = np.flatnonzero(stage.world.within(failure.cut_off)) if failure.cut_off and apart is not None else ()
    return f"cut off from all others: {_listed(names[site] for site in inside)}"


def _listed(names: Iterable[str]) -> str:
    all_names: Sequence[str] = tuple(names)
    more = f" and {len(all_names) - 3} more" if len(all_names) > 4 else ""
    return ", ".join(all_names[: 3 if more else 4]) + more


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"
