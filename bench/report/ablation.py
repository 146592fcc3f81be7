"""The plot and the section of the page about where the gateway's CPU goes."""

from pathlib import Path
from statistics import quantiles
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save, shared


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars across: what is saved without each part."""
    saved = dict(sorted(result["saved_us"].items(), key=lambda item: item[1]))
    spread = {name: _quartiles(result, name) for name in saved}
    figure, axes = plt.subplots(figsize=(8, 4.8))
    axes.barh(list(saved), list(saved.values()), color=COLOURS[1])
    axes.hlines(
        list(saved),
        [low for low, _ in spread.values()],
        [high for _, high in spread.values()],
        COLOURS[0],
        linewidth=1.5,
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("µs of CPU saved per request without it; lines: quartiles")
    axes.axvline(0, color=COLOURS[0], linewidth=0.8)
    bare(axes)
    save(figure, folder / "ablation.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    median = result["median"]
    plain, whole = median["plain Envoy"], median["nearcast"]
    rows = [
        "| {} | {:+.1f} | {:+.0f} to {:+.0f} | {:+.2f} |".format(name, saved, *_quartiles(result, name), saved / plain)
        for name, saved in sorted(result["saved_us"].items(), key=lambda item: -item[1])
    ]
    return [
        "### Where a microsecond goes",
        "",
        f"At 1 KB and 16 connections plain Envoy spends {plain:.0f} µs on a request, ours {whole:.0f} µs. Each row is",
        "our configuration without one part: what is saved is what it costs. Rows share work, so they do not add up.",
        f"Median and quartiles of the differences within each of {result['rounds']} interleaved rounds: a part whose",
        "quartiles lie on both sides of zero is not told from noise.",
        "",
        *shared(result),
        "| without | saved µs | quartiles | of plain Envoy |",
        "|---|---|---|---|",
        *rows,
        "",
        "![Saved without each part](ablation.png)",
        "",
    ]


def _quartiles(result: dict[str, Any], part: str) -> tuple[float, float]:
    """Of what is saved without ``part`` in each round, in microseconds."""
    cpu = result["cpu_us_per_request"]
    low, _, high = quantiles([a - b for a, b in zip(cpu["nearcast"], cpu[part], strict=True)], n=4)
    return low, high
