"""The fleet's plot and its section of the page."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, finish


def plot(result: dict[str, Any], folder: Path) -> None:
    """Stacked bars: memory by site and process."""
    memory = result["pss_mib"]
    names = sorted({name for parts in memory.values() for name in parts})
    figure, axes = plt.subplots(figsize=(6, 4.2))
    floor = [0.0] * len(memory)
    for index, name in enumerate(names):
        values = [parts.get(name, 0.0) for parts in memory.values()]
        bars = axes.bar(list(memory), values, bottom=floor, label=name, color=COLOURS[index + 1])
        axes.bar_label(bars, fmt="%.0f", label_type="center", fontsize=8, color="white")
        floor = [low + value for low, value in zip(floor, values, strict=True)]
    axes.set_ylim(0, max(floor) * 1.25)  # room for the legend
    finish(figure, axes, "Memory per site (proportional set size)", "MiB", folder / "memory.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    seconds = result["median_apply_to_ready_s"]
    return [
        "## Fleet: convergence and memory",
        "",
        "Three sites with emulated round trips (88, 160, 220 ms) on one machine, as `nearcast up` makes them.",
        "",
        "| step | seconds |",
        "|---|---|",
        f"| `nearcast up`, from nothing to three ready gateways | {result['up_s']:.1f} |",
        *(f"| `apply` to ready on three sites, {name} (median) | {value:.2f} |" for name, value in seconds.items()),
        f"| of which two starts of the command itself | {result['of_which_the_two_commands_s']:.2f} |",
        "",
        "| site | MiB in all | " + " | ".join(next(iter(result["pss_mib"].values()))) + " |",
        "|---|---|" + "---|" * len(next(iter(result["pss_mib"].values()))),
        *(
            f"| {site} | {result['pss_mib_per_site'][site]:.0f} | "
            + " | ".join(f"{value:.0f}" for value in parts.values())
            + " |"
            for site, parts in result["pss_mib"].items()
        ),
        "",
        f"With {result['models_loaded']} small models loaded. Proportional set size: shared pages count by parts.",
        "",
        "![Memory per site](memory.png)",
        "",
        *_starting(result.get("starting", {})),
        *_small_site(result.get("small_site")),
    ]


def _starting(found: dict[str, dict[str, float]]) -> list[str]:
    if not found:
        return []
    return [
        "### Starting",
        "",
        "Seconds from the start of the process until it is imported or answers; for a model, from the order to load it",
        "until its socket answers, the measuring of its batch curve included.",
        "",
        "| process | seconds | MiB |",
        "|---|---|---|",
        *(f"| {name} | {each['seconds']:.2f} | {each['mib']:.0f} |" for name, each in found.items()),
        "",
    ]


def _small_site(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    parts = ", ".join(f"{name} {mib:.0f}" for name, mib in found["after_mib"].items())
    rows = [
        f"| {name} | {each['requests_per_s']:,.0f} | {each['p99_ms']:.0f} | {each['errors']} "
        f"| {each['mib_over_time'][0]:.0f} → {each['mib_over_time'][-1]:.0f} |"
        for name, each in found["models"].items()
    ]
    return [
        "### A site on one core and 512 MB",
        "",
        f"Agent, Envoy and engine together on one core, limited to {found['limit_mib']} MiB by",
        f"{found['limited_by']}, with three models, 16 connections of load to one after another, by the gateway.",
        "Memory is what the group is charged with, file pages included.",
        f"Killed for memory: {found['killed_for_memory']}. Afterwards, in MiB: {parts}.",
        "",
        "| model | requests/s | p99 ms | errors | MiB, first second → last |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
