"""The plots and the section of the page about the digital twin: policies at rising load, and through trouble."""

from math import inf, nan
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save

OURS, BOUND = "nearcast", "clairvoyant"
BETTER = {"p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "within": "in target", "wan_bytes": "WAN per answer"}


def plot(result: dict[str, Any], folder: Path) -> None:
    """Share within objective, p50 and p95 over load, one line per policy."""
    loads = [float(load) for load in result["loads"]]
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    for panel, key, title in zip(axes, ("within", "p50_ms", "p95_ms"), ("in target", "p50 ms", "p95 ms"), strict=True):
        for number, name in enumerate(next(iter(result["loads"].values()))):
            values = [nan if rows[name][key] is None else rows[name][key] for rows in result["loads"].values()]
            style = {"linewidth": 2.4} if name == OURS else {"linewidth": 1.2, "alpha": 0.85}
            colour = COLOURS[1] if name == OURS else COLOURS[number + (number < 1)] if number != 1 else COLOURS[0]
            panel.plot(loads, values, marker="o", markersize=3, label=name, color=colour, **style)
        panel.set_title(title, fontsize=11)
        panel.set_xlabel("part of the fleet's capacity")
        if key != "within":
            panel.set_yscale("log")
        bare(panel)
    axes[1].legend(frameon=False, fontsize=7, loc="upper left")
    save(figure, folder / "twin.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    return [
        "## Digital twin: policies over the same requests",
        "",
        "A simulated fleet on a virtual clock (`bench/twin.yaml`; see [The digital twin](digital-twin.md)). Seed",
        f"{', '.join(map(str, result['seeds']))}, the same for all policies (the mean of several). Percentiles are",
        "over all requests: what is refused or lost is never answered, and outside its target. `clairvoyant` is a",
        "bound, no policy. Traffic between sites is that of all requests, tries that were refused too, per answer.",
        "",
        *_load_table(result),
        "![Policies at rising load](twin.png)",
        "",
        "A line ends where so many requests are refused that the percentile has no end.",
        "",
        *_aims(result),
        "### Through trouble",
        "",
        *_trouble_table(result),
    ]


def _load_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| load | policy | p50 ms | p95 ms | p99 ms | in target | refused | WAN kB/answer | moved/s | undone/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for load, rows in result["loads"].items():
        for name, row in rows.items():
            shown = f"**{name}**" if name == OURS else name
            times = _times(row)
            rest = "| | | |" if name == BOUND else _rest(row)
            lines.append(f"| {float(load):.0%} | {shown} | {times} | {row['within']:.1%} {rest}")
    return [*lines, ""]


def _times(row: dict[str, float | None]) -> str:
    values = (row[key] for key in ("p50_ms", "p95_ms", "p99_ms"))
    return " | ".join("never" if value is None else f"{value:,.0f}" for value in values)


def _rest(row: dict[str, float]) -> str:
    refused = row["refused"] + row["closed"] + row["lost"]
    return f"| {refused:.1%} | {row['wan_bytes'] / 1000:.1f} | {row['moved_mean']:.2%} | {row['undone']:.2%} |"


def _aims(result: dict[str, Any]) -> list[str]:
    lines = ["| aim | measured |", "|---|---|"]
    for load, rows in result["loads"].items():
        lost = _lost(rows)
        verdict = "yes" if not lost else "no: " + "; ".join(lost)
        lines.append(f"| {float(load):.0%}: better or equal to every policy (1 % counts as equal) | {verdict} |")
    ours, bound = result["loads"]["0.7"][OURS], result["loads"]["0.7"][BOUND]
    over = ", ".join(f"{BETTER[key]} {ours[key] / bound[key] - 1:+.0%}" for key in ("p50_ms", "p95_ms", "p99_ms"))
    lines.append(f"| 70 %: within 10 % of the bound | {over}; in target {ours['within'] - bound['within']:+.1%} |")
    mine, central = result["cameras"][OURS], result["cameras"]["central"]
    network, wan = 1 - mine["network_ms"] / central["network_ms"], 1 - mine["wan_bytes"] / central["wan_bytes"]
    lines.append(f"| smart cameras: 90 % less network time than central | {network:.0%} less |")
    lines.append(f"| smart cameras: 60 % fewer WAN bytes than central | {wan:.0%} fewer |")
    violations = sum(row.get("violations", 0) for rows in result["loads"].values() for row in rows.values())
    lines.append(f"| no answer from a place that residency forbids | {violations:.0f} |")
    return [*lines, ""]


def _lost(rows: dict[str, dict[str, float]]) -> list[str]:
    """Figures in which another policy is better by more than 1 %; a time without an end is worse than any."""
    ours, found = rows[OURS], []
    for key, name in BETTER.items():
        sign = -1 if key == "within" else 1
        mine = inf if ours[key] is None else ours[key]
        others = {other: row[key] for other, row in rows.items() if other not in {OURS, BOUND}}
        better = [
            f"{other} {_spoken(key, value)}"
            for other, value in others.items()
            if value is not None and (mine == inf or sign * value < sign * mine - 0.01 * abs(mine))
        ]
        if better:
            found.append(f"{name} {_spoken(key, mine)}, but {', '.join(better)}")
    return found


def _spoken(key: str, value: float) -> str:
    if value == inf:
        return "never"
    if key == "within":
        return f"{value:.1%}"
    return f"{value / 1000:.1f} kB" if key == "wan_bytes" else f"{value:,.0f} ms"


def _trouble_table(result: dict[str, Any]) -> list[str]:
    lines = [
        "| what | policy | p50 ms | p95 ms | p99 ms | in target | refused or lost | moved/s, most | undone/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for what, rows in result["trouble"].items():
        for name, row in rows.items():
            shown = f"**{name}**" if name == OURS else name
            times = _times(row)
            refused = row["refused"] + row["closed"] + row["lost"]
            lines.append(
                f"| {what} | {shown} | {times} | {row['within']:.1%} | {refused:.1%} | {row['moved_most']:.1%} "
                f"| {row['undone']:.2%} |"
            )
    return [*lines, ""]
