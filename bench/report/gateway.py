"""The gateway's plots and its section of the page."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, finish


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars: CPU per request by body size, plain Envoy beside ours."""
    median = result["median_cpu_us_per_request"]
    sizes = list(next(iter(median.values())))
    figure, axes = plt.subplots(figsize=(8, 4.2))
    width = 0.8 / len(median)
    for index, (name, by_size) in enumerate(median.items()):
        places = [n + (index - (len(median) - 1) / 2) * width for n in range(len(sizes))]
        bars = axes.bar(places, [by_size[size] for size in sizes], width * 0.92, label=name, color=COLOURS[index])
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(range(len(sizes)), [f"{size} KB" for size in sizes])
    finish(figure, axes, "Gateway: CPU per request by size of the body", "µs per request", folder / "gateway.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    median, ratio = result["median_cpu_us_per_request"], result["of_plain"]
    sizes = list(median["plain"])
    rows = [
        f"| {name} | "
        + " | ".join(
            f"{by_size[size]:.0f} µs" + (f" ({ratio[name][size]:.2f} x)" if name in ratio else "") for size in sizes
        )
        + " |"
        for name, by_size in median.items()
    ]
    return [
        "## Gateway: CPU per request",
        "",
        f"One worker thread, {result['connections']} connections, a mock engine on a Unix socket. In brackets: times",
        "plain Envoy, which does nothing but proxy.",
        "",
        "| | " + " | ".join(f"{size} KB" for size in sizes) + " |",
        "|---|" + "---|" * len(sizes),
        *rows,
        "",
        f"Memory: {result['pss_mib']['plain']:.0f} MiB plain, {result['pss_mib']['nearcast']:.0f} MiB ours.",
        "",
        "![CPU per request](gateway.png)",
        "",
    ]
