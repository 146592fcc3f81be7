"""The plot and the section of the page about where the gateway's CPU goes."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save, shared


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars across: what is saved without each part."""
    saved = dict(sorted(result["saved_us"].items(), key=lambda item: item[1]))
    figure, axes = plt.subplots(figsize=(8, 4.8))
    bars = axes.barh(list(saved), list(saved.values()), color=COLOURS[1])
    axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("µs of CPU per request that are saved without it")
    axes.axvline(0, color=COLOURS[0], linewidth=0.8)
    bare(axes)
    save(figure, folder / "ablation.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    median = result["median"]
    plain, whole = median["plain Envoy"], median["nearcast"]
    rows = [
        f"| {name} | {saved:+.1f} | {saved / plain:+.2f} |"
        for name, saved in sorted(result["saved_us"].items(), key=lambda item: -item[1])
    ]
    return [
        "### Where a microsecond goes",
        "",
        f"At 1 KB and 16 connections plain Envoy spends {plain:.0f} µs on a request, ours {whole:.0f} µs. Each row is",
        "our configuration without one part: what is saved is what it costs. Rows share work, so they do not add up,",
        "and what is below a microsecond is noise. Median of the differences within each of",
        f"{result['rounds']} interleaved rounds.",
        "",
        *shared(result),
        "| without | saved µs | of plain Envoy |",
        "|---|---|---|",
        *rows,
        "",
        "![Saved without each part](ablation.png)",
        "",
    ]
