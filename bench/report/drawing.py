"""What the plots share: colours, a frame, one way to write a file."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS: Final = ("#8a8f98", "#1f6feb", "#2da44e", "#bf8700", "#cf222e", "#8250df", "#0a7ea4", "#d4579b", "#57606a")


def bare(axes: Any) -> None:
    """Without the lines on top and at the right."""
    axes.spines[["top", "right"]].set_visible(False)


def finish(figure: Any, axes: Any, title: str, unit: str, path: Path) -> None:
    """Title, unit and legend of a figure with one panel, written to ``path``."""
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(unit)
    bare(axes)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def save(figure: Any, path: Path, *, tight: bool = True) -> None:
    """The figure as a file; `tight` unless it was laid out already."""
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def shared(result: dict[str, Any]) -> list[str]:
    """A warning where others used the machine: then a figure says little, and a ratio not much more."""
    load, cores = max(result["load_average"]), result["cores"]
    if load <= 1.5 * cores:
        return []
    return [
        f"**Others used the machine during this run** (load average {load:.1f} on {cores} cores): these figures are",
        "not fit for comparison. Run `make bench` on a machine that does nothing else.",
        "",
    ]
