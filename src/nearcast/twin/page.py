"""A comparison as one self-contained page: tables and SVG plots, for light and dark screens. No scripts, no fonts.

Decides what is shown, in which order and colour. The figures are those of `measures`; nothing is computed here.
"""

from collections.abc import Callable, Sequence
from html import escape
from string import Template
from typing import Final

from nearcast.twin.compare import Comparison
from nearcast.twin.files import Loaded
from nearcast.twin.measures import Curves, Figures
from nearcast.twin.names import NAMES
from nearcast.twin.story import events_of, loads_of, measured_of
from nearcast.twin.style import STYLE
from nearcast.twin.svg import Band, Dot, Series, bars, legend, lines, world_map

_PAGE: Final = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>$style</style></head>
<body><main>
<header><p class="kind">nearcast · digital twin</p><h1>$name</h1><p class="about">$about</p>$facts$notes</header>
$sections
<footer>Made by <code>nearcast twin run</code>. The same scenario, seed and version give the same figures.
Times begin at the gateway where a request enters.</footer>
</main></body></html>
"""
)


def page(loaded: Loaded, found: Comparison) -> str:
    """The page, as HTML text."""
    name = loaded.scenario.metadata.name
    sections = [
        _section("Policies over the same requests", _table(found), _READING),
        _section("Time to answer", _answers(found), "Share of the answers within a time. To the left is better."),
        _section("Within the objective", _objectives(found), "Share of all requests that was answered in its target."),
        _section("Traffic and cost", _traffic(found), "Traffic between sites per request; cost of a million answers."),
        _section("The story", _story(found), "By slices of five seconds; what was broken is shaded."),
        _section("Where work is done", _maps(found), "One dot per site: area by workers, colour by use, cold to hot."),
    ]
    return _PAGE.substitute(
        title=escape(f"{name}: digital twin"),
        style=STYLE,
        name=escape(name),
        about=escape(found.stage.spec.about),
        facts=_facts(found),
        notes="".join(
            f'<p class="note">{escape(note)}</p>'
            for note in (*loads_of(found), *events_of(found.stage), *measured_of(found), *loaded.notes)
        ),
        sections="\n".join(section for section in sections if section),
    )


_READING: Final = (
    "Percentiles are over all requests: one that was refused or lost is never answered, and outside its target. "
    "The bound is what no policy can beat, whatever it knows."
)


def _section(title: str, body: str, reading: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="reading">{escape(reading)}</p>{body}</section>' if body else ""


def _facts(found: Comparison) -> str:
    stage = found.stage
    facts = {
        "sites": f"{len(stage.world.sites):,}",
        "models": f"{len(stage.world.models)}",
        "requests": f"{len(stage.workload):,}",
        "simulated": f"{stage.spec.duration_s:g} s",
        "telemetry": f"{stage.spec.telemetry.age_s:g} s old",
        "seed": f"{stage.spec.seed}",
    }
    return '<dl class="facts">' + "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()) + "</dl>"


def colour_of(policy: str) -> int:
    """The number of a policy's colour: the same on every page."""
    known = policy.partition(",")[0]
    return NAMES.index(known) + (1 if policy != known and policy.endswith("changed") else 0)


def _table(found: Comparison) -> str:
    head: tuple[str, ...] = (
        "policy",
        "p50",
        "p95",
        "p99",
        "network mean",
        "in target",
        "refused",
        "lost",
        "WAN/answer",
        "cost/million",
    )
    head += ("use", "moved/s", "undone/s")
    cells = [_cells(one) for one in found.figures]
    best = [_best(index, found.figures) for index in range(1, len(head))]
    rows = []
    for one, texts in zip(found.figures, cells, strict=True):
        marks = ["", *(" best" if one.policy in names else "" for names in best)]
        inner = "".join(f'<td class="{mark.strip()}">{text}</td>' for text, mark in zip(texts, marks, strict=True))
        rows.append(f"<tr>{inner}</tr>")
    if found.bound is not None:
        bound = found.bound
        texts = ["clairvoyant (bound)", *(_ms(t) for t in (bound.p50_ms, bound.p95_ms, bound.p99_ms)), ""]
        texts += [_percent(bound.within), *[""] * (len(head) - 6)]
        rows.append('<tr class="bound">' + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    header = "".join(f"<th>{name}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cells(one: Figures) -> list[str]:
    answer = one.answer
    return [
        f'<span class="key c{colour_of(one.policy)}">{escape(one.policy)}</span>',
        *(_ms(time) for time in (answer.p50_ms, answer.p95_ms, answer.p99_ms, one.network.mean_ms)),
        *(_percent(share) for share in (one.within, one.refused + one.closed, one.lost)),
        _bytes(one.wan_bytes),
        f"{one.cost_per_million:.2f}",
        *(_percent(share) for share in (one.utilization_mean, one.moved_mean, one.undone)),
    ]


def _best(column: int, figures: Sequence[Figures]) -> set[str]:
    """The policies that are best in a column of the table."""
    keys: dict[int, Callable[[Figures], float]] = {
        1: lambda one: _or_never(one.answer.p50_ms),
        2: lambda one: _or_never(one.answer.p95_ms),
        3: lambda one: _or_never(one.answer.p99_ms),
        4: lambda one: one.network.mean_ms,
        5: lambda one: -one.within,
        8: lambda one: one.wan_bytes,
        9: lambda one: one.cost_per_million,
    }
    if column not in keys or len(figures) < 2:
        return set()
    least = min(keys[column](one) for one in figures)
    return {one.policy for one in figures if keys[column](one) <= least + abs(least) * 5e-3}


def _answers(found: Comparison) -> str:
    parts = {one.policy: one.answered / max(1, one.requests) for one in found.figures}
    drawn = [
        Series(
            one.policy,
            colour_of(one.policy),
            one.quantiles_ms,
            [parts[one.policy] * n / (len(one.quantiles_ms) - 1) for n in _each(one)],
        )
        for one in found.curves
        if one.quantiles_ms
    ]
    plot = lines(drawn, x_name="milliseconds", y_name="share of requests", log_x=True, y_range=(0.0, 1.0), height=340)
    return plot + legend({one.name: one.colour for one in drawn}) if plot else ""


def _each(one: Curves) -> range:
    return range(len(one.quantiles_ms))


def _objectives(found: Comparison) -> str:
    parts = []
    for objective in dict.fromkeys(name for one in found.figures for name in one.by_class):
        rows = [
            (
                one.policy,
                colour_of(one.policy),
                one.by_class[objective].within,
                _percent(one.by_class[objective].within),
            )
            for one in found.figures
        ]
        parts.append(f"<h3>{escape(objective)}</h3>{bars(rows, name=f'within the objective, {objective}', most=1.0)}")
    return "".join(parts)


def _traffic(found: Comparison) -> str:
    wan = [(one.policy, colour_of(one.policy), one.wan_bytes, _bytes(one.wan_bytes)) for one in found.figures]
    cost = [
        (one.policy, colour_of(one.policy), one.cost_per_million, f"{one.cost_per_million:.2f}")
        for one in found.figures
    ]
    return f"<h3>Bytes between sites</h3>{bars(wan, name='traffic')}<h3>Cost</h3>{bars(cost, name='cost')}"


def _story(found: Comparison) -> str:
    outages = found.stage.outages
    bands = [Band(one.from_s, one.until_s, "sites are lost") for one in outages.outages]
    bands += [Band(one.from_s, one.until_s, "ways are cut") for one in outages.cuts]
    bands += [
        Band(crowd.at_s, crowd.at_s + crowd.lasts_s, f"a crowd: {crowd.times:g} times as much")
        for crowd in found.stage.spec.demand.crowds
    ]
    within = [Series(one.policy, colour_of(one.policy), one.at_s, one.within) for one in found.curves]
    p95 = [Series(one.policy, colour_of(one.policy), one.at_s, one.p95_ms) for one in found.curves]
    plots = [
        lines(within, x_name="seconds", y_name="in target", y_range=(0.0, 1.0), height=240, bands=bands),
        lines(p95, x_name="seconds", y_name="p95, ms", log_y=True, height=240, bands=bands),
    ]
    if not all(plots):
        return ""
    return "".join(plots) + legend({one.name: one.colour for one in within})


def _maps(found: Comparison) -> str:
    """One map per policy behind tabs, which need no script."""
    world = found.stage.world
    tabs, panes = [], []
    for index, one in enumerate(found.curves):
        dots = [
            Dot(site.latitude, site.longitude, use, float(workers), site.facts.name)
            for site, use, workers in zip(world.sites, one.utilization, world.problem.workers, strict=True)
        ]
        mark = " checked" if index == 0 else ""
        tabs.append(
            f'<input type="radio" name="map" id="map{index}"{mark}><label for="map{index}">{escape(one.policy)}</label>'
        )
        panes.append(f'<div class="pane pane{index}">{world_map(dots)}</div>')
    return f'<div class="tabs">{"".join(tabs)}{"".join(panes)}</div>' if tabs else ""


def _or_never(value: float | None) -> float:
    return float("inf") if value is None else value


def _ms(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
