"""The plot and the section of the page about round trips that nobody measured."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save


def plot(result: dict[str, Any], folder: Path) -> None:
    """Error against the part of pairs that is measured, for each way: median, and ninth decile."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2))
    ways = list(dict.fromkeys(point["way"] for point in result["points"]))
    for axes, key, title in zip(panels, ("median", "p90"), ("Median", "90th percentile"), strict=True):
        for index, way in enumerate(ways):
            points = [point for point in result["points"] if point["way"] == way]
            axes.plot(
                [100 * point["fraction"] for point in points],
                [100 * point[key] for point in points],
                marker="o",
                markersize=3,
                linewidth=2.2 if index == 0 else 1.2,
                label=way,
                color=COLOURS[(index + 1) % len(COLOURS)],
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes.set_yticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
        axes.minorticks_off()
        axes.set_xlabel("% of the pairs measured")
        axes.set_ylabel("relative error of the others, %")
        axes.set_title(title, fontsize=11)
        bare(axes)
    panels[1].legend(frameon=False, fontsize=8)
    save(figure, folder / "network.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    large = result["large"]
    return [
        "## Network map: round trips that nobody measured",
        "",
        f"The real round trips between {result['sites']} PlanetLab nodes (uofa-rzhu3/NetLatency-Data, PlanetLabData_1,",
        "MIT; Zhu et al., IEEE/ACM ToN 25, 2017). A random part of the pairs is measured; errors are those of all",
        f"other pairs. Median of {len(result['seeds'])} seeds. *Held* is the part of the truths within 1.64 deviations",
        "of the estimate, which should be 90 %. Landmarks choose whom to measure: everybody measures the same few.",
        f"CPU time is of one map from nothing, on one core ({result['processor']}).",
        "",
        *_busy(result),
        "| measured | way | median error | p90 error | median, ms | held | CPU s |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {point['fraction']:.0%} | {point['way']} | {point['median']:.1%} | {point['p90']:.0%} "
            f"| {point['median_ms']:.1f} | {_held(point)} | {point['cpu_s']:.2f} |"
            for point in result["points"]
        ),
        "",
        "![Error by the part of pairs measured](network.png)",
        "",
        "As a fleet measures, without locations of its sites: each its eight nearest, and two more scouts each hour.",
        "",
        "| after | measured | median error | p90 error | median, ms | held |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['hours']} h | {row['measured']:.1%} | {row['median']:.1%} | {row['p90']:.0%} "
            f"| {row['median_ms']:.1f} | {_held(row)} |"
            for row in result["fleet"]
        ),
        "",
        f"A map of {large['sites']:,} sites with {large['measured']:,} measurements takes {large['whole_s']:.1f} s of",
        f"CPU from nothing; {large['news_s']:.2f} s when 20 sites have news, {large['no_news_s']:.2f} s when 140 have",
        f"reported and nothing is new, and {large['view_s']:.2f} s to be read as a matrix for the planner. The process",
        f"had at most {large['peak_mib']:.0f} MiB.",
        "",
    ]


def _busy(result: dict[str, Any]) -> list[str]:
    """A warning where others used the machine: of times only, since errors follow from the data and the seeds."""
    load, cores = max(result["load_average"]), result["cores"]
    if load <= 1.5 * cores:
        return []
    return [
        f"Others used the machine during this run (load average {load:.1f} on {cores} cores): times are too long.",
        "",
    ]


def _held(point: dict[str, Any]) -> str:
    return f"{point['coverage']:.0%}" if "coverage" in point else ""
