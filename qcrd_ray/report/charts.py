"""The five charts of a report, as inline SVG: lines, columns, bars, intervals and boxes.

Colours are variables of the page (Okabe and Ito's palette, one set for light and one for dark).
Every series also has a marker and a dash of its own, so that no reader depends on colour. Each mark
has its numbers as a tooltip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from qcrd_ray.report.axes import BOTTOM, RIGHT, TOP, WIDTH, Axis, Scale, frame, number, percent, svg
from qcrd_ray.report.html import Markup, join, tag

DASHES = (None, "7 4", "2 3", "9 3 2 3", "4 2", "1 4")
_MARKS = {  # paths around (0, 0)
    "square": "M-4-4H4V4H-4Z",
    "triangle": "M0-5L5 4H-5Z",
    "diamond": "M0-5.5L5.5 0L0 5.5L-5.5 0Z",
    "cross": "M-4-4L4 4M4-4L-4 4",
    "plus": "M0-5V5M-5 0H5",
}
MARKERS = ("circle", *_MARKS)
_MARKED = 30  # marks on a line: more would hide it
_BAR, _ROW = 30, 42  # heights of a row of bars, and of intervals with the name above


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line: its name and its points (x, y), in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A measured share with its interval. ``kind`` is the number of its marker and colour."""

    name: str
    kind: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A distribution by its 5th, 25th, 50th, 75th and 95th percentile."""

    name: str
    kind: int
    percentiles: tuple[float, float, float, float, float]


def line_chart(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    reference: tuple[float, str] | None = None,
) -> Markup:
    """Lines with markers. ``reference``: a level to compare with, and its name."""
    drawn, across, up = frame(x, y)
    parts = [drawn]
    for kind, line in enumerate(series):
        path = " ".join(
            f"{'M' if i == 0 else 'L'}{across(a):.1f} {up(b):.1f}"
            for i, (a, b) in enumerate(line.points)
        )
        if path:
            parts.append(tag("path", d=path, class_=f"line c{kind}", stroke_dasharray=DASHES[kind]))
        marked = line.points[:: ceil(len(line.points) / _MARKED)] if line.points else ()
        parts += [
            marker(kind, across(a), up(b), f"{line.name}, {x.label} {x.exact(a)}: {y.exact(b)}")
            for a, b in marked
        ]
    if reference:
        # last, so that its name is not under a line
        parts.append(_reference(y.margin, up(reference[0]), reference[1]))
    return svg(title, description, *parts)


def interval_chart(title: str, description: str, rows: Sequence[Interval], *, label: str) -> Markup:
    """Shares as dots on their intervals, one row each.

    The name stands above its row, so long names fit on a narrow screen.
    """
    height = TOP + _ROW * len(rows) + BOTTOM
    across = Scale(0.0, 1.0, 14, WIDTH - 30)
    parts = []
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(
            tag(
                "line",
                x1=across(value),
                x2=across(value),
                y1=TOP,
                y2=height - BOTTOM,
                class_="grid",
            )
        )
        parts.append(
            tag(
                "text",
                percent(value),
                x=across(value),
                y=height - BOTTOM + 16,
                class_="tick",
                text_anchor="middle",
            )
        )
    for i, row in enumerate(rows):
        y = TOP + _ROW * i + 28
        text = f"{percent(row.value)} ({percent(row.low)} to {percent(row.high)})"
        parts.append(tag("text", row.name, x=across(0.0), y=y - 12, class_="name"))
        parts.append(tag("text", text, x=across(1.0), y=y - 12, class_="tick", text_anchor="end"))
        parts.append(
            tag(
                "line",
                x1=across(row.low),
                x2=across(row.high),
                y1=y,
                y2=y,
                class_=f"line c{row.kind}",
            )
        )
        for end in (row.low, row.high):
            parts.append(
                tag(
                    "line",
                    x1=across(end),
                    x2=across(end),
                    y1=y - 4,
                    y2=y + 4,
                    class_=f"line c{row.kind}",
                )
            )
        parts.append(marker(row.kind, across(row.value), y, f"{row.name}: {text}"))
    parts.append(
        tag("text", label, x=WIDTH / 2, y=height - 6, class_="label", text_anchor="middle")
    )
    return svg(title, description, *parts, height=height)


def column_chart(
    title: str,
    description: str,
    columns: Sequence[tuple[str, Sequence[int]]],
    *,
    parts: Sequence[str],
    x: str,
    y: Axis,
):
    """Stacked columns, each (name, count of each part). The second part is hollow."""
    slots = _slots(len(columns), y.margin)
    drawn, _, up = frame(
        Axis(label=x, ticks=(0, 1)),
        y,
        x_at=[(at, name) for at, (name, _) in zip(slots, columns, strict=True)],
    )
    width = min(36.0, 0.7 * (WIDTH - y.margin - RIGHT) / max(1, len(columns)))
    bars = []
    for at, (name, counts) in zip(slots, columns, strict=True):
        below = 0
        for kind, count in enumerate(counts):
            if count:
                tooltip = tag("title", f"{name}, {parts[kind]}: {number(count)}")
                top, bottom = up(below + count), up(below)
                look = f"bar c{kind}" + (" hollow" if kind == 1 else "")
                bars.append(
                    tag(
                        "rect",
                        tooltip,
                        x=at - width / 2,
                        y=top,
                        width=width,
                        height=bottom - top,
                        class_=look,
                    )
                )
            below += count
    return svg(title, description, drawn, *bars)


def bar_chart(title: str, description: str, bars: Sequence[tuple[str, int, str]]) -> Markup:
    """Horizontal bars, each (name, count, text beside it); the largest has the whole width."""
    height = TOP + (_BAR + 20) * len(bars)
    full = max([count for _, count, _ in bars], default=0) or 1
    across = Scale(0.0, full, 14, WIDTH - RIGHT)
    parts = []
    for i, (name, count, beside) in enumerate(bars):
        y = TOP + (_BAR + 20) * i
        parts.append(tag("text", name, x=14, y=y + 12, class_="name"))
        parts.append(
            tag("text", beside, x=WIDTH - RIGHT, y=y + 12, class_="tick", text_anchor="end")
        )
        parts.append(
            tag("rect", x=14, y=y + 18, width=across(full) - 14, height=_BAR - 12, class_="track")
        )
        tooltip = tag("title", f"{name}: {number(count)}")
        parts.append(
            tag(
                "rect",
                tooltip,
                x=14,
                y=y + 18,
                width=across(count) - 14,
                height=_BAR - 12,
                class_="bar c0",
            )
        )
    return svg(title, description, *parts, height=height)


def box_chart(title: str, description: str, boxes: Sequence[Box], *, x: str, y: Axis) -> Markup:
    """Distributions side by side: whiskers, a box over the middle half, a line at the median."""
    slots = _slots(len(boxes), y.margin)
    drawn, _, up = frame(
        Axis(label=x, ticks=(0, 1)),
        y,
        x_at=[(at, box.name) for at, box in zip(slots, boxes, strict=True)],
    )
    half = min(14.0, 0.3 * (WIDTH - y.margin - RIGHT) / max(1, len(boxes)))
    parts = [drawn]
    for at, box in zip(slots, boxes, strict=True):
        lowest, lower, median, upper, highest = (up(value) for value in box.percentiles)
        tooltip = tag(
            "title",
            f"{box.name}: median {number(box.percentiles[2])}, 5th to 95th percentile"
            f" {_range(box)}",
        )
        parts.append(tag("line", x1=at, x2=at, y1=lowest, y2=highest, class_=f"line c{box.kind}"))
        parts.append(
            tag(
                "rect",
                tooltip,
                x=at - half,
                y=upper,
                width=2 * half,
                height=max(1.0, lower - upper),
                class_=f"box c{box.kind}",
            )
        )
        parts.append(
            tag(
                "line", x1=at - half, x2=at + half, y1=median, y2=median, class_=f"line c{box.kind}"
            )
        )
        parts.append(
            marker(box.kind, at, median, f"{box.name}: median {number(box.percentiles[2])}")
        )
    return svg(title, description, *parts)


def legend(names: Sequence[str], *, lines: bool = True) -> Markup:
    """What each marker (and dash) stands for, as a list beside the chart."""
    items = []
    for kind, name in enumerate(names):
        dash = (
            tag(
                "line",
                x1=0,
                x2=30,
                y1=8,
                y2=8,
                class_=f"line c{kind}",
                stroke_dasharray=DASHES[kind],
            )
            if lines
            else None
        )
        swatch = tag(
            "svg",
            dash,
            marker(kind, 15, 8, None),
            viewBox="0 0 30 16",
            class_="swatch",
            aria_hidden="true",
        )
        items.append(tag("li", swatch, name))
    return tag("ul", *items, class_="legend")


def legend_of_bars(names: Sequence[str]) -> Markup:
    """The same for the parts of columns."""
    items = []
    for kind, name in enumerate(names):
        look = f"bar c{kind}" + (" hollow" if kind == 1 else "")
        swatch = tag(
            "svg",
            tag("rect", x=2, y=2, width=26, height=12, class_=look),
            viewBox="0 0 30 16",
            class_="swatch",
            aria_hidden="true",
        )
        items.append(tag("li", swatch, name))
    return tag("ul", *items, class_="legend")


def marker(kind: int, x: float, y: float, tooltip: str | None) -> Markup:
    """The marker of series ``kind`` at (x, y)."""
    shape = MARKERS[kind % len(MARKERS)]
    title = tag("title", tooltip) if tooltip is not None else None
    if shape == "circle":
        return tag("circle", title, cx=x, cy=y, r=4, class_=f"mark c{kind}")
    open_ = " open" if shape in ("cross", "plus") else ""
    return tag(
        "path",
        title,
        d=_MARKS[shape],
        transform=f"translate({x:.1f} {y:.1f})",
        class_=f"mark c{kind}{open_}",
    )


def _slots(count: int, left: float) -> list[float]:
    """The middles of ``count`` equal slots along the x axis, which begins at ``left``."""
    width = (WIDTH - left - RIGHT) / max(1, count)
    return [left + width * (i + 0.5) for i in range(count)]


def _range(box: Box) -> str:
    return f"{number(box.percentiles[0])} to {number(box.percentiles[4])}"


def _reference(left: float, y: float, name: str) -> Markup:
    line = tag("line", x1=left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="reference")
    return join(
        line, tag("text", name, x=WIDTH - RIGHT, y=y - 5, class_="tick halo", text_anchor="end")
    )
