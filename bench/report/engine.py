"""The engine's plot and its section of the page."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save

OURS = "nearcast"
BARE = "bare Protocol"


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars per model: every server at the largest number of connections, beside the best raw batch."""
    models = result["models"]
    figure, panels = plt.subplots(1, len(models), figsize=(4.6 * len(models), 4.4))
    for axes, (model, figures) in zip(panels, models.items(), strict=True):
        rates = {name: list(found.values())[-1] for name, found in figures["median_requests_per_s"].items()}
        rates = dict(sorted(rates.items(), key=lambda item: item[1]))
        if model != "tiny":
            rates["raw loop, best batch"] = max(figures["median_raw_items_per_s"].values())
        colours = [COLOURS[1] if name == OURS else COLOURS[0] for name in rates]
        bars = axes.barh(list(rates), list(rates.values()), color=colours)
        axes.bar_label(bars, fmt=" {:,.0f}", fontsize=7)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_title(f"{model}, 64 connections", fontsize=10)
        axes.set_xlim(0, max(rates.values()) * 1.2)
        bare(axes)
    panels[0].set_xlabel("requests per second on one core")
    save(figure, folder / "engine.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    models = result["models"]
    lines = [
        "## Engine: requests per second on one core",
        "",
        "The raw loop is `session.run` with nothing around it: the limit. Every server runs the same session with one",
        "intra-op thread on the same core, wrk has the other. In brackets: microseconds of CPU per request, all",
        "processes of the server together. Columns: 1, 16 and 64 keep-alive connections.",
        "",
    ]
    for model, figures in models.items():
        raw = " / ".join(f"{value:,.0f}" for value in figures["median_raw_items_per_s"].values())
        lines += [f"### {model}", "", f"Raw loop, items/s at batch 1 / 8 / 32: {raw}.", ""]
        lines += [
            "| server | 1 | 16 | 64 | p99 ms at 64 | nearcast, times as fast at 64 |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(name, figures) for name in figures["median_requests_per_s"]]
        lines += [
            f"| {name} | could not be measured: {_short(why)} | | | | |" for name, why in figures["unable"].items()
        ]
        lines.append("")
    lines += [*_aims(models), "", "How each was set up:", ""]
    lines += [f"* {name}: {note}" for name, note in result["notes"].items()]
    return [*lines, "", "![Requests per second](engine.png)", ""]


def _row(name: str, figures: dict[str, Any]) -> str:
    points = figures["servers"][name]
    cells = []
    for connections, rate in figures["median_requests_per_s"][name].items():
        cpu = min(each["cpu_us_per_request"] for each in points[connections])
        cells.append(f"{rate:,.0f} ({cpu:,.0f})")
    last = list(points)[-1]
    p99 = min(each["p99_ms"] for each in points[last])
    ratio = figures["median_requests_per_s"][OURS][last] / figures["median_requests_per_s"][name][last]
    return f"| {name} | {' | '.join(cells)} | {p99:,.1f} | {ratio:.2f} |"


def _short(why: str) -> str:
    return " ".join(why.split())[-120:].replace("|", "/")


def _aims(models: dict[str, Any]) -> list[str]:
    lines = ["| aim | measured |", "|---|---|"]
    tiny = models["tiny"]["median_requests_per_s"]
    if BARE in tiny:
        ratios = ", ".join(f"{tiny[OURS][c] / tiny[BARE][c]:.2f}" for c in tiny[OURS])
        lines.append(f"| tiny: 0.625 of the bare Protocol (50,000 of 80,000 requests/s) | {ratios} at 1, 16, 64 |")
    if "Mosec" in tiny:
        ratios = ", ".join(f"{tiny[OURS][c] / tiny['Mosec'][c]:.2f}" for c in list(tiny[OURS])[1:])
        lines.append(f"| tiny: 1.5 times Mosec | {ratios} at 16, 64 |")
    for model, figures in models.items():
        if model != "tiny":
            ratios = ", ".join(f"{ratio:.2f}" for ratio in list(figures["of_best_raw"].values())[1:])
            lines.append(f"| {model}: 0.95 of the best raw batch rate of the same turn | {ratios} at 16, 64 |")
    waits = {name: each["new_connection"]["p99_ms"] for name, each in models.items() if "new_connection" in each}
    if waits:
        told = ", ".join(f"{name} {wait_ms:.0f} ms" for name, wait_ms in waits.items())
        lines.append(f"| p99 of a new connection under load of 64: below 300 ms | {told} |")
    return lines
