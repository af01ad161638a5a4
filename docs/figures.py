"""python docs/figures.py        draws docs/images/*.svg from jobs/recipes/results/*.json.

Plain Python without any package. The drawing brings its own panel and two sets of colours, so that
it can be read on a light page and on a dark one. The same results give the same file, byte for
byte: tests/unit/documents/test_figures.py holds the kept pictures to that. (The charts of a run's
report are drawn by qcrd_ray/report/charts.py; they take their colours and letters from its page.)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "jobs" / "recipes" / "results"
IMAGES = ROOT / "docs" / "images"

WIDTH, TOP, ROW, GROUP, BOTTOM = 720, 78, 46, 38, 92  # of the view box, in pixels
LEFT, RIGHT = 316, 640  # where the accuracy axis begins and ends; the numbers stand right of it
LOW, HIGH, STEP = 48, 66, 4  # the axis, in percent

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
  .bar { stroke-width: 3; }
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


class Row(NamedTuple):
    """One line of the chart: words, the method's name in a recipe, its look and its numbers."""

    words: str
    method: str
    look: str
    accuracy: float
    low: float
    high: float


def headline(results: dict[str, Any]) -> str:
    """The chart of accuracies by the rationale head, as SVG.

    Args:
        results: what `qcrd compare` wrote, by the stem of its file; "ladder" and "positives" are
            read.
    """
    ladder, positives = results["ladder"], results["positives"]
    base, teacher = _baseline(ladder, "student base"), _baseline(ladder, "teacher, one sample")
    seeds, questions = ladder["seeds"], teacher["total"]
    groups = [
        ("", [Row("before training", "base", "plain", *_interval(base, "accuracy"))]),
        (
            "the paper's loss weights",
            [
                _row(ladder, "Distilling Step-by-Step", "dss", "other"),
                _row(ladder, "+ several voted rationales", "dss_voted", "other"),
                _row(ladder, "+ negatives", "qcrd_no_discriminator", "other"),
                _row(ladder, "QCRD: + discriminator", "qcrd", "ours"),
            ],
        ),
        (
            "loss weights tuned on other questions",
            [
                _row(positives, "Distilling Step-by-Step", "dss_explain", "other"),
                _row(positives, "+ several voted rationales", "dss_voted_explain", "other"),
                _row(positives, "all right rationales in each step", "right_mean_explain", "best"),
            ],
        ),
    ]
    title = "How often the student's reasoning ends in the right answer"
    under = f"{questions:,} new questions, {seeds} seeds. Dashed: one sample of the teacher, "
    under += f"{100 * teacher['accuracy']:.1f} %"
    notes = (
        "Bars: 95 % intervals over questions and seeds. Methods are compared in pairs, question by",
        "question; these differences and their tests are in jobs/recipes/RESULTS.md.",
    )
    height = TOP + sum(GROUP * bool(name) + ROW * len(rows) for name, rows in groups) + BOTTOM
    floor = height - BOTTOM
    spoken = ", ".join(
        f"{row.words} ({row.method}) {row.accuracy:.1f}" for _, s in groups for row in s
    )
    drawn = _panel(title, under, height, spoken)
    for tick in range(LOW, HIGH + 1, STEP):
        drawn.append(_line("grid", _x(tick), TOP, _x(tick), floor))
        drawn.append(_text(_x(tick), floor + 20, f"{tick} %", "muted", "middle"))
    drawn.append(
        _line("teacher", _x(100 * teacher["accuracy"]), TOP, _x(100 * teacher["accuracy"]), floor)
    )
    y = TOP
    for name, rows in groups:
        if name:
            drawn.append(_text(24, y + 24, name, "group"))
            y += GROUP
        for row in rows:
            drawn += _drawn(row, y)
            y += ROW
    drawn += [_text(24, floor + 50 + 20 * i, note, "muted") for i, note in enumerate(notes)]
    return "\n".join([*drawn, "</svg>", ""])


def _row(results: dict[str, Any], words: str, method: str, look: str) -> Row:
    found = [
        each
        for each in results["measured"]
        if (each["split"], each["head"]) == ("test", "rationale")
    ]
    return Row(words, method, look, *_interval(found[0]["means"][method], "mean"))


def _interval(measured: dict[str, float], middle: str) -> tuple[float, float, float]:
    """(accuracy, low, high) in percent."""
    return 100 * measured[middle], 100 * measured["low"], 100 * measured["high"]


def _baseline(results: dict[str, Any], name: str) -> dict[str, Any]:
    """The teacher's or the base's own accuracy on the test questions, by its rationale."""
    return next(
        each
        for each in results["baselines"]
        if each["name"] == name and each["split"] == "test" and each["head"] != "label"
    )


def _drawn(row: Row, y: float) -> list[str]:
    middle = y + 16
    return [
        _text(24, y + 16, row.words, "text"),
        _text(24, y + 34, row.method, "code"),
        _line(f"bar {row.look}", _x(row.low), middle, _x(row.high), middle),
        f'<path class="{row.look}" d="{MARKS[row.look]}"'
        f' transform="translate({_x(row.accuracy):.1f} {middle})"/>',
        _text(WIDTH - 24, middle + 6, f"{row.accuracy:.1f} %", "number", "end"),
    ]


def _x(percent: float) -> float:
    return LEFT + (percent - LOW) / (HIGH - LOW) * (RIGHT - LEFT)


def _panel(
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
        _text(24, 34, title, "title"),
        _text(24, 58, under, "muted"),
    ]


def _line(look: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{look}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, look: str, anchor: str = "start") -> str:
    return (
        f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


# --- Accuracy against what an answer costs ---

PLOT_TOP, PLOT_FLOOR, PLOT_LEFT, PLOT_RIGHT = 84, 404, 64, 470
LEAST, MOST = 1.5, 420  # tokens, on a logarithmic axis


class Point(NamedTuple):
    """One way to get an answer: words, its look, its tokens a question and its accuracy."""

    words: str
    look: str
    tokens: float
    accuracy: float
    low: float
    high: float


def cost(results: dict[str, Any]) -> str:
    """The chart of accuracy against generated tokens, as SVG.

    Args:
        results: what `qcrd compare` wrote, by the stem of its file; "confirmed" is read.
    """
    confirmed = results["confirmed"]
    (votes,) = [part for part in confirmed["votes"] if part["split"] == "test"]
    points = [
        Point(words, look, mean["tokens"], *_interval(mean, "mean"))
        for words, look, row in COST_ROWS
        for mean in [votes["means"][row]]
    ]
    points += [
        Point(words, look, row["tokens"], *_interval(row, "accuracy"))
        for words, look, name in TEACHER_ROWS
        for row in [_baseline(confirmed, name)]
    ]
    some = next(iter(votes["means"].values()))
    low = 5 * int(min(point.low for point in points) // 5)
    high = 5 * int(max(point.high for point in points) // 5 + 1)

    def x(tokens: float) -> float:
        share = log(tokens / LEAST) / log(MOST / LEAST)
        return PLOT_LEFT + share * (PLOT_RIGHT - PLOT_LEFT)

    def y(percent: float) -> float:
        return PLOT_FLOOR - (percent - low) / (high - low) * (PLOT_FLOOR - PLOT_TOP)

    title = "What a right answer costs"
    under = (
        f"{some['questions']:,} new questions, {some['seeds']} seeds, a student of 0.8 M weights"
    )
    height = PLOT_FLOOR + 84
    spoken = ", ".join(f"{p.words} {p.accuracy:.1f} at {p.tokens:.0f} tokens" for p in points)
    drawn = _panel(title, under, height, spoken)
    for percent in range(low, high + 1, 5):
        drawn.append(_line("grid", PLOT_LEFT, y(percent), PLOT_RIGHT, y(percent)))
        drawn.append(_text(PLOT_LEFT - 10, y(percent) + 5, f"{percent}", "muted", "end"))
    for tokens in (2, 10, 50, 250):
        drawn.append(_line("grid", x(tokens), PLOT_TOP, x(tokens), PLOT_FLOOR))
        drawn.append(_text(x(tokens), PLOT_FLOOR + 22, f"{tokens}", "muted", "middle"))
    notes = (
        "across: tokens generated for a question, logarithmic",
        "up: right answers, %, with 95 % intervals over questions and seeds",
    )
    drawn += [
        _text(PLOT_LEFT, PLOT_FLOOR + 46 + 20 * i, note, "muted") for i, note in enumerate(notes)
    ]
    labelled: list[tuple[float, float]] = []
    for number, point in enumerate(points, 1):
        at = (x(point.tokens), y(point.accuracy))
        crowded = any(abs(at[0] - a) < 30 and abs(at[1] - b) < 16 for a, b in labelled)
        labelled.append(at)
        drawn += _plotted(number, point, at[0], y, on_left=crowded)
        key = f"{number}  {point.words} {point.accuracy:.1f}"
        drawn.append(_text(PLOT_RIGHT + 24, PLOT_TOP + 27 * number - 19, key, "muted"))
    return "\n".join([*drawn, "</svg>", ""])


COST_ROWS = (
    ("finetuned label", "plain", "finetune/label"),
    ("Step-by-Step", "other", "dss_explain/rationale"),
    ("voted rationales", "other", "dss_voted_explain/rationale"),
    ("right rationales", "other", "right_mean_explain/rationale"),
    ("right, vote of 8", "other", "right_mean_explain/vote of 8"),
    ("right, judged, no sums", "best", "right_mean_explain/judged vote of 8 (no calculator)"),
    ("right, judged vote", "best", "right_mean_explain/judged vote of 8"),
)
TEACHER_ROWS = (
    ("teacher, one sample", "plain", "teacher, one sample"),
    ("teacher, vote of 5", "plain", "teacher, voted"),
)


def _plotted(
    number: int, point: Point, x: float, y: Callable[[float], float], *, on_left: bool
) -> list[str]:
    """A point with its interval and its number, on its left where the right is taken."""
    return [
        _line(f"bar {point.look}", x, y(point.low), x, y(point.high)),
        f'<path class="{point.look}" d="{MARKS[point.look]}"'
        f' transform="translate({x:.1f} {y(point.accuracy):.1f})"/>',
        _text(
            x - 11 if on_left else x + 11,
            y(point.accuracy) + 5,
            str(number),
            "text",
            "end" if on_left else "start",
        ),
    ]


# --- What an endpoint bears ---


def load(results: dict[str, Any]) -> str:
    """The chart of answers a second against callers, as SVG, with the waiting times below.

    Args:
        results: "bench/endpoint_load" is read: the steps of `jobs/load_endpoint.py`, before and
            after a change.
    """
    before, after = results["bench/endpoint_load"]["runs"]
    callers = [step["callers"] for step in after["steps"]]
    most = 20 * int(max(step["answers_per_s"] for step in after["steps"]) // 20 + 1)
    left, right, floor = 176, WIDTH - 40, 300

    def x(place: int) -> float:
        return left + place * (right - left) / (len(callers) - 1)

    def y(rate: float) -> float:
        return floor - rate / most * (floor - PLOT_TOP)

    spoken = ", ".join(
        f"{step['callers']} callers {step['answers_per_s']:.0f}" for step in after["steps"]
    )
    title, under = "Answers a second, by callers at once", "One core for callers, server and model"
    drawn = _panel(title, under, floor + 150, spoken, unit="Answers a second")
    for rate in range(0, most + 1, 20):
        drawn.append(_line("grid", left, y(rate), right, y(rate)))
        drawn.append(_text(left - 12, y(rate) + 5, f"{rate}", "muted", "end"))
    for run, look in ((before, "plain"), (after, "best")):
        at = [(x(i), y(step["answers_per_s"])) for i, step in enumerate(run["steps"])]
        drawn += [_line(f"bar {look}", *first, *second) for first, second in pairwise(at)]
        drawn += [
            f'<path class="{look}" d="{MARKS[look]}" transform="translate({a:.1f} {b:.1f})"/>'
            for a, b in at
        ]
    labelled = (
        y(before["steps"][4]["answers_per_s"]) + 5,
        y(after["steps"][5]["answers_per_s"]) - 24,
    )
    drawn.append(_text(x(4) - 14, labelled[0], before["name"], "muted", "end"))
    drawn.append(_text(x(5), labelled[1], after["name"], "muted", "end"))
    rows = [("callers", [f"{count}" for count in callers])]
    for words, key in (("median, s", "p50_ms"), ("99 %, s", "p99_ms")):
        rows.append((words, [f"{step[key] / 1000:.2f}" for step in after["steps"]]))
    rows.append(("/healthz 99 %, s", [f"{s['healthz_p99_ms'] / 1000:.2f}" for s in after["steps"]]))
    for line, (words, values) in enumerate(rows):
        drawn.append(_text(24, floor + 30 + 28 * line, words, "muted"))
        drawn += [
            _text(x(i), floor + 30 + 28 * line, value, "number", "middle")
            for i, value in enumerate(values)
        ]
    return "\n".join([*drawn, "</svg>", ""])


def read(folder: Path = RESULTS) -> dict[str, Any]:
    """The kept results, by the stem of their file; those of measurements as "bench/<stem>"."""
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    files |= {f"bench/{file.stem}": file for file in sorted(folder.glob("bench/*.json"))}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


CHARTS = {"headline": headline, "cost": cost, "load": load}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    kept = read()
    for name, draw in CHARTS.items():
        (IMAGES / f"{name}.svg").write_text(draw(kept))
