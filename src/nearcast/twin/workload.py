"""Requests of a run, drawn once and shared by all policies, so that they differ by their decisions alone.

Decides when each request enters, where, for which model, and how much work, payload and network jitter it brings.
Seeded: the same world and seed give the same arrays bit for bit.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.errors import InvalidInput
from nearcast.twin.scenario import DayNight, ScenarioSpec
from nearcast.twin.world import Data, Floats, World

MAX_REQUESTS: Final = 20_000_000
PEAK_HOUR: Final = 15.0
STEP_S: Final = 1.0


@dataclass(frozen=True, eq=False)
class Workload:
    """N requests, by time of arrival.

    Attributes:
        at_s: float64[N], rising.
        origin, model: int32[N]: indices of the world.
        work: float64[N]: times the service time of the profile; mean 1.
        request_bytes, answer_bytes: float64[N].
        jitter: float64[N]: times the round trip; mean 1 + the scenario's jitter.
        pick: float64[N]: in [0, 1), for choosing among shares.
        forward_bytes: float64[N]: what the answer sends on to the cloud.
        rate_per_s: float64[T, S, M]: the rates they were drawn from, per step of :data:`STEP_S`.
    """

    at_s: Floats
    origin: NDArray[np.int32]
    model: NDArray[np.int32]
    work: Floats
    request_bytes: Floats
    answer_bytes: Floats
    jitter: Floats
    pick: Floats
    forward_bytes: Floats
    rate_per_s: Floats

    def __len__(self) -> int:
        return len(self.at_s)


def draw(spec: ScenarioSpec, world: World, data: Data, seed: int) -> Workload:
    """The requests of one run.

    Raises:
        InvalidInput: they would be more than :data:`MAX_REQUESTS`.
    """
    rates = _rates(spec, world)
    expected = float(rates.sum() * STEP_S)
    if expected > MAX_REQUESTS:
        raise InvalidInput(
            f"expected at most {MAX_REQUESTS} requests, got some {expected:.0f}",
            hint="a shorter durationS, or less demand",
        )
    dice = np.random.default_rng([seed, 2])
    at, origin, model = _arrivals(rates, spec.duration_s, data.gaps_s, dice)
    order = np.lexsort((model, origin, at))
    at, origin, model = at[order], origin[order], model[order]
    work, request_bytes, answer_bytes = _sizes(spec, data, model, np.random.default_rng([seed, 3]))
    dice = np.random.default_rng([seed, 4])
    jitter = 1.0 + spec.network.jitter * dice.exponential(size=len(at))
    pick = dice.random(len(at))
    forward = np.zeros(len(at))
    drawn = dice.random(len(at))
    for index, wanted in enumerate(spec.models):
        if wanted.forward:
            forward[(model == index) & (drawn < wanted.forward.share)] = wanted.forward.bytes
    return Workload(at, origin, model, work, request_bytes, answer_bytes, jitter, pick, forward, rates)


def _rates(spec: ScenarioSpec, world: World) -> Floats:
    """float64[T, S, M]: requests per second by step; without crowds their mean over the run is the problem's demand."""
    steps = int(np.ceil(spec.duration_s / STEP_S))
    middle: Floats = np.asarray((np.arange(steps) + 0.5) * STEP_S, dtype=np.float64)
    rates = np.broadcast_to(world.problem.demand_per_s, (steps, *world.problem.demand_per_s.shape)).copy()
    if spec.demand.day_night:
        longitude = np.array([site.longitude for site in world.sites])
        factor = _daylight(spec.demand.day_night, middle, longitude)
        rates *= factor[:, :, None]
        rates *= world.problem.demand_per_s.sum() / max(rates.sum(axis=(1, 2)).mean(), 1e-12)
    for crowd in spec.demand.crowds:
        where = world.within(crowd.where) if crowd.where else np.ones(len(world.sites), dtype=np.bool_)
        which = np.array([not crowd.models or model.name in crowd.models for model in world.models])
        edge = max(crowd.rises_s, 1e-9)
        up = np.clip((middle - crowd.at_s) / edge, 0, 1)
        down = np.clip((crowd.at_s + crowd.lasts_s - middle) / edge, 0, 1)
        times = 1.0 + (crowd.times - 1.0) * np.minimum(up, down)
        rates *= np.where(where[None, :, None] & which[None, None, :], times[:, None, None], 1.0)
    return rates


def _daylight(day: DayNight, at_s: Floats, longitude: Floats) -> Floats:
    """float64[T, S]: 1 at the peak hour of local solar time, 1 - depth twelve hours later."""
    hour = day.start_hour_utc + 24.0 * at_s[:, None] / day.day_s + longitude[None, :] / 15.0
    found: Floats = 1.0 - day.depth * (1.0 - np.cos(2 * np.pi * (hour - PEAK_HOUR) / 24.0)) / 2.0
    return found


def _arrivals(
    rates: Floats, duration_s: float, gaps: Floats | None, dice: np.random.Generator
) -> tuple[Floats, NDArray[np.int32], NDArray[np.int32]]:
    """Times, origins and models, in no order.

    Each stream (site, model) is a process of rate 1 whose time is bent by the stream's own rate: a Poisson process, or
    the gaps of the trace from a place drawn at random, so that its bursts stay.
    """
    steps, sites, models = rates.shape
    if gaps is None:
        counts = dice.poisson(rates * STEP_S)
        step, origin, model = np.nonzero(counts)
        times = counts[step, origin, model]
        at = (np.repeat(step, times) + dice.random(int(times.sum()))) * STEP_S
        keep = at < duration_s
        return (
            at[keep],
            np.repeat(origin, times)[keep].astype(np.int32),
            np.repeat(model, times)[keep].astype(np.int32),
        )
    grid = np.arange(steps + 1) * STEP_S
    found: list[tuple[Floats, int, int]] = []
    for site in range(sites):
        for model_index in range(models):
            total = np.concatenate([[0.0], np.cumsum(rates[:, site, model_index] * STEP_S)])
            points = _unit_points(gaps, float(total[-1]), dice)
            at = np.interp(points, total, grid)
            found.append((at[at < duration_s], site, model_index))
    lengths = [len(at) for at, _, _ in found]
    return (
        np.concatenate([at for at, _, _ in found]),
        np.repeat(np.array([site for _, site, _ in found], dtype=np.int32), lengths),
        np.repeat(np.array([model for _, _, model in found], dtype=np.int32), lengths),
    )


def _unit_points(gaps: Floats, until: float, dice: np.random.Generator) -> Floats:
    """Arrivals before ``until`` of a process of rate 1 with the trace's gaps, from a random place on, in a ring."""
    start, phase = int(dice.integers(len(gaps))), float(dice.random())
    if until <= 0:
        return np.empty(0)
    rounds = int(until / len(gaps)) + 2
    ring = np.concatenate([np.roll(gaps, -start)] * rounds)
    points: Floats = np.cumsum(ring) - phase * ring[0]
    return points[points < until]


def _sizes(
    spec: ScenarioSpec, data: Data, model: NDArray[np.int32], dice: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Work, request and answer bytes of each request."""
    work, request_bytes, answer_bytes = (np.empty(len(model)) for _ in range(3))
    for index, wanted in enumerate(spec.models):
        mine = model == index
        count = int(mine.sum())
        if wanted.tokens is not None:
            table = data.tokens[wanted.name]
            rows = table[dice.integers(len(table), size=count)]
            weights = np.array([wanted.tokens.input_weight, 1.0])
            work[mine] = rows @ weights / float((table @ weights).mean())
            request_bytes[mine] = wanted.request_bytes * rows[:, 0] / table[:, 0].mean()
            answer_bytes[mine] = wanted.answer_bytes * rows[:, 1] / table[:, 1].mean()
            continue
        sigma = np.sqrt(np.log1p(wanted.noise**2))
        work[mine] = dice.lognormal(-(sigma**2) / 2, sigma, count) if sigma else 1.0
        request_bytes[mine], answer_bytes[mine] = wanted.request_bytes, wanted.answer_bytes
    return work, request_bytes, answer_bytes
