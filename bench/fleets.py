"""Random fleets for the planner's benchmark: not real ones, but with what makes real ones hard.

Sites stand in clusters (cities) on six continents, few large and many small; hardware is mixed, and what is far away is
faster; popularity of models and of cities follows Zipf's law; demand has a peak that wanders with longitude; large
models run in few places; residency keeps some requests in their country group. Seeded: same arguments, same fleet.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.problem import Problem

Floats = NDArray[np.float64]
CONTINENTS = (
    (-10, 40, 36, 60),
    (-125, -70, 25, 50),
    (-80, -35, -35, 5),
    (70, 145, 5, 45),
    (115, 153, -38, -12),
    (-15, 45, -34, 30),
)
"""West, east, south, north, in degrees: Europe, North America, South America, Asia, Australia, Africa."""
WEIGHTS = (0.27, 0.25, 0.1, 0.25, 0.05, 0.08)
GIB = 2.0**30
TIERS = ("edge", "regional", "cloud")
WORKERS = ((1, 2, 4), (8, 16), (64, 128))
SPEED = ((1.0, 0.7, 0.5), (0.35, 0.3), (0.22, 0.2))
"""Service time relative to the smallest edge machine, by tier and size."""
MEMORY_GIB = ((8, 16, 24), (48, 96), (320, 640))


def fleet(sites: int, models: int = 50, *, load: float = 0.6, seed: int = 1, hour: float = 14.0) -> Problem:
    """A problem from scratch, with nothing warm.

    Args:
        load: work that the demand would be if all of it were computed at a mean place, over the capacity of the fleet.
        hour: of the day at longitude 0; moves the peak of demand.
    """
    dice = np.random.default_rng(seed)
    where, city = _cities(dice, sites)
    tier = _tiers(dice, sites)
    size = np.array([dice.integers(len(WORKERS[kind])) for kind in tier])
    workers = np.array([float(WORKERS[k][i]) for k, i in zip(tier, size, strict=True)])
    speed = np.array([SPEED[k][i] for k, i in zip(tier, size, strict=True)]) * dice.uniform(0.9, 1.1, sites)
    memory = np.array([MEMORY_GIB[k][i] for k, i in zip(tier, size, strict=True)]) * GIB
    kinds = _models(dice, models)
    large = kinds["footprint"] > 8 * GIB
    able = ~(large[None, :] & (tier == 0)[:, None])
    service = np.where(able, kinds["service"][None, :] * speed[:, None], np.inf)
    work = service * np.where(kinds["batched"], 0.4, 1.0)[None, :]
    demand = _demand(dice, where, city, models, hour)
    mean_work = np.where(able, work * workers[:, None], 0.0).sum(0) / np.where(able, workers[:, None], 0.0).sum(0)
    demand *= load * workers.sum() / float((demand * mean_work).sum())
    group = _groups(where)
    groups = len(CONTINENTS)
    may = np.stack([np.ones((groups, groups), bool), np.eye(groups, dtype=bool)])
    shared = {"eligible": np.ones((sites, models), bool), "pinned": np.zeros((sites, models), bool)}
    return Problem(
        sites=tuple(f"site-{i:04d}" for i in range(sites)),
        models=tuple(f"model-{i:02d}" for i in range(models)),
        demand_per_s=demand,
        round_trip_s=_round_trips(dice, where),
        bytes_per_s=np.where(tier == 0, 12.5e6, 125e6),
        payload_bytes=kinds["payload"],
        service_s=service,
        work_s=work,
        full_s=service,
        workers=workers,
        memory_bytes=memory,
        footprint_bytes=kinds["footprint"],
        warm=np.zeros((sites, models), bool),
        move_s=np.broadcast_to(kinds["footprint"][None, :] / 60e6, (sites, models)).copy(),
        least=np.ones(models, np.int32),
        most=np.full(models, sites, np.int32),
        site_class=group.astype(np.int32),
        may=may,
        rule_set=(dice.random(models) < 0.2).astype(np.int32),
        target_s=kinds["target"],
        weight=kinds["urgency"],
        urgency=kinds["urgency"],
        extra_s=np.zeros((sites, models)),
        **shared,
    )


def _cities(dice: np.random.Generator, sites: int) -> tuple[Floats, NDArray[np.intp]]:
    """float64[S, 2] of longitude and latitude, and the city of each site."""
    count = max(3, sites // 12)
    continent = dice.choice(len(CONTINENTS), count, p=WEIGHTS)
    box = np.array(CONTINENTS, float)[continent]
    centre = np.stack([dice.uniform(box[:, 0], box[:, 1]), dice.uniform(box[:, 2], box[:, 3])], axis=1)
    weight = 1.0 / np.arange(1, count + 1) ** 0.7
    city = dice.choice(count, sites, p=weight / weight.sum())
    return centre[city] + dice.normal(0.0, 0.5, (sites, 2)), city


def _tiers(dice: np.random.Generator, sites: int) -> NDArray[np.intp]:
    tier = dice.choice(3, sites, p=(0.88, 0.1, 0.02))
    tier[: min(sites, 6)] = 2
    return tier


def _models(dice: np.random.Generator, models: int) -> dict[str, Any]:
    service = np.exp(dice.normal(np.log(0.06), 1.2, models)).clip(0.004, 4.0)
    footprint = (service * dice.uniform(4, 12, models)).clip(0.05, 40) * GIB
    kind = np.digitize(service, (0.05, 0.6))
    return {
        "service": service,
        "footprint": footprint,
        "payload": np.exp(dice.normal(np.log(20e3), 1.5, models)).clip(500, 2e6),
        "batched": dice.random(models) < 0.5,
        "target": np.array((0.05, 0.5, 10.0))[kind],
        "urgency": np.array((4.0, 1.0, 0.25))[kind],
    }


def _demand(dice: np.random.Generator, where: Floats, city: NDArray[np.intp], models: int, hour: float) -> Floats:
    sites = len(where)
    local = (hour + where[:, 0] / 15.0) % 24.0
    day = 1.0 + 0.7 * np.cos((local - 15.0) / 24.0 * 2 * np.pi)
    popularity = 1.0 / np.arange(1, models + 1) ** 0.9
    site = np.exp(dice.normal(0.0, 0.8, sites)) * day
    taste = np.exp(dice.normal(0.0, 0.7, (int(city.max()) + 1, models)))[city]
    found: Floats = site[:, None] * dice.permutation(popularity)[None, :] * taste
    return found


def _groups(where: Floats) -> NDArray[np.intp]:
    box = np.array(CONTINENTS, float)
    centre = np.stack([box[:, :2].mean(1), box[:, 2:].mean(1)], axis=1)
    found: NDArray[np.intp] = np.square(where[:, None, :] - centre[None]).sum(2).argmin(1)
    return found


def _round_trips(dice: np.random.Generator, where: Floats) -> Floats:
    """Fibre at two thirds of light, 1.3 to 2 times the great circle, 1 to 4 ms at the ends."""
    radians = np.radians(where)
    point = np.stack(
        [
            np.cos(radians[:, 1]) * np.cos(radians[:, 0]),
            np.cos(radians[:, 1]) * np.sin(radians[:, 0]),
            np.sin(radians[:, 1]),
        ]
    )
    km = 6371.0 * np.arccos(np.clip(point.T @ point, -1.0, 1.0))
    stretch = dice.uniform(1.3, 2.0, km.shape)
    end = dice.uniform(0.0005, 0.002, len(where))
    found: Floats = km * np.maximum(stretch, stretch.T) * 2 / 200_000.0 + end[:, None] + end[None, :]
    np.fill_diagonal(found, 0.0)
    return found
