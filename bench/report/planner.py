"""The plot and the section of the page about the fleet's planner: time over sites, and gaps."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save

KINDS = {
    "scratch": "from scratch",
    "again": "again, nothing changed",
    "region": "a region changed",
    "outage": "three sites lost",
}
AIMS = {"a whole plan, aim": 10.0, "a region, aim": 1.0}
MEMORY_AIM_MIB = 2048


def plot(result: dict[str, Any], folder: Path) -> None:
    """CPU seconds over sites with the aims; beside it what plans cost over the exact optimum."""
    figure, (times, gaps) = plt.subplots(1, 2, figsize=(10, 4.2))
    sites = [row["sites"] for row in result["sizes"]]
    for number, (kind, name) in enumerate(KINDS.items()):
        seconds = [row[kind]["cpu_s"] for row in result["sizes"]]
        times.plot(sites, seconds, marker="o", markersize=3, label=name, color=COLOURS[number + 1])
    for name, aim_s in AIMS.items():
        times.axhline(aim_s, color=COLOURS[0], linewidth=0.8, linestyle="--")
        times.annotate(name, (sites[0], aim_s), fontsize=7, color=COLOURS[0], va="bottom")
    times.set_xscale("log")
    times.set_yscale("log")
    times.set_xticks(sites, [f"{count:,}" for count in sites])
    times.minorticks_off()
    times.set_xlabel(f"sites, with {result['models']} models")
    times.set_ylabel("CPU seconds")
    times.set_title("Time of a plan", fontsize=11)
    times.legend(frameon=False, fontsize=8)
    _gaps(gaps, result)
    for axes in (times, gaps):
        bare(axes)
    save(figure, folder / "planner.png")


def _gaps(axes: Any, result: dict[str, Any]) -> None:
    parts = {
        "routing": [row["over_exact"] for row in result["routing"]],
        "placement": [row["over_exact"] for row in result["placement"]["instances"] if row["proven"]],
    }
    for number, (name, values) in enumerate(parts.items()):
        ordered = sorted(100 * max(0.0, value) for value in values)
        ranks = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
        axes.step(ordered, ranks, where="post", label=name, color=COLOURS[number + 1])
    axes.axvline(1.0, color=COLOURS[0], linewidth=0.8, linestyle="--")
    axes.set_xlabel("% above the exact optimum")
    axes.set_ylabel("part of the instances")
    axes.set_title("Cost against HiGHS", fontsize=11)
    axes.legend(frameon=False, fontsize=8)


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    return [
        "## Planner: time, memory, and distance from the optimum",
        "",
        f"Made-up fleets with {result['models']} models, demand everywhere, mixed hardware and residency, at",
        f"{result['load']:.0%} of capacity (`bench/fleets.py`). CPU seconds of one thread",
        f"({result['processor']}), each plan in a process of its own. *Again* begins with the plan from scratch",
        "and unchanged inputs; *a region*: half as much demand again at the hundredth of the sites around the busiest",
        "one; *lost*: the busiest site and its two nearest.",
        "",
        "| sites | " + " | ".join(f"{name}, s" for name in KINDS.values()) + " | most memory, MiB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['sites']:,} | "
            + " | ".join(f"{row[kind]['cpu_s']:.2f}" for kind in KINDS)
            + f" | {max(row[kind]['peak_mib'] for kind in KINDS):,.0f} |"
            for row in result["sizes"]
        ),
        "",
        "![Time of a plan, and cost against HiGHS](planner.png)",
        "",
        *_aims(result),
        *_kept(result),
        *_passes(result),
        *_heavy(result),
        *_exact(result),
    ]


def _aims(result: dict[str, Any]) -> list[str]:
    last = result["sizes"][-1]
    peak_mib = max(last[kind]["peak_mib"] for kind in KINDS)
    routing = max(row["over_exact"] for row in result["routing"])
    others = {
        kind: "; other fleets of that size: " + ", ".join(f"{row[kind]['cpu_s']:.1f} s" for row in result["others"])
        for kind in ("scratch", "region")
    }
    return [
        f"| aim, at {last['sites']:,} sites | measured |",
        "|---|---|",
        f"| a whole plan in under 10 s | {last['scratch']['cpu_s']:.1f} s{others['scratch']} |",
        f"| a region's change in under 1 s | {last['region']['cpu_s']:.2f} s{others['region']} |",
        f"| memory under {MEMORY_AIM_MIB:,} MiB | {peak_mib:,.0f} MiB |",
        f"| routing within 1 % of the linear program, told by its own bound | {last['scratch']['routing_gap']:.2%} |",
        f"| … against HiGHS, the worst of {len(result['routing'])} instances | {routing:.2%} |",
        "",
    ]


def _kept(result: dict[str, Any]) -> list[str]:
    rows = []
    for row in result["sizes"]:
        cells = [
            f"{row[kind]['replicas_changed']} / {row[kind]['demand_moved']:.2%}" for kind in KINDS if kind != "scratch"
        ]
        rows.append(f"| {row['sites']:,} | {row['scratch']['replicas']:,} | " + " | ".join(cells) + " |")
    return [
        "How much of the plan before changes: replicas that came or went / part of the demand that goes elsewhere.",
        "",
        "| sites | replicas | " + " | ".join(name for kind, name in KINDS.items() if kind != "scratch") + " |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def _passes(result: dict[str, Any]) -> list[str]:
    if "passes" not in result:
        return []
    sites, rows = result["passes"]["sites"], result["passes"]["passes"]
    over = sorted(row["over_whole"] for row in rows)
    lines = []
    for kind, name in (("none", "nothing planned"), ("part", "a part planned"), ("whole", "everything planned")):
        each = [row["cpu_s"] for row in rows if row["planned"] == kind]
        if each:
            lines.append(f"| {name} | {len(each)} | {statistics.median(each):.2f} | {max(each):.2f} |")
    spent_s, whole_s = (sum(row[key] for row in rows) for key in ("cpu_s", "whole_cpu_s"))
    return [
        f"What the control plane does: {len(rows)} passes, five seconds apart, over {sites:,} sites. Demand wanders",
        "by 1 % from pass to pass at each site, every figure has noise of 5 %, and each minute the demand of a region",
        "doubles.",
        "",
        "| pass | how many | CPU s, median | CPU s, most |",
        "|---|---|---|---|",
        *lines,
        "",
        f"Together {spent_s:.1f} s of CPU; planning everything in each pass, {whole_s:.1f} s. On the figures of each",
        f"pass the plan costs {over[len(over) // 2]:+.2%} (median) and {over[-1]:+.2%} (most) over one of",
        "everything.",
        "",
    ]


def _heavy(result: dict[str, Any]) -> list[str]:
    rows = [(row["sites"], result["load"], row["scratch"]) for row in result["sizes"][-2:]]
    rows += [(row["sites"], row["load"], row) for row in result["heavy"]]
    return [
        "From scratch, at rising load. The placement bound of fleets so large knows nothing of memory: it says",
        "what no placement can go below, not what one can reach.",
        "",
        "| sites | load | CPU s | MiB | routing gap | placement gap, at most | demand without room |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {sites:,} | {load:.0%} | {row['cpu_s']:.1f} | {row['peak_mib']:,.0f} | {row['routing_gap']:.2%} "
            f"| {row['placement_gap']:.0%} | {row['unserved']:.2%} |"
            for sites, load, row in rows
        ),
        "",
    ]


def _exact(result: dict[str, Any]) -> list[str]:
    placement = result["placement"]
    return [
        "Routing against HiGHS over the same placement, all places open to the solver:",
        "",
        "| sites × models | above HiGHS | own bound says at most | CPU s | HiGHS, CPU s |",
        "|---|---|---|---|---|",
        *(
            f"| {row['sites']} × {row['models']} | {row['over_exact']:+.3%} | {row['told_gap']:.2%} "
            f"| {row['cpu_s']:.2f} | {row['highs_cpu_s']:.2f} |"
            for row in result["routing"]
        ),
        "",
        *_placement(placement),
    ]


def _placement(placement: dict[str, Any]) -> list[str]:
    if not placement["proven"]:
        return ["No placement instance was solved exactly within the time limit.", ""]
    return [
        f"Placement against the exact mixed-integer program: {placement['proven']} of {len(placement['instances'])}",
        f"instances were solved to the end. Plans cost {placement['median']:.2%} more (median),",
        f"{placement['mean']:.2%} (mean), {placement['worst']:.1%} (worst).",
        "",
    ]
