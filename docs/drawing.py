"""What the charts of figures.py are drawn with: a panel with two sets of colours, lines, words."""

from __future__ import annotations

from html import escape
from itertools import pairwise

WIDTH = 720  # of the view box, in pixels

STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
  .panel { fill: #fbfbfa; stroke: #d9dde1; } .text { fill: #1b1f24; font-size: 17px; }
  .title { fill: #1b1f24; font-size: 19px; font-weight: 600; }
  .muted { fill: #55606b; font-size: 14px; } .number { fill: #1b1f24; font-size: 17px; }
  .code { fill: #55606b; font-size: 13px; font-family: ui-monospace, Menlo, Consolas, monospace; }
  .grid { stroke: #e0e4e8; } .teacher { stroke: #55606b; stroke-dasharray: 5 4; }
  .group { fill: #1b1f24; font-size: 15px; font-weight: 600; }
  .plain { stroke: #55606b; fill: #55606b; } .other { stroke: #0072b2; fill: #0072b2; }
  .ours { stroke: #c65200; fill: #c65200; } .best { stroke: #007d5a; fill: #007d5a; }
  .bar { stroke-width: 3; } .cap { stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    .panel { fill: #14171a; stroke: #363c43; } .text, .title, .number, .group { fill: #e8eaed; }
    .muted, .code { fill: #a4adb7; } .grid { stroke: #2b3036; } .teacher { stroke: #a4adb7; }
    .plain { stroke: #a4adb7; fill: #a4adb7; } .other { stroke: #56b4e9; fill: #56b4e9; }
    .ours { stroke: #f08a3c; fill: #f08a3c; } .best { stroke: #2fc39a; fill: #2fc39a; }
  }
"""
MARKS = {  # shapes around (0, 0): nothing hangs on colour
    "plain": "M-5-5H5V5H-5Z",
    "other": "M-6 0A6 6 0 1 0 6 0A6 6 0 1 0-6 0Z",
    "ours": "M0-8L8 0L0 8L-8 0Z",
    "best": "M0-7L7 6H-7Z",
}


def panel(
    title: str, under: str, height: float, spoken: str, *, unit: str = "Accuracy in percent"
) -> list[str]:
    """How a drawing begins: a frame, two lines of title, and its numbers to be read aloud."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        f"<desc>{unit}: {escape(spoken)}.</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        text(24, 34, title, "title"),
        text(24, 58, under, "muted"),
    ]


def line(look: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A straight line; what it looks like is a class of STYLE."""
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, look: str, anchor: str = "start") -> str:
    """Words that begin, end or have their middle at (x, y)."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{look}" {place}>{escape(words)}</text>'


def curve(at: list[tuple[float, float]], look: str) -> list[str]:
    """Points with their marks, joined by lines."""
    lines = [line(f"bar {look}", *first, *second) for first, second in pairwise(at)]
    mark = f'<path class="{look}" d="{MARKS[look]}"'
    return lines + [f'{mark} transform="translate({a:.1f} {b:.1f})"/>' for a, b in at]
