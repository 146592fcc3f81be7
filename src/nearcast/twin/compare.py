"""One scenario under several policies: the front door of the twin."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from nearcast.twin.bound import Bound, clairvoyant
from nearcast.twin.desired import fleet_of
from nearcast.twin.files import Loaded
from nearcast.twin.measures import Curves, Figures, curves, figures
from nearcast.twin.moment import Policy
from nearcast.twin.names import BOUND, OURS, check_names
from nearcast.twin.ours import Nearcast
from nearcast.twin.outages import Outages, resolve
from nearcast.twin.outcome import Outcome
from nearcast.twin.policies import POLICIES, Candidates, central_world
from nearcast.twin.scenario import Misfit, ScenarioSpec
from nearcast.twin.simulation import Run
from nearcast.twin.workload import Workload, draw
from nearcast.twin.world import Truths, World, build

Progress = Callable[[str, float], None]
"""Told the policy at work, and the part of it that is done."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What all policies of one comparison share."""

    spec: ScenarioSpec
    world: World
    workload: Workload
    outages: Outages
    placed: Truths


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came out.

    Attributes:
        stage: what went in.
        figures, curves: of each policy that was run, in the order asked for.
        bound: where it was asked for.
        before: of a fleet and its change, the fleet as it is; ``stage`` is the changed one.
    """

    stage: Stage
    figures: tuple[Figures, ...]
    curves: tuple[Curves, ...]
    bound: Bound | None
    before: Stage | None = None


def set_up(loaded: Loaded, seed: int | None = None, load: float | None = None) -> Stage:
    """The world and the requests of a scenario.

    Args:
        loaded: the scenario and its data.
        seed: instead of the scenario's.
        load: part of the fleet's capacity, instead of the scenario's.

    Raises:
        InvalidInput: the parts do not make a fleet; with the line of the scenario where it was read from a file.
    """
    spec = loaded.scenario.spec
    dice = spec.seed if seed is None else seed
    spec = spec.model_copy(update={"seed": dice})
    try:
        world = build(spec, loaded.data, dice, load)
    except Misfit as error:
        raise loaded.located(error) from error
    workload = draw(spec, world, loaded.data, dice)
    return Stage(spec, world, workload, resolve(spec, world, dice), fitting(world))


def fitting(world: World) -> Truths:
    """bool[S, M]: a placement without a planner: every site holds what fits, the most asked first.

    Before that, each model gets a place for each class of origins that has none: the one with most memory left.
    """
    problem = world.problem
    placed = np.zeros_like(problem.eligible)
    left = problem.memory_bytes.copy()
    usual = np.argsort(-problem.demand_per_s.sum(axis=0), kind="stable")
    for model in usual[::-1]:
        for origin in np.unique(problem.site_class, return_index=True)[1]:
            open_to = problem.open_from(int(origin), int(model)) & (problem.footprint_bytes[model] <= left)
            if open_to.any() and not (placed[:, model] & open_to).any():
                site = int(np.argmax(np.where(open_to, left, -1.0)))
                placed[site, model] = True
                left[site] -= problem.footprint_bytes[model]
    for site in range(len(problem.sites)):
        for model in usual:
            wanted = problem.eligible[site, model] and not placed[site, model]
            if wanted and problem.footprint_bytes[model] <= left[site]:
                placed[site, model] = True
                left[site] -= problem.footprint_bytes[model]
    return placed


def compare(stage: Stage, names: Iterable[str], progress: Progress | None = None) -> Comparison:
    """Run the policies ``names`` over the same requests.

    Raises:
        InvalidInput: a name is unknown, or a policy does not fit the scenario.
    """
    wanted = check_names(names)
    found: list[Figures] = []
    drawn: list[Curves] = []
    bound = None
    for name in wanted:
        if name == BOUND:
            bound = clairvoyant(stage.world, stage.workload, stage.outages, stage.spec)
            continue
        outcome, world = run_policy(stage, name, progress)
        found.append(figures(outcome, world, stage.workload, stage.spec))
        drawn.append(curves(outcome, world, stage.workload, stage.spec))
    return Comparison(stage, tuple(found), tuple(drawn), bound)


def run_policy(stage: Stage, name: str, progress: Progress | None = None) -> tuple[Outcome, World]:
    """One policy over the requests of ``stage``: what became of them, and the world that it ran in."""
    world, placed = stage.world, stage.placed
    if name == "central":
        world = central_world(world)
        placed = world.problem.eligible
    policy: Policy
    if name == OURS:
        policy = Nearcast(name, fleet_of(stage.spec, world), world, stage.spec.control)
    else:
        policy = POLICIES[name](name, Candidates.of(world, placed))
    return run_with(stage, world, policy, name, progress), world


def run_with(stage: Stage, world: World, policy: Policy, name: str, progress: Progress | None) -> Outcome:
    """``policy`` over the requests of ``stage``, in ``world``."""

    def tell(part: float) -> None:
        if progress is not None:
            progress(name, part)

    return Run(world, stage.workload, stage.outages, stage.spec, policy, tell).run()
