"""Plots as SVG text, by hand: lines, bars and dots on a map. Colours and fonts come from the page's style sheet.

Decides scales, ticks and places of labels. Every mark carries a title, which browsers show under the pointer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 40
DECADES: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one line. ``colour`` is the number of a colour of the style sheet."""

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A time in which something was broken."""

    from_x: float
    to_x: float
    name: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to pixels, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of ``value``, held within the plot."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        spot = math.log(max(value, 1e-12)) if self.log else value
        part = 0.0 if high <= low else min(1.0, max(0.0, (spot - low) / (high - low)))
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the scale, some five of them."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = DECADES if last - first <= 3 else (1,)
            found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
            return [value for value in found if self.low <= value <= self.high * 1.0001]
        rough = (self.high - self.low) / 5 or 1.0
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        first_tick = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first_tick, int(self.high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Series],
    *,
    x_name: str,
    y_name: str,
    height: int = 300,
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    bands: Sequence[Band] = (),
) -> str:
    """Lines over common axes; empty text where there is nothing to draw."""
    drawn = [one for one in series if len(one.x) > 1]
    if not drawn:
        return ""
    low_x, high_x = x_range or _extent([value for one in drawn for value in one.x], log_x)
    low_y, high_y = y_range or _extent([value for one in drawn for value in one.y], log_y)
    x = Scale(low_x, high_x, LEFT, WIDTH - RIGHT, log_x)
    y = Scale(low_y, high_y, height - BOTTOM, TOP, log_y)
    parts = [_band(band, x, height) for band in bands]
    parts += _axes(x, y, height, x_name, y_name)
    for one in reversed(drawn):  # the first lies on top
        points = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in zip(one.x, one.y, strict=True))
        style = f"line c{one.colour}" + (" dashed" if one.dashed else "") + (" main" if one is drawn[0] else "")
        parts.append(f'<polyline class="{style}" points="{points}"><title>{escape(one.name)}</title></polyline>')
    return _svg(height, parts, f"{y_name} over {x_name}")


def bars(rows: Sequence[tuple[str, int, float, str]], *, name: str, most: float | None = None) -> str:
    """Bars across: (label, colour, value, text at its end) from top to bottom."""
    if not rows:
        return ""
    row_height, left = 26, 150
    height = len(rows) * row_height + 8
    top = most or max(value for _, _, value, _ in rows) or 1.0
    x = Scale(0.0, top, left, WIDTH - 96)
    parts = []
    for index, (label, colour, value, text) in enumerate(rows):
        y = 4 + index * row_height
        width = max(1.0, x.at(value) - left)
        parts.append(
            f'<text class="label" x="{left - 8}" y="{y + 17}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="bar c{colour}" x="{left}" y="{y + 4}" width="{width:.1f}" height="{row_height - 8}" rx="3">'
            f"<title>{escape(label)}: {escape(text)}</title></rect>"
            f'<text class="value" x="{left + width + 6:.1f}" y="{y + 17}">{escape(text)}</text>'
        )
    return _svg(height, parts, name)


@dataclass(frozen=True, slots=True)
class Dot:
    """One site on the map: ``heat`` from 0 to 1 is its colour, ``size`` its area."""

    latitude: float
    longitude: float
    heat: float
    size: float
    name: str


def world_map(dots: Sequence[Dot]) -> str:
    """Sites by latitude and longitude (equirectangular), cut to where they are."""
    if not dots:
        return ""
    west, east = _margin([dot.longitude for dot in dots], 15.0, -180.0, 180.0)
    south, north = _margin([dot.latitude for dot in dots], 8.0, -60.0, 80.0)
    height = round(min(420, max(200, (WIDTH - 2) * (north - south) / (east - west))))
    x, y = Scale(west, east, 1, WIDTH - 1), Scale(south, north, height - 1, 1)
    parts = [f'<rect class="sea" x="0" y="0" width="{WIDTH}" height="{height}" rx="6"/>']
    for degrees in range(-180, 181, 30):
        if west < degrees < east:
            parts.append(f'<path class="grid" d="M{x.at(degrees):.1f} 0V{height}"/>')
        if south < degrees < north:
            parts.append(f'<path class="grid" d="M0 {y.at(degrees):.1f}H{WIDTH}"/>')
    largest = max(dot.size for dot in dots) or 1.0
    for dot in sorted(dots, key=lambda dot: -dot.size):
        radius = 4 + 10 * math.sqrt(dot.size / largest)
        hue = f"--heat:{min(1.0, max(0.0, dot.heat)):.3f}"
        parts.append(
            f'<circle class="dot" style="{hue}" cx="{x.at(dot.longitude):.1f}" cy="{y.at(dot.latitude):.1f}" '
            f'r="{radius:.1f}"><title>{escape(dot.name)}: {100 * dot.heat:.0f} % in use</title></circle>'
        )
    return _svg(height, parts, "sites by latitude and longitude")


def number(value: float) -> str:
    """A tick in few characters."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}"


def legend(names: Mapping[str, int]) -> str:
    """Names with their colours, as a line of HTML."""
    return (
        '<p class="legend">' + " ".join(f'<span class="key c{c}">{escape(n)}</span>' for n, c in names.items()) + "</p>"
    )


def _extent(values: Sequence[float], log: bool) -> tuple[float, float]:
    if log:
        above = [value for value in values if value > 0]
        low, high = (min(above), max(above)) if above else (1.0, 10.0)
        return low / 1.1, max(high * 1.1, low * 1.5)
    high = max(values)
    return min(0.0, *values), high * 1.05 if high > 0 else 1.0


def _margin(values: Sequence[float], pad: float, least: float, most: float) -> tuple[float, float]:
    low, high = max(least, min(values) - pad), min(most, max(values) + pad)
    return (low, high) if high > low else (least, most)


def _axes(x: Scale, y: Scale, height: int, x_name: str, y_name: str) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x.at(value)
        parts.append(
            f'<path class="grid" d="M{at:.1f} {TOP}V{height - BOTTOM}"/>'
            f'<text class="tick" x="{at:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{number(value)}</text>'
        )
    for value in y.ticks():
        at = y.at(value)
        parts.append(
            f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number(value)}</text>'
        )
    middle = (TOP + height - BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 6}" text-anchor="middle">{escape(x_name)}'
        f'</text><text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text>"
    )
    return parts


def _band(band: Band, x: Scale, height: int) -> str:
    start, end = x.at(band.from_x), x.at(band.to_x)
    return (
        f'<rect class="band" x="{start:.1f}" y="{TOP}" width="{max(1.0, end - start):.1f}" '
        f'height="{height - TOP - BOTTOM}"><title>{escape(band.name)}</title></rect>'
    )


def _svg(height: int, parts: Sequence[str], name: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name, quote=True)}">{"".join(parts)}</svg>'
    )
