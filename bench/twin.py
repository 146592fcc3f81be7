"""The digital twin's comparison: nearcast beside other policies, at rising load and through trouble.

Everything runs on the twin's virtual clock, so the machine's load changes how long this takes, never a figure. Each row
is the mean over :data:`SEEDS`, which are the same for all policies. Cities by GeoNames, round trips by fibre.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec

from nearcast.twin.compare import compare, set_up
from nearcast.twin.files import Loaded, load
from nearcast.twin.names import BOUND, NAMES, OURS

HERE = Path(__file__).resolve().parent
FLEET = HERE / "twin.yaml"
CAMERAS = HERE.parent / "examples" / "twin" / "smart-cameras.yaml"
LOADS = (0.4, 0.7, 0.9, 1.05)
SEEDS = (5,)
BEST_RIVALS = ("nearest", "nearest-spill", "latency-weighted")

TROUBLE: Mapping[str, dict[str, Any]] = {
    "telemetry 1 s old": {"telemetry": {"everyS": 1.0, "ageS": 1.0}},
    "telemetry 5 s old": {"telemetry": {"everyS": 5.0, "ageS": 5.0}},
    "telemetry 30 s old": {"telemetry": {"everyS": 30.0, "ageS": 30.0}},
    "5 % of sites lost": {"failures": [{"atS": 50, "lastsS": 25, "share": 0.05}]},
    "North America cut off": {"failures": [{"atS": 50, "lastsS": 25, "cutOff": {"continents": ["NA"]}}]},
    "crowd of ten times in one city": {
        "demand": {"load": 0.5, "crowds": [{"atS": 50, "lastsS": 25, "times": 10, "where": {"countries": ["GB"]}}]}
    },
}


def run(_folder: Path) -> dict[str, Any]:
    """All comparisons; figures of each run, and means."""
    fleet = load(FLEET)
    loads = {}
    for part in LOADS:
        print(f"  load {part:.0%}", file=sys.stderr)
        loads[str(part)] = _means(fleet, NAMES, part)
    trouble = {}
    for name, change in TROUBLE.items():
        print(f"  {name}", file=sys.stderr)
        trouble[name] = _means(_changed(fleet, change), (OURS, *BEST_RIVALS), None)
    print("  smart cameras", file=sys.stderr)
    cameras = _means(load(CAMERAS), (OURS, "central"), None)
    return {"seeds": SEEDS, "loads": loads, "trouble": trouble, "cameras": cameras}


def _changed(loaded: Loaded, change: Mapping[str, Any]) -> Loaded:
    """The scenario with other fields of its spec, read as if they had been written so."""
    scenario = loaded.scenario
    document = scenario.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["spec"] |= change
    return replace(loaded, scenario=type(scenario).model_validate(document, by_alias=True, by_name=False))


def _means(loaded: Loaded, names: Iterable[str], part: float | None) -> dict[str, Any]:
    """Mean figures of each policy over the seeds."""
    found: dict[str, list[dict[str, float | None]]] = {}
    for seed in SEEDS:
        result = compare(set_up(loaded, seed=seed, load=part), names)
        for figures in result.figures:
            found.setdefault(figures.policy, []).append(_flat(msgspec.to_builtins(figures)))
        if result.bound is not None:
            found.setdefault(BOUND, []).append(dict(msgspec.to_builtins(result.bound)))
    return {name: {key: _mean([row[key] for row in rows]) for key in rows[0]} for name, rows in found.items()}


def _mean(values: list[float | None]) -> float | None:
    """None, which is never, as soon as one of them is."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def _flat(figures: dict[str, Any]) -> dict[str, float | None]:
    answer, network = figures["answer"], figures["network"]
    keys = ("within", "refused", "lost", "closed", "wan_bytes", "utilization_mean", "cost_per_million")
    keys += ("moved_mean", "moved_most", "undone", "violations", "requests")
    return {
        **{name: answer[name] for name in ("p50_ms", "p95_ms", "p99_ms", "mean_ms")},
        "network_ms": network["mean_ms"],
        **{key: figures[key] for key in keys},
        **{f"within_{name}": of["within"] for name, of in figures["by_class"].items()},
    }
