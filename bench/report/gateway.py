"""The gateway's plots and its section of the page."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save, shared

BODIES = ("1 KB", "32 KB", "128 KB")
CPU, PLAIN = "cpu_us_per_request", "plain Envoy"


def plot(result: dict[str, Any], folder: Path) -> None:
    """CPU per request of every candidate by load, as times plain Envoy; LiteLLM is beyond the picture."""
    median, ratio = result["median"], result["of_plain"]
    open_names = [name for name in median if "TLS" not in name and name != "LiteLLM"]
    panels = [
        ("Bodies, 16 connections", open_names, BODIES),
        ("Streams of 20 events, 64 at once", [n for n in open_names if "stream" in median[n]], ("stream",)),
        ("TLS", [name for name in median if "TLS" in name], (*BODIES, "1 KB, new connections")),
    ]
    figure, drawn = plt.subplots(1, 3, figsize=(15, 5.2), width_ratios=(3, 1.2, 2.4))
    for axes, (title, names, loads) in zip(drawn, panels, strict=True):
        width = 0.8 / len(names)
        for index, name in enumerate(names):
            places = [n + (index - (len(names) - 1) / 2) * width for n in range(len(loads))]
            colour = COLOURS[open_names.index(name.removesuffix(", TLS"))]
            bars = axes.bar(places, [ratio[name][load] for load in loads], width * 0.92, label=name, color=colour)
            axes.bar_label(bars, fmt="%.2f", fontsize=6.5, rotation=90, padding=2)
        axes.axhline(1.0, color=COLOURS[0], linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(loads)), [load.replace(", ", ",\n") for load in loads], fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.14)
        bare(axes)
    drawn[0].set_ylabel("CPU per request, times plain Envoy")
    figure.legend(*drawn[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=4, loc="lower center")
    figure.suptitle("Gateway: CPU per request", fontsize=11)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    save(figure, folder / "gateway.png", tight=False)


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    median = result["median"]
    open_names = [name for name in median if "TLS" not in name]
    lines = [
        "## Gateway: CPU per request",
        "",
        "One worker thread or process each on one core, with its children; the load generator and a mock engine on the",
        "other. In brackets: times plain Envoy, which does nothing but proxy. `nearcast` does all that a site does; AI",
        "gateways run with one worker and their defaults, nginx without an access log. Times: median of",
        f"{result['rounds']} interleaved rounds of {result['seconds']:g} s (LiteLLM: one round). Ratios: median of",
        "those within a round, in which the same load goes to everybody within seconds.",
        "",
        *shared(result),
        *_cpu(result, open_names, (*BODIES, "stream"), "16 connections; streams: 64"),
        "### With TLS",
        "",
        "The same P-256 certificate for all; in brackets times plain Envoy with TLS. With new connections",
        "each request pays for a handshake.",
        "",
        *_cpu(result, [n for n in median if "TLS" in n], (*BODIES, "1 KB, new connections"), "16 connections"),
        "### Rates and latencies at 1 KB",
        "",
        "| | requests/s, 1 / 16 / 64 connections | p50 ms | p99 ms | MiB |",
        "|---|---|---|---|---|",
    ]
    loads = ("1 KB, 1 connection", "1 KB", "1 KB, 64 connections")
    for name in open_names:
        found = [median[name][load] for load in loads if load in median[name]]
        if name not in result["pss_mib"]:
            continue
        rates = " / ".join(f"{one['requests_per_s']:,.0f}" for one in found)
        p50, p99 = (" / ".join(f"{one[key]:.2f}" for one in found) for key in ("p50_ms", "p99_ms"))
        lines.append(f"| {name} | {rates} | {p50} | {p99} | {result['pss_mib'][name]:.0f} |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines += ["", f"LiteLLM: 16 connections only. Versions: {versions}.", ""]
    lines += [f"Left out: {name} ({why}).\n" for name, why in result["absent"].items()]
    return [*lines, "![CPU per request](gateway.png)", ""]


def _cpu(result: dict[str, Any], names: list[str], loads: tuple[str, ...], corner: str) -> list[str]:
    median, ratio = result["median"], result["of_plain"]
    rows = []
    for name in names:
        cells = [
            f"{median[name][load][CPU]:,.0f} µs ({ratio[name][load]:.2f} x)" if load in median[name] else ""
            for load in loads
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return [f"| {corner} | " + " | ".join(loads) + " |", "|---|" + "---|" * len(loads), *rows, ""]
