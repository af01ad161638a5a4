"""The geometry of a chart: ticks that cover the data, scales from data to pixels, and the axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qcrd_ray.report.html import Markup, join, tag

# of the view box: small enough that its letters can be read on a telephone
WIDTH, HEIGHT = 400, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 46  # LEFT: the least, see Axis.margin
# room for the label of a y axis, between a tick and the frame, and for a letter of a tick
LABEL, TICK, LETTER = 20, 6, 7


def ticks(low: float, high: float, *, count: int = 5, whole: bool = False) -> list[float]:
    """About ``count`` round values, evenly apart, from at most ``low`` to at least ``high``.

    ``whole``: whole numbers only. Equal ends are widened, so that a scale over the ticks is never
    empty.
    """
    if low == high:
        pad = 1.0 if whole else abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from data [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def number(value: float) -> str:
    """A number without meaningless digits: 1,234 and 0.25 and 0.000123."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float) -> str:
    """0.283 -> "28 %"."""
    return f"{100 * value:.0f} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: its label (with the unit) and its ticks.

    ``share``: its numbers are shares, which are written in percent.
    """

    label: str
    ticks: Sequence[float]
    share: bool = False

    def scale(self, start: float, end: float) -> Scale:
        """The scale from the ticks' range to pixels."""
        return Scale(self.ticks[0], self.ticks[-1], start, end)

    @property
    def margin(self) -> int:
        """Pixels left of the frame that this axis needs.

        They hold its label, then its widest tick, which must not touch the label.
        """
        return max(
            LEFT, LABEL + LETTER * max(len(self.written(tick)) for tick in self.ticks) + TICK
        )

    def written(self, tick: float) -> str:
        """A tick, with as many decimals as the others."""
        if self.share:
            return percent(tick)
        decimals = max(len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in self.ticks)
        return f"{tick:,.{decimals}f}"

    def exact(self, value: float) -> str:
        """A value between the ticks, with more digits."""
        return f"{100 * value:.1f} %" if self.share else number(value)


def axis_over(label: str, values: Iterable[float], *, whole: bool = False) -> Axis:
    """An axis whose ticks cover ``values``; of none, from 0 to 1."""
    values = list(values) or [0.0, 1.0]
    return Axis(
        label=label, ticks=ticks(min(values), max(values), count=8 if whole else 5, whole=whole)
    )


def share_axis(label: str) -> Axis:
    """An axis from 0 to 100 %."""
    return Axis(label=label, ticks=ticks(0.0, 1.0), share=True)


def frame(
    x: Axis, y: Axis, *, height: int = HEIGHT, x_at: Sequence[tuple[float, str]] | None = None
) -> tuple[Markup, Scale, Scale]:
    """Grid, ticks and labels of both axes, with the two scales.

    ``x_at``: ticks given as (pixel, text), for categories.
    """
    left = y.margin
    across, up = x.scale(left, WIDTH - RIGHT), y.scale(height - BOTTOM, TOP)
    drawn = [y_axis(y, up)]
    for at, text in (
        x_at if x_at is not None else [(across(value), x.written(value)) for value in x.ticks]
    ):
        drawn.append(
            tag("text", text, x=at, y=height - BOTTOM + 16, class_="tick", text_anchor="middle")
        )
    drawn.append(
        tag(
            "line", x1=left, x2=WIDTH - RIGHT, y1=height - BOTTOM, y2=height - BOTTOM, class_="axis"
        )
    )
    drawn.append(
        tag(
            "text",
            x.label,
            x=(left + WIDTH - RIGHT) / 2,
            y=height - 6,
            class_="label",
            text_anchor="middle",
        )
    )
    return join(*drawn), across, up


def y_axis(y: Axis, up: Scale) -> Markup:
    """The grid lines of ``y``, their values and the label beside them."""
    drawn = []
    for value in y.ticks:
        drawn.append(
            tag("line", x1=y.margin, x2=WIDTH - RIGHT, y1=up(value), y2=up(value), class_="grid")
        )
        drawn.append(
            tag(
                "text",
                y.written(value),
                x=y.margin - TICK,
                y=up(value) + 4,
                class_="tick",
                text_anchor="end",
            )
        )
    middle = (up(y.ticks[0]) + up(y.ticks[-1])) / 2
    drawn.append(
        tag(
            "text",
            y.label,
            x=13,
            y=middle,
            class_="label",
            text_anchor="middle",
            transform=f"rotate(-90 13 {middle:.0f})",
        )
    )
    return join(*drawn)


def svg(title: str, description: str, *children: Markup, height: int = HEIGHT) -> Markup:
    """A drawing that a screen reader announces by its title and description."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *children,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=f"{title}. {description}",
        xmlns="http://www.w3.org/2000/svg",
    )
