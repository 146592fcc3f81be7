"""Plots and one page out of raw results, so that a figure can be traced to its run.

One module per part, of the part's name, with two functions: ``plot(result, folder)`` writes the part's plots, and
``section(result)`` gives its lines of the page.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(machine: dict[str, Any], results: Mapping[str, dict[str, Any]], page: Path) -> None:
    """The page, and beside it the plots.

    Args:
        machine: record of the machine.
        results: kept results by part, in the order of the page.
        page: file to write.
    """
    lines = [
        "# Benchmarks",
        "",
        "<!-- written by `make bench` from bench/results/: do not edit -->",
        "",
        "Every figure is a ratio against a peer or a limit that was measured in the same run of its part, interleaved.",
        "`make bench` runs all parts. Raw results: `bench/results/` in the repository.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_mib'] // 1024} GiB, Linux",
        f"{machine['kernel']}, Python {machine['python']}. Commits: {_spoken(machine['commits'])}.",
        "",
    ]
    for name, result in results.items():
        part = importlib.import_module(f"bench.report.{name}")
        part.plot(result, page.parent)
        lines += part.section(result)
    page.write_text("\n".join(lines) + "\n")


def _spoken(commits: Mapping[str, str]) -> str:
    """Each commit with the parts that were measured on it."""
    parts: dict[str, list[str]] = {}
    for part, commit in commits.items():
        parts.setdefault(commit, []).append(part.replace("_", " "))
    return "; ".join(f"{commit} ({', '.join(names)})" for commit, names in parts.items())
