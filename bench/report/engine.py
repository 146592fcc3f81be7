"""The engine's plot and its section of the page."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars per model: the raw loop's batch sizes beside the engine's connection counts."""
    figure, panels = plt.subplots(1, len(result), figsize=(4 * len(result), 4.2))
    for axes, (model, figures) in zip(panels, result.items(), strict=True):
        raw, ours = figures["median_raw_items_per_s"], figures["median_requests_per_s"]
        labels = [f"raw\nbatch {b}" for b in raw] + [f"engine\nc={c}" for c in ours]
        values = [*raw.values(), *ours.values()]
        bars = axes.bar(labels, values, color=[COLOURS[0]] * len(raw) + [COLOURS[1]] * len(ours))
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(model, fontsize=10)
        bare(axes)
        if max(values) > 50 * min(values):
            axes.set_yscale("log")
    panels[0].set_ylabel("items or requests per second")
    save(figure, folder / "engine.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    rows = []
    for model, figures in result.items():
        raw = " / ".join(f"{value:,.0f}" for value in figures["median_raw_items_per_s"].values())
        ours = " / ".join(f"{value:,.0f}" for value in figures["median_requests_per_s"].values())
        p99 = " / ".join(f"{value:.1f}" for value in figures["median_p99_ms"].values())
        best = max(figures["of_best_raw"].values())
        rows.append(f"| {model} | {raw} | {ours} | {p99} | {best:.2f} |")
    return [
        "## Engine: requests per second on one core",
        "",
        "The raw loop is `session.run` with nothing around it: the limit. The engine parses HTTP and tensors, queues,",
        "batches where the model's measured batch curve says that it pays, and answers. For the tiny MLP (6 µs a call)",
        "the cost of a request is HTTP, so its ratio to the raw batch rate says little; for real models it says all.",
        "",
        "| model | raw, batch 1 / 8 / 32 | engine, 1 / 16 / 64 connections | p99 ms | best, of best raw |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "![Requests per second](engine.png)",
        "",
    ]
