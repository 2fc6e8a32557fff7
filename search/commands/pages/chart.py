"""Lines in a chart, laid out for an inline SVG that `templates/chart.html` draws.

Each line has its name beside one of its ends, so no legend has to be matched by colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# Colours and dashes of lines that the style of a page has; more lines cannot be told apart.
MOST_LINES = 8

# Pixels: around the plot, between two names, and the average width of a letter of theirs.
_TOP, _BOTTOM, _AXIS, _EDGE = 12, 46, 46, 12
_BETWEEN_NAMES = 17
_LETTER = 7.2
_LEADER = 18


@dataclass(frozen=True)
class Chart:
    """lines: points (x, y) of each name, in order; y is a fraction, and all start and end at the
    same x. names_at: the end of the lines at which they differ most. logarithmic: the x axis is.
    """

    title: str
    x_label: str
    lines: dict[str, list[tuple[float, float]]]
    x_ticks: Sequence[float]
    names_at: Literal["start", "end"] = "end"
    logarithmic: bool = False
    x_in_percent: bool = False


@dataclass(frozen=True)
class Name:
    """A name beside its line. y: of its middle. leader: points from the line's end to the name."""

    text: str
    x: float
    y: float
    leader: str


@dataclass(frozen=True)
class Plot:
    """A chart in pixels. left, right, top, bottom: of the plot. x_ticks, y_ticks: place and text.
    lines: the points of each. names: in the order of the lines. anchor: the SVG text anchor of
    names; that of the texts of the y axis is the other. axis_x: where the latter stand.
    """

    chart: Chart
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[str]
    names: list[Name]
    anchor: str
    axis_anchor: str
    axis_x: float


def plot(chart: Chart, width: int, height: int, numbered: bool = False) -> Plot:
    """Lay a chart out in width x height pixels. numbered: numbers from 1 stand for the names, for
    which a narrow screen has no room.
    """
    texts = [str(n) if numbered else name for n, name in enumerate(chart.lines, start=1)]
    room = _LEADER + 6 + _LETTER * max(map(len, texts))
    at_end = chart.names_at == "end"
    left, right = (_AXIS, width - room) if at_end else (room, width - _AXIS)
    top, bottom = float(_TOP), float(height - _BOTTOM)
    ends = [points[-1 if at_end else 0][0] for points in chart.lines.values()]
    other = [points[0 if at_end else -1][0] for points in chart.lines.values()]
    low, high = (min(other), max(ends)) if at_end else (min(ends), max(other))

    def across(x: float) -> float:
        place = [math.log(v) if chart.logarithmic else v for v in (x, low, high)]
        return left + (right - left) * (place[0] - place[1]) / ((place[2] - place[1]) or 1.0)

    def down(y: float) -> float:
        return bottom - (bottom - top) * y

    drawn = [[(across(x), down(y)) for x, y in points] for points in chart.lines.values()]
    side = 1 if at_end else -1
    tips = [points[-1 if at_end else 0] for points in drawn]
    names = [
        Name(
            *(text, x + side * (_LEADER + 4), y),
            leader=_points([(x, tip), (x + side * _LEADER / 2, y), (x + side * _LEADER, y)]),
        )
        for text, (x, tip), y in zip(
            texts, tips, _apart([y for _, y in tips], top, bottom), strict=True
        )
    ]
    ticks = [tick for tick in chart.x_ticks if low <= tick <= high]
    return Plot(
        *(chart, width, height, left, right, top, bottom),
        x_ticks=[
            (across(tick), f"{100 * tick:.0f} %" if chart.x_in_percent else f"{tick:g}")
            for tick in ticks
        ],
        y_ticks=[(down(tick / 5), f"{20 * tick} %") for tick in range(6)],
        lines=[_points(points) for points in drawn],
        names=names,
        anchor="start" if at_end else "end",
        axis_anchor="end" if at_end else "start",
        axis_x=left - 6 if at_end else right + 6,
    )


def _points(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _apart(wanted: list[float], top: float, bottom: float) -> list[float]:
    """Places near the wanted ones, from top to bottom, at which names do not overlap."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    placed = dict.fromkeys(order, 0.0)
    last = top - _BETWEEN_NAMES
    for number in order:
        last = placed[number] = max(wanted[number], last + _BETWEEN_NAMES)
    last = bottom + _BETWEEN_NAMES
    for number in reversed(order):
        last = placed[number] = min(placed[number], last - _BETWEEN_NAMES)
    return [placed[number] for number in range(len(wanted))]
