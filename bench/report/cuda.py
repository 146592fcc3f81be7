"""The plot and the section of the page about a CUDA device (bench/cuda.py, run by hand on a machine that has one)."""

from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from bench.report.drawing import COLOURS, bare, save


def plot(result: dict[str, Any], folder: Path) -> None:
    """Requests per second over connections, device and processor, beside the best raw rate of the device."""
    models = result["models"]
    figure, panels = plt.subplots(1, len(models), figsize=(4.4 * len(models), 4.2))
    for axes, (model, figures) in zip(panels, models.items(), strict=True):
        for colour, wish in ((COLOURS[1], "cuda"), (COLOURS[0], "cpu")):
            points = figures[wish]["engine"]["connections"]
            rates = [point["requests_per_s"] for point in points.values()]
            axes.plot(list(points), rates, marker="o", color=colour, label=f"nearcast, {wish}")
        best = max(figures["cuda"]["raw_items_per_s"]["run"].values())
        axes.axhline(best, color=COLOURS[2], linestyle="--", label="raw loop on the device, best batch")
        axes.set_yscale("log")
        axes.set_title(model, fontsize=10)
        axes.set_xlabel("connections")
        bare(axes)
    panels[0].set_ylabel("requests per second")
    panels[0].legend(fontsize=7)
    save(figure, folder / "cuda.png")


def section(result: dict[str, Any]) -> list[str]:
    """The part of the page."""
    machine = result["machine"]
    lines = [
        "## Engine on a CUDA device",
        "",
        f"{machine['device']['name']} beside the {machine['cores']} cores of its machine, Python {machine['python']},",
        f"ONNX Runtime {machine['onnxruntime']}, float32 without TensorFloat-32. Self-made models of known shapes: an",
        "encoder of MiniLM's size and one of BERT-large's, 32 tokens, and ResNet-50's convolutions. Raw: `session.run`",
        "with nothing around it. Device and processor agree to the given relative difference.",
        "",
        "| model | where | raw, best batch | 1 | 16 | 64 | 256 connections | batch | p99 ms at 64 | differs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, figures in result["models"].items():
        for wish in ("cuda", "cpu"):
            rates = figures[wish]["raw_items_per_s"]["run"]
            best = max(rates, key=lambda batch: rates[batch])
            engine = figures[wish]["engine"]
            points = engine["connections"]
            cells = " | ".join(f"{point['requests_per_s']:,.0f}" for point in points.values())
            difference = f"{figures['difference']:.0e}" if wish == "cuda" else ""
            lines.append(
                f"| {model} | {wish} | {rates[best]:,.0f} at {best} | {cells} | {engine['profile']['max_batch']} "
                f"| {points['64']['p99_ms']:,.0f} | {difference} |"
            )
    return [
        *lines,
        "",
        "Bound inputs and outputs (`run_with_iobinding`) were no faster than `run` here; the engine measures both when",
        "it loads a model and takes the faster.",
        "",
        "![Requests per second on a device](cuda.png)",
        "",
    ]
