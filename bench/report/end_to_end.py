"""The plot and the section of the page about whole ways, from a client to an engine and back."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save, shared

WORDS = {"gateway, engine": "client, gateway, engine", "gateway, peer, engine": "client, gateway, peer, engine"}


def plot(result: dict[str, Any], folder: Path) -> None:
    """Bars: each way measured beside the sum of its parts; latency and CPU."""
    wholes = list(result["sum_of_parts"])
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2))
    titles = {"p50_us": "Latency (p50), one connection", "cpu_us": "CPU per request, 16 connections"}
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        kinds = {
            "sum of the parts": [result["sum_of_parts"][whole][key] for whole in wholes],
            "measured": [result[f"median_{key}"][whole] for whole in wholes],
        }
        for index, (kind, values) in enumerate(kinds.items()):
            places = [n + (index - 0.5) * 0.36 for n in range(len(wholes))]
            bars = axes.bar(places, values, 0.34, label=kind, color=COLOURS[index])
            axes.bar_label(bars, fmt="%.0f", fontsize=8)
        axes.set_xticks(range(len(wholes)), [WORDS[whole] for whole in wholes], fontsize=8)
        axes.set_title(title, fontsize=10)
        bare(axes)
    panels[0].set_ylabel("µs")
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, folder / "end_to_end.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    latency, cpu, sums = result["median_p50_us"], result["median_cpu_us"], result["sum_of_parts"]
    parts = [
        f"| {name} | {latency[name]:.0f} | {cpu[name]:.0f} |" for name in latency if name not in sums and name != "mock"
    ]
    wholes = [
        f"| **{WORDS[name]}** | {_beside(latency[name], one['p50_us'])} | {_beside(cpu[name], one['cpu_us'])} |"
        for name, one in sums.items()
    ]
    return [
        "## End to end",
        "",
        "From a client to an engine and back, the tiny model, a binary tensor of 256 bytes. In brackets: times the sum",
        f"of the parts, measured in the same {result['rounds']} rounds. The sum takes the engine alone (over TCP), and",
        f"what gateways add to a mock engine; the mock alone answers in {latency['mock']:.0f} µs. Between sites is",
        "mutual TLS over HTTP/2, here without distance. CPU is that of all processes but client and mock, which run on",
        "the other core; those on the way share one.",
        "",
        *shared(result),
        "| | p50 µs, 1 connection | CPU µs per request, 16 connections |",
        "|---|---|---|",
        *parts,
        *wholes,
        "",
        "![End to end](end_to_end.png)",
        "",
    ]


def _beside(value: float, expected: float) -> str:
    return f"**{value:.0f}** ({value / expected:.2f} x {expected:.0f})"
