"""The planner from 100 to 4,200 sites, and against exact solutions where an exact solver finishes.

Times are CPU seconds of one thread, so that others on the machine change them little; every plan is made in a process
of its own, whose peak memory is its own. Fleets are made up (`bench.fleets`): cities on six continents, mixed hardware,
demand everywhere, a fifth of the models kept in their region by residency.

* `scratch`: placement and shares from nothing. `again`: with the plan before, and nothing changed; it must be the same
  plan. `region`: half as much demand again at one site in a hundred, all near the busiest one. `outage`: the busiest
  site and its nearest neighbours are lost.
* `passes`: what the control plane does every five seconds. Demand wanders at every site, with noise, and doubles around
  one of them every minute. A chain of plans that follow what changed, beside one that plans everything each time: CPU
  seconds of both, and what the first costs over the second on the figures of each pass.
* Routing against the linear program, and placement against the mixed-integer program, both by HiGHS over all places
  with queues as chords (`tests/fleets/exact.py`): what HiGHS says of chords is at least what the curve costs.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.fleets import fleet
from bench.machine import record as machine
from nearcast.planning.fleet.problem import FleetPlan, Problem
from nearcast.planning.fleet.record import PlanRecord, Scope, packed, unpacked
from nearcast.planning.fleet.replan import as_it_is, replan_fleet
from nearcast.planning.fleet.scope import planned, rests
from nearcast.planning.fleet.solve import plan_fleet, route_fleet

SIZES = (100, 300, 1000, 4200)
KINDS = ("scratch", "again", "region", "outage")
MODELS = 50
LOAD = 0.6
HEAVY = ((1000, 0.9), (1000, 1.05))
"""Sites and loads that are planned from scratch besides."""
REGION = 0.01
"""Part of all sites whose demand changes."""
LOST = 3
LIMIT_S = 600.0
PASSES = 36
PASS_S = 5.0
PASSES_SITES = 1000
WANDER, NOISE = 0.01, 0.05
"""Standard deviations of the logarithm of a site's demand: by which it moves from pass to pass, and of each figure."""
CROWD_EVERY = 12
ROUTED = ((20, 6), (40, 8), (60, 10))
"""Sites and models of the instances for routing."""
PLACED = ((6, 4), (8, 5))
"""Sites and models of the instances for placement."""
SEEDS = (1, 2, 3)
PLACED_SEEDS = range(1, 13)
LOADS = (0.5, 0.8)
EXACT_LIMIT_S = 10.0
PROVEN = 1e-4
"""An instance counts where the exact solver's own gap is at most this."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(folder: Path) -> dict[str, Any]:
    """Times and memory by size, quality against exact solutions; raw figures."""
    before = os.getloadavg()[0]
    sizes = [_size(folder / str(sites), sites) for sites in SIZES]
    others = [_size(folder / f"seed{seed}", SIZES[-1], seed, ("scratch", "region")) for seed in SEEDS[1:]]
    heavy = [_heavy(folder / f"heavy{load}", sites, load) for sites, load in HEAVY]
    return {
        "processor": machine()["processor"],
        "models": MODELS,
        "load": LOAD,
        "sizes": sizes,
        "others": others,
        "heavy": heavy,
        "passes": _child(folder / "passes", "passes"),
        "routing": [_routing(*shape, seed) for shape in ROUTED for seed in SEEDS[:2]],
        "placement": _placements(),
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()[0]],
    }


# --- scale ------------------------------------------------------------------------------------------------------------


def _size(folder: Path, sites: int, seed: int = SEEDS[0], kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The plans of one fleet. Of the largest size there are several: one alone may be an easy one."""
    _child(folder, "make", str(sites), str(LOAD), str(seed))
    found = {kind: _child(folder, kind) for kind in kinds}
    told = ", ".join(f"{kind} {each['cpu_s']:.2f} s" for kind, each in found.items())
    print(f"  {sites} sites, seed {seed}: {told}, {found['scratch']['peak_mib']:.0f} MiB", file=sys.stderr)
    return {"sites": sites, "seed": seed, **found}


def _heavy(folder: Path, sites: int, load: float) -> dict[str, Any]:
    _child(folder, "make", str(sites), str(load), str(SEEDS[0]))
    found = _child(folder, "scratch")
    print(f"  {sites} sites at {load:.0%}: {found['cpu_s']:.2f} s", file=sys.stderr)
    return {"sites": sites, "load": load, **found}


def _child(folder: Path, *what: str) -> dict[str, Any]:
    """One step in a process of its own, with one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "bench.planner", str(folder), *what],
        env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    if done.returncode:
        raise RuntimeError(f"planning ({' '.join(what)}) failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _make(folder: Path, sites: int, load: float, seed: int) -> dict[str, Any]:
    problem = fleet(sites, MODELS, load=load, seed=seed)
    arrays = {each.name: getattr(problem, each.name) for each in fields(Problem)}
    np.savez(folder / "problem.npz", **arrays)
    return {"demand_per_s": float(problem.demand_per_s.sum())}


def _problem(folder: Path) -> Problem:
    with np.load(folder / "problem.npz") as kept:
        arrays = {name: kept[name] for name in kept.files}
    names = {key: tuple(str(name) for name in arrays.pop(key)) for key in ("sites", "models")}
    return Problem(**names, **arrays)


def _measured(folder: Path, kind: str) -> dict[str, Any]:
    """Plans once, as ``kind`` says. The plan from scratch is kept: the others begin with it."""
    problem = _problem(folder)
    kept = folder / "plan.msgpack"
    before = None if kind == "scratch" else unpacked(msgspec.msgpack.decode(kept.read_bytes(), type=PlanRecord))
    changed = np.zeros(len(problem.sites), dtype=np.bool_)
    if kind in {"region", "outage"}:
        problem, changed = _changed(problem, kind)
    start_mib, start_s, start_cpu_s = _peak_mib(), time.perf_counter(), time.process_time()
    whole = before is None or not changed.any()
    plan = plan_fleet(problem, before) if whole else replan_fleet(problem, before, changed)
    cpu_s, wall_s = time.process_time() - start_cpu_s, time.perf_counter() - start_s
    if before is None:
        kept.write_bytes(msgspec.msgpack.encode(packed(problem, plan)))
    return {
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "peak_mib": _peak_mib(),
        "before_mib": start_mib,
        **_figures(problem, plan),
        **({} if before is None else _moved(problem, before, plan)),
        "changed": int(changed.sum()),
    }


def _passes() -> dict[str, Any]:
    """Two chains of plans over the same figures: one that follows what changed, one that plans everything."""
    problem, dice = fleet(PASSES_SITES, MODELS, load=LOAD), np.random.default_rng(SEEDS[0])
    whole = plan = plan_fleet(problem)
    basis = rests(problem, plan, None, Scope(), 0.0)
    level, rows = np.ones((PASSES_SITES, 1)), []
    for number in range(1, PASSES + 1):
        level = level * np.exp(dice.normal(0.0, WANDER, level.shape))
        if number % CROWD_EVERY == 0:
            level[np.argsort(problem.round_trip_s[dice.integers(PASSES_SITES)])[: round(REGION * PASSES_SITES)]] *= 2.0
        noise = np.exp(dice.normal(0.0, NOISE, problem.demand_per_s.shape))
        now = replace(problem, demand_per_s=problem.demand_per_s * level * noise)
        start_s, before = time.process_time(), (plan, basis)
        scope = basis.scope(now, plan, PASS_S * number)
        plan = planned(now, plan, scope)
        basis = rests(now, plan, before, scope, PASS_S * number)
        middle_s = time.process_time()
        whole = plan_fleet(now, whole)
        end_s = time.process_time()
        rows.append(
            {
                "planned": scope.planned,
                "cpu_s": middle_s - start_s,
                "whole_cpu_s": end_s - middle_s,
                "over_whole": as_it_is(now, plan).cost_s / whole.cost_s - 1.0,
            }
        )
    return {"sites": PASSES_SITES, "passes": rows}


def _changed(problem: Problem, kind: str) -> tuple[Problem, Any]:
    """The busiest site and its nearest: more demand there, or lost."""
    busiest = int(problem.demand_per_s.sum(axis=1).argmax())
    count = max(LOST, round(REGION * len(problem.sites))) if kind == "region" else LOST
    changed = np.zeros(len(problem.sites), dtype=np.bool_)
    changed[np.argsort(problem.round_trip_s[busiest], kind="stable")[:count]] = True
    if kind == "outage":
        return replace(problem, workers=np.where(changed, 0.0, problem.workers)), changed
    return replace(
        problem, demand_per_s=np.where(changed[:, None], 1.5 * problem.demand_per_s, problem.demand_per_s)
    ), changed


def _figures(problem: Problem, plan: FleetPlan) -> dict[str, Any]:
    return {
        "cost_s": plan.cost_s,
        "routing_gap": plan.routing_gap,
        "placement_gap": plan.placement_gap,
        "replicas": int(plan.placed.sum()),
        "routes": len(plan.share),
        "unserved": float(plan.unserved_per_s.sum() / problem.demand_per_s.sum()),
    }


def _moved(problem: Problem, before: FleetPlan, plan: FleetPlan) -> dict[str, Any]:
    """Replicas that came or went, and the part of the demand that is sent elsewhere than before."""
    shape = (len(problem.sites), len(problem.models), len(problem.sites))
    keys = [np.ravel_multi_index((each.origin, each.model, each.place), shape) for each in (before, plan)]
    every, at = np.unique(np.concatenate(keys), return_inverse=True)
    sign = np.concatenate([-before.share, plan.share])
    moved = np.abs(np.bincount(at, sign, len(every)))
    origin, model, _ = np.unravel_index(every, shape)
    rate = problem.demand_per_s[origin, model]
    return {
        "replicas_changed": int((before.placed != plan.placed).sum()),
        "demand_moved": float(rate @ moved / 2.0 / problem.demand_per_s.sum()),
    }


def _peak_mib() -> float:
    """Of this process alone: what getrusage says also counts the process that it was started from."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- quality ----------------------------------------------------------------------------------------------------------


def _routing(sites: int, models: int, seed: int) -> dict[str, Any]:
    """Shares over the planner's own placement, by the planner and by HiGHS."""
    from fleets.exact import best_shares_s  # noqa: PLC0415 - of the tests, whose folder `bench` puts on the path

    problem = fleet(sites, models, load=0.7, seed=seed)
    placed = plan_fleet(problem).placed
    began_s = time.process_time()
    plan = route_fleet(problem, placed)
    ours_s = time.process_time() - began_s
    began_s = time.process_time()
    exact_s = best_shares_s(problem, placed)
    highs_s = time.process_time() - began_s
    gap = plan.cost_s / exact_s - 1.0
    print(f"  routing {sites} x {models}: {gap:+.3%}, {ours_s:.2f} s, HiGHS {highs_s:.2f} s", file=sys.stderr)
    return {
        "sites": sites,
        "models": models,
        "seed": seed,
        "over_exact": gap,
        "told_gap": plan.routing_gap,
        "cpu_s": ours_s,
        "highs_cpu_s": highs_s,
    }


def _placements() -> dict[str, Any]:
    from fleets.exact import best_placement_s  # noqa: PLC0415 - as above
    from fleets.small import scattered  # noqa: PLC0415 - as above

    rows = []
    for sites, models in PLACED:
        for seed in PLACED_SEEDS:
            for load in LOADS:
                problem = scattered(sites, models, seed, load=load, memory=2.0)
                began_s = time.process_time()
                plan = plan_fleet(problem)
                ours_s = time.process_time() - began_s
                began_s = time.process_time()
                exact_s, bound_s = best_placement_s(problem, EXACT_LIMIT_S)
                rows.append(
                    {
                        "sites": sites,
                        "models": models,
                        "seed": seed,
                        "load": load,
                        "over_exact": plan.cost_s / exact_s - 1.0,
                        "told_gap": plan.placement_gap,
                        "proven": exact_s <= (1.0 + PROVEN) * bound_s,
                        "cpu_s": ours_s,
                        "highs_cpu_s": time.process_time() - began_s,
                    }
                )
    gaps = [row["over_exact"] for row in rows if row["proven"]]
    print(f"  placement: {len(gaps)} of {len(rows)} proven, worst {max(gaps, default=0.0):.1%}", file=sys.stderr)
    return {
        "instances": rows,
        "proven": len(gaps),
        "median": statistics.median(gaps) if gaps else None,
        "mean": statistics.mean(gaps) if gaps else None,
        "worst": max(gaps, default=None),
    }


def _main() -> None:
    """What a process of one step does: `python -m bench.planner FOLDER make SITES LOAD SEED | passes | KIND`."""
    folder, what, *rest = Path(sys.argv[1]), *sys.argv[2:]
    if what == "make":
        found = _make(folder, int(rest[0]), float(rest[1]), int(rest[2]))
    else:
        found = _passes() if what == "passes" else _measured(folder, what)
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
