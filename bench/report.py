"""Plots and one page out of raw results, so that a figure can be traced to its run."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#8a8f98", "#1f6feb", "#2da44e", "#bf8700")


def gateway_plot(result: dict[str, Any], path: Path) -> None:
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
    _finish(figure, axes, "Gateway: CPU per request by size of the body", "µs per request", path)


def engine_plot(result: dict[str, Any], path: Path) -> None:
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
        axes.spines[["top", "right"]].set_visible(False)
        if max(values) > 50 * min(values):
            axes.set_yscale("log")
    panels[0].set_ylabel("items or requests per second")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def fleet_plot(result: dict[str, Any], path: Path) -> None:
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
    _finish(figure, axes, "Memory per site (proportional set size)", "MiB", path)


def _finish(figure: Any, axes: Any, title: str, unit: str, path: Path) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def page(machine: dict[str, Any], results: dict[str, Any]) -> str:
    """The page `docs/explanation/benchmarks.md`."""
    lines = [
        "# Benchmarks",
        "",
        "<!-- written by `make bench` from bench/results/: do not edit -->",
        "",
        "First figures, one run of `make bench`. Every figure is a ratio against a peer or a limit that was measured",
        "in the same run, interleaved. Raw results: `bench/results/` in the repository.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_mib'] // 1024} GiB, Linux",
        f"{machine['kernel']}, Python {machine['python']}, commit {machine['commit']}.",
        "",
    ]
    sections = {"gateway": _gateway, "engine": _engine, "fleet": _fleet}
    for name, section in sections.items():
        if name in results:
            lines += section(results[name])
    return "\n".join(lines) + "\n"


def _gateway(result: dict[str, Any]) -> list[str]:
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


def _engine(result: dict[str, Any]) -> list[str]:
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


def _fleet(result: dict[str, Any]) -> list[str]:
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
    ]
