"""Random fleets, whatever rules and load: hard constraints hold, plans repeat, bounds are below."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.planning.fleet.order import failover
from nearcast.planning.fleet.problem import FleetPlan, Problem
from nearcast.planning.fleet.record import Scope
from nearcast.planning.fleet.replan import replan_fleet
from nearcast.planning.fleet.scope import Tolerance, planned, rests
from nearcast.planning.fleet.solve import plan_fleet, route_fleet


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Small fleets with everything that can go wrong in them."""
    sites, models = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(1, 3))
    rules = draw(st.integers(1, 3))
    closed = draw(st.sampled_from((0.0, 0.3, 1.0)))
    where = dice.random((sites, 2))
    round_trip = np.sqrt(((where[:, None] - where[None]) ** 2).sum(2)) * 0.1
    round_trip[dice.random((sites, sites)) < draw(st.sampled_from((0.0, 0.2)))] = np.inf
    np.fill_diagonal(round_trip, 0.0)
    service = dice.uniform(0.001, 0.5, (sites, models))
    service[dice.random((sites, models)) < draw(st.sampled_from((0.0, 0.3)))] = np.inf
    workers = dice.integers(1, 9, sites).astype(float)
    workers[dice.random(sites) < draw(st.sampled_from((0.0, 0.3, 1.0)))] = 0.0
    eligible = dice.random((sites, models)) < draw(st.sampled_from((1.0, 0.6, 0.0)))
    demand = dice.exponential(1.0, (sites, models)) * draw(st.sampled_from((0.0, 0.1, 3.0, 300.0)))
    demand[dice.random((sites, models)) < 0.3] = 0.0
    least = dice.integers(0, 3, models).astype(np.int32)
    return Problem(
        sites=tuple(f"s{i}" for i in range(sites)),
        models=tuple(f"m{i}" for i in range(models)),
        demand_per_s=demand,
        round_trip_s=round_trip,
        bytes_per_s=np.where(dice.random(sites) < 0.5, np.inf, 1e6),
        payload_bytes=dice.uniform(1e2, 1e5, models),
        service_s=service,
        work_s=service * 0.5,
        full_s=service * dice.uniform(1.0, 4.0, models),
        workers=workers,
        memory_bytes=dice.uniform(0.0, 4.0, sites),
        footprint_bytes=dice.uniform(0.1, 2.0, models),
        eligible=eligible,
        pinned=eligible & (dice.random((sites, models)) < draw(st.sampled_from((0.0, 0.2)))),
        warm=dice.random((sites, models)) < 0.2,
        move_s=dice.uniform(0.0, 60.0, (sites, models)),
        least=least,
        most=least + dice.integers(0, sites + 1, models).astype(np.int32),
        site_class=dice.integers(0, classes, sites).astype(np.int32),
        may=dice.random((rules, classes, classes)) >= closed,
        rule_set=dice.integers(0, rules, models).astype(np.int32),
        target_s=dice.uniform(0.01, 1.0, models),
        weight=dice.uniform(0.1, 4.0, models),
        urgency=dice.uniform(0.1, 4.0, models),
        extra_s=dice.uniform(0.0, 0.01, (sites, models)),
    )


def check(problem: Problem, plan: FleetPlan, *, is_new: bool = True, full: float = 0.0) -> None:
    """Everything that every plan must satisfy; one that was made for slightly other demand still tells that one of
    requests that no place may answer, and fills places by up to ``full`` of their workers more."""
    able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
    assert not (plan.placed & ~able).any()
    assert ((plan.placed * problem.footprint_bytes).sum(1) <= problem.memory_bytes * (1 + 1e-12)).all()
    assert (plan.placed.sum(0) <= problem.most).all()
    total = np.zeros((len(problem.sites), len(problem.models)))
    np.add.at(total, (plan.origin, plan.model), plan.share)
    assert (plan.share > 0.0).all()
    for site in range(len(problem.sites)):
        for model in range(len(problem.models)):
            held = problem.open_from(site, model) & plan.placed[:, model]
            assert total[site, model] == pytest.approx(1.0 if held.any() else 0.0)
            mine = (plan.origin == site) & (plan.model == model)
            assert held[plan.place[mine]].all()
            assert len(set(plan.place[mine])) == mine.sum()
            order = failover(problem, plan, site, model)
            assert held[list(order)].all()
            assert len(order) == len(set(order)) == min(5, held.sum())
            if is_new and not held.any():
                assert plan.unserved_per_s[site, model] == pytest.approx(problem.demand_per_s[site, model])
    assert (plan.utilization <= (0.95 + full) * (1 + 1e-5)).all()
    assert (plan.unserved_per_s >= -1e-9).all()
    assert plan.routing_bound_s <= plan.cost_s
    assert plan.placement_bound_s <= plan.cost_s


def same(one: FleetPlan, other: FleetPlan) -> bool:
    """Bit by bit."""
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(FleetPlan)
    )


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_no_plan_breaks_a_hard_rule(problem: Problem) -> None:
    """From scratch, and again from the plan before."""
    plan = plan_fleet(problem)
    check(problem, plan)
    assert same(plan, plan_fleet(problem))
    check(problem, plan_fleet(problem, plan))


@settings(max_examples=40, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_facts_act_at_once_whatever_the_plan_before(problem: Problem, seed: int) -> None:
    """Dead places, lost models, new rules: the next plan has none of it, although shares move by small steps."""
    before = plan_fleet(problem)
    dice = np.random.default_rng(seed)
    changed = dataclasses.replace(
        problem,
        workers=np.where(dice.random(len(problem.sites)) < 0.3, 0.0, problem.workers),
        eligible=problem.eligible & (dice.random(problem.eligible.shape) < 0.8),
        may=problem.may & (dice.random(problem.may.shape) < 0.8),
        demand_per_s=problem.demand_per_s * dice.uniform(0.0, 4.0, problem.demand_per_s.shape),
    )
    changed = dataclasses.replace(changed, pinned=changed.pinned & changed.eligible)
    check(changed, plan_fleet(changed, before))
    check(changed, route_fleet(changed, before.placed, before))


@settings(max_examples=40, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_a_plan_after_a_change_of_a_few_sites_is_a_plan_like_any(problem: Problem, seed: int) -> None:
    """Demand, health and eligibility of some sites change, and only these are named."""
    before = plan_fleet(problem)
    dice = np.random.default_rng(seed)
    changed = dice.random(len(problem.sites)) < 0.3
    there = changed[:, None]
    after = dataclasses.replace(
        problem,
        demand_per_s=np.where(there, problem.demand_per_s * dice.uniform(0.0, 4.0), problem.demand_per_s),
        workers=np.where(changed & (dice.random(len(changed)) < 0.3), 0.0, problem.workers),
        eligible=problem.eligible & ~(there & (dice.random(problem.eligible.shape) < 0.3)),
    )
    after = dataclasses.replace(after, pinned=after.pinned & after.eligible)
    plan = replan_fleet(after, before, changed)
    check(after, plan)
    untouched = ~np.isin(plan.origin, np.flatnonzero(changed))
    assert (plan.share[untouched] > 0.0).all()


def changed_a_little(problem: Problem, dice: np.random.Generator) -> Problem:
    """A pass later: noise everywhere, and at some sites anything that nodes can tell; now and then other rules."""
    sites, shape = len(problem.sites), problem.demand_per_s.shape
    here = (dice.random(sites) < 0.15)[:, None]
    service = np.where(here & (dice.random(shape) < 0.3), np.inf, problem.service_s)
    broken = dice.random((sites, sites)) < dice.choice((0.0, 0.02))
    after = dataclasses.replace(
        problem,
        demand_per_s=problem.demand_per_s * np.where(here, dice.uniform(0.0, 4.0), dice.uniform(0.98, 1.02, shape)),
        workers=np.where(here[:, 0], dice.integers(0, 5, sites), problem.workers).astype(float),
        memory_bytes=np.where(here[:, 0], dice.uniform(0.0, 4.0, sites), problem.memory_bytes),
        service_s=service,
        work_s=np.where(np.isfinite(service), problem.work_s, np.inf),
        footprint_bytes=problem.footprint_bytes * dice.choice((1.0, 1.0, 1.1)),
        round_trip_s=np.where(broken & ~np.eye(sites, dtype=np.bool_), np.inf, problem.round_trip_s),
    )
    if dice.random() < 0.2:
        eligible = after.eligible & (dice.random(shape) < 0.9)
        after = dataclasses.replace(after, eligible=eligible, pinned=after.pinned & eligible)
    return after


@settings(max_examples=15, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_a_chain_of_passes_that_plan_no_more_than_they_must_breaks_no_hard_rule(problem: Problem, seed: int) -> None:
    """As the control plane does it: everything, few sites or nothing. Few sites count as near, so few are touched."""
    dice = np.random.default_rng(seed)
    tolerance = Tolerance(many=0, few=0.6, drift=10.0, steps=1)
    plan, basis, scope = plan_fleet(problem), None, Scope()
    with mock.patch("nearcast.planning.fleet.replan.AROUND", 1), mock.patch("nearcast.planning.fleet.replan.FEW", 0):
        for second in range(0, 25, 5):
            before = None if basis is None else (plan, basis)
            if basis is not None:
                scope = basis.scope(problem, plan, second, tolerance)
                plan = planned(problem, plan, scope)
                assert same(plan, planned(problem, before[0], scope)), "it can be repeated"
            is_whole = scope.planned == "whole"
            check(problem, plan, is_new=is_whole, full=0.0 if is_whole else tolerance.full)
            basis = rests(problem, plan, before, scope, second, tolerance)
            problem = changed_a_little(problem, dice)
