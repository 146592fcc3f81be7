"""Small fleets for tests of the planner: a plain one to change field by field, and random ones."""

import dataclasses
from typing import Any

import numpy as np

from nearcast.planning.fleet.problem import Problem


def line(sites: int = 4, models: int = 1, *, apart_s: float = 0.01, **changes: Any) -> Problem:
    """Sites on a line, ``apart_s`` between neighbours; each holds one model and has one worker; 1 request/s each."""
    at = np.arange(sites)
    shape = (sites, models)
    plain = Problem(
        sites=tuple(f"s{n}" for n in range(sites)),
        models=tuple(f"m{n}" for n in range(models)),
        demand_per_s=np.ones(shape),
        round_trip_s=np.abs(at[:, None] - at[None]) * apart_s,
        bytes_per_s=np.full(sites, np.inf),
        payload_bytes=np.zeros(models),
        service_s=np.full(shape, 0.01),
        work_s=np.full(shape, 0.01),
        full_s=np.full(shape, 0.01),
        workers=np.ones(sites),
        memory_bytes=np.ones(sites),
        footprint_bytes=np.ones(models),
        eligible=np.ones(shape, dtype=np.bool_),
        pinned=np.zeros(shape, dtype=np.bool_),
        warm=np.zeros(shape, dtype=np.bool_),
        move_s=np.zeros(shape),
        least=np.ones(models, np.int32),
        most=np.full(models, sites, np.int32),
        site_class=np.zeros(sites, np.int32),
        may=np.ones((1, 1, 1), dtype=np.bool_),
        rule_set=np.zeros(models, np.int32),
        target_s=np.ones(models),
        weight=np.ones(models),
        urgency=np.ones(models),
        extra_s=np.zeros(shape),
    )
    return dataclasses.replace(plain, **changes)


def scattered(sites: int, models: int, seed: int, *, load: float = 0.5, memory: float = 3.0) -> Problem:
    """Sites anywhere in a square, mixed hardware; ``memory`` models of the mean size fit at a mean site."""
    dice = np.random.default_rng(seed)
    where = dice.random((sites, 2))
    workers = dice.choice((1.0, 2.0, 8.0), sites)
    service = dice.uniform(0.005, 0.05, models) * dice.uniform(0.5, 1.5, (sites, 1))
    demand = dice.exponential(1.0, (sites, models))
    demand *= load * workers.sum() / float((demand * service.mean(axis=0)).sum())
    footprint = dice.uniform(0.5, 1.5, models)
    memory_bytes = dice.uniform(0.5, 1.5, sites) * memory
    weight = dice.choice((0.5, 1.0, 2.0), models)
    return line(
        sites,
        models,
        demand_per_s=demand,
        round_trip_s=np.sqrt(np.square(where[:, None] - where[None]).sum(axis=2)) * 0.1,
        service_s=service,
        work_s=service,
        full_s=service,
        workers=workers,
        memory_bytes=memory_bytes,
        footprint_bytes=footprint,
        weight=weight,
        urgency=weight,
        target_s=np.full(models, 0.1),
    )
