"""How a comparison of the twin is shown: what was run, a row for each policy, a row for each objective; or a document.

Decides words and columns. Their meaning is told in ``docs/how-to/ask-the-twin.md``.
"""

from typing import Any, Final

import msgspec

from nearcast.cli.screen import Cell, TooWide, milliseconds, show_lines, show_prose, show_table, size
from nearcast.twin.compare import Comparison
from nearcast.twin.files import Loaded
from nearcast.twin.story import asked_per_s, events_of, loads_of, measured_of, size_of

COLUMNS: Final = (
    *("policy", ">p50 ms", ">p95", ">p99", ">network mean", ">in target", ">refused", ">lost"),
    *(">WAN/answer", ">use", ">cost/million", ">moved/s", ">undone/s"),
)
NOTHING: Final = "–"


def document(loaded: Loaded, found: Comparison) -> dict[str, Any]:
    """Everything, for programs."""
    stage = found.stage
    return {
        "scenario": loaded.scenario.metadata.name,
        "seed": stage.spec.seed,
        "duration_s": stage.spec.duration_s,
        "warm_up_s": stage.spec.warm_up_s,
        "sites": len(stage.world.sites),
        "requests": len(stage.workload),
        "asked_per_s": asked_per_s(stage),
        "capacity_per_s": stage.world.capacity_per_s,
        "load": float(stage.world.problem.demand_per_s.sum() / stage.world.capacity_per_s),
        "events": list(events_of(stage)),
        "notes": list(loaded.notes),
        "policies": [msgspec.to_builtins(figures) for figures in found.figures],
        "bound": None if found.bound is None else msgspec.to_builtins(found.bound),
    }


def show(loaded: Loaded, found: Comparison, too_wide: TooWide = "fold") -> None:
    """Print what was run, then a row for each policy, then objectives where there are several."""
    stage = found.stage
    show_prose(
        f"{loaded.scenario.metadata.name}: {size_of(stage)}",
        *loads_of(found),
        *([stage.spec.about] if stage.spec.about else []),
        *events_of(stage),
        *measured_of(found),
        "",
    )
    priced = stage.world.price_per_byte > 0 or bool((stage.world.price_per_worker_s > 0).any())
    rows = [*(_row(figures, priced=priced) for figures in found.figures), *_bound_row(found)]
    show_table(COLUMNS, rows, too_wide=too_wide)
    if any(len(figures.by_class) > 1 for figures in found.figures):
        show_lines("")
        rows = [
            (figures.policy, name, f"{of.requests:,}", percent(of.within), *_times(of.answer))
            for figures in found.figures
            for name, of in figures.by_class.items()
        ]
        columns = ("policy", "objective", ">requests", ">in target", ">p50 ms", ">p95", ">p99")
        show_table(columns, rows, too_wide=too_wide)


def _row(figures: Any, *, priced: bool) -> tuple[Cell, ...]:
    return (
        figures.policy,
        *_times(figures.answer),
        milliseconds(figures.network.mean_ms),
        percent(figures.within),
        percent(figures.refused + figures.closed),
        percent(figures.lost),
        size(figures.wan_bytes),
        percent(figures.utilization_mean),
        f"{figures.cost_per_million:,.2f}" if priced else NOTHING,
        percent(figures.moved_mean),
        percent(figures.undone),
    )


def _bound_row(found: Comparison) -> list[tuple[Cell, ...]]:
    bound = found.bound
    if bound is None:
        return []
    times = (milliseconds(bound.p50_ms), milliseconds(bound.p95_ms), milliseconds(bound.p99_ms))
    return [("clairvoyant (bound)", *times, NOTHING, percent(bound.within), *[NOTHING] * 7)]


def _times(times: Any) -> tuple[str, str, str]:
    p50, p95, p99 = ("never" if value is None else milliseconds(value) for value in _percentiles(times))
    return p50, p95, p99


def _percentiles(times: Any) -> tuple[float | None, float | None, float | None]:
    return times.p50_ms, times.p95_ms, times.p99_ms


def percent(share: float) -> str:
    """A share for people; none at all is told from a little."""
    return "0 %" if share == 0 else f"{100 * share:.1f} %" if share >= 0.001 else "<0.1 %"
