"""python docs/figures.py        draws docs/images/*.svg from jobs/recipes/results/*.json.

Plain Python without any package. The drawing brings its own panel and two sets of colours, so that
it can be read on a light page and on a dark one. The same results give the same file, byte for
byte: tests/unit/documents/test_figures.py holds the kept pictures to that. (The charts of a run's
report are drawn by qcrd_ray/report/charts.py; they take their colours and letters from its page.)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from drawing import MARKS, WIDTH, curve, line, panel, text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "jobs" / "recipes" / "results"
IMAGES = ROOT / "docs" / "images"

TOP, ROW, GROUP, BOTTOM = 78, 46, 38, 92  # of the view box, in pixels
LEFT, RIGHT = 316, 640  # where the accuracy axis begins and ends; the numbers stand right of it
STEP = 20  # of the accuracy axis, in percent
CAP = 11  # half the length of an interval's ends, beyond any mark, in pixels


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
    drawn = panel(title, under, height, spoken)
    for tick in range(0, 101, STEP):
        drawn.append(line("grid", _x(tick), TOP, _x(tick), floor))
        drawn.append(text(_x(tick), floor + 20, f"{tick} %", "muted", "middle"))
    drawn.append(
        line("teacher", _x(100 * teacher["accuracy"]), TOP, _x(100 * teacher["accuracy"]), floor)
    )
    y = TOP
    for name, rows in groups:
        if name:
            drawn.append(text(24, y + 24, name, "group"))
            y += GROUP
        for row in rows:
            drawn += _drawn(row, y)
            y += ROW
    drawn += [text(24, floor + 50 + 20 * i, note, "muted") for i, note in enumerate(notes)]
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
        text(24, y + 16, row.words, "text"),
        text(24, y + 34, row.method, "code"),
        line(f"bar {row.look}", _x(row.low), middle, _x(row.high), middle),
        *(
            line(f"cap {row.look}", _x(end), middle - CAP, _x(end), middle + CAP)
            for end in (row.low, row.high)
        ),
        f'<path class="{row.look}" d="{MARKS[row.look]}"'
        f' transform="translate({_x(row.accuracy):.1f} {middle})"/>',
        text(WIDTH - 24, middle + 6, f"{row.accuracy:.1f} %", "number", "end"),
    ]


def _x(percent: float) -> float:
    return LEFT + percent / 100 * (RIGHT - LEFT)


# --- Accuracy against what an answer costs ---

PLOT_TOP, PLOT_FLOOR, PLOT_LEFT, PLOT_RIGHT = 84, 584, 64, 470
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

    def x(tokens: float) -> float:
        share = log(tokens / LEAST) / log(MOST / LEAST)
        return PLOT_LEFT + share * (PLOT_RIGHT - PLOT_LEFT)

    def y(percent: float) -> float:
        return PLOT_FLOOR - percent / 100 * (PLOT_FLOOR - PLOT_TOP)

    title = "What a right answer costs"
    under = (
        f"{some['questions']:,} new questions, {some['seeds']} seeds, a student of 0.8 M weights"
    )
    height = PLOT_FLOOR + 84
    spoken = ", ".join(f"{p.words} {p.accuracy:.1f} at {p.tokens:.0f} tokens" for p in points)
    drawn = panel(title, under, height, spoken)
    for percent in range(0, 101, STEP):
        drawn.append(line("grid", PLOT_LEFT, y(percent), PLOT_RIGHT, y(percent)))
        drawn.append(text(PLOT_LEFT - 10, y(percent) + 5, f"{percent}", "muted", "end"))
    for tokens in (2, 10, 50, 250):
        drawn.append(line("grid", x(tokens), PLOT_TOP, x(tokens), PLOT_FLOOR))
        drawn.append(text(x(tokens), PLOT_FLOOR + 22, f"{tokens}", "muted", "middle"))
    notes = (
        "across: tokens generated for a question, logarithmic",
        "up: right answers, %, with 95 % intervals over questions and seeds",
    )
    drawn += [
        text(PLOT_LEFT, PLOT_FLOOR + 46 + 20 * i, note, "muted") for i, note in enumerate(notes)
    ]
    labelled: list[tuple[float, float]] = []
    for number, point in enumerate(points, 1):
        at = (x(point.tokens), y(point.accuracy))
        crowded = any(abs(at[0] - a) < 40 and abs(at[1] - b) < 16 for a, b in labelled)
        labelled.append(at)
        drawn += _plotted(number, point, at[0], y, on_left=crowded)
        key = f"{number}  {point.words} {point.accuracy:.1f}"
        drawn.append(text(PLOT_RIGHT + 24, PLOT_TOP + 27 * number - 19, key, "muted"))
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
        line(f"bar {point.look}", x, y(point.low), x, y(point.high)),
        f'<path class="{point.look}" d="{MARKS[point.look]}"'
        f' transform="translate({x:.1f} {y(point.accuracy):.1f})"/>',
        text(
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
    before, after, *_ = results["bench/endpoint_load"]["runs"]  # of one machine and student
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
    drawn = panel(title, under, floor + 150, spoken, unit="Answers a second")
    for rate in range(0, most + 1, 20):
        drawn.append(line("grid", left, y(rate), right, y(rate)))
        drawn.append(text(left - 12, y(rate) + 5, f"{rate}", "muted", "end"))
    for run, look in ((before, "plain"), (after, "best")):
        drawn += curve(
            [(x(i), y(step["answers_per_s"])) for i, step in enumerate(run["steps"])], look
        )
    labelled = (
        y(before["steps"][4]["answers_per_s"]) + 5,
        y(after["steps"][5]["answers_per_s"]) - 24,
    )
    drawn.append(text(x(4) - 14, labelled[0], before["name"], "muted", "end"))
    drawn.append(text(x(5), labelled[1], after["name"], "muted", "end"))
    rows = [("callers", [f"{count}" for count in callers])]
    for words, key in (("median, s", "p50_ms"), ("99 %, s", "p99_ms")):
        rows.append((words, [f"{step[key] / 1000:.2f}" for step in after["steps"]]))
    rows.append(("/healthz 99 %, s", [f"{s['healthz_p99_ms'] / 1000:.2f}" for s in after["steps"]]))
    for place, (words, values) in enumerate(rows):
        drawn.append(text(24, floor + 30 + 28 * place, words, "muted"))
        drawn += [
            text(x(i), floor + 30 + 28 * place, value, "number", "middle")
            for i, value in enumerate(values)
        ]
    return "\n".join([*drawn, "</svg>", ""])


# --- The same votes for fewer samples ---


def adaptive(results: dict[str, Any]) -> str:
    """The chart of votes that are those of all ten samples against samples asked, as SVG.

    Args:
        results: "bench/adaptive" is read: what `jobs/measure_adaptive.py` wrote.
    """
    sets = [each for each in results["bench/adaptive"]["budgets"] if each["k"] == 10]
    looks = {"adaptive": ("ours", "best"), "even": ("plain", "other")}
    title = "The vote of ten samples, from fewer"
    under = "Recorded GPT-3.5 samples; even: as many of each question, adaptive: by its votes"

    def x(samples: int) -> float:
        return PLOT_LEFT + (samples - 2) / 8 * (PLOT_RIGHT - PLOT_LEFT)

    def y(percent: float) -> float:
        return PLOT_FLOOR - (percent - 70) / 30 * (PLOT_FLOOR - PLOT_TOP)

    curves = [
        (
            f"{each['set'].replace('_', ' ')}, {way}",
            looks[way][number],
            [
                (row["samples"], share)
                for row in each["rows"]
                if (share := row["agreement"][way]) is not None
            ],
        )
        for way in looks
        for number, each in enumerate(sets)
    ]
    spoken = ", ".join(f"{words} {100 * c[2][1]:.1f} at {c[2][0]}" for words, _, c in curves)
    drawn = panel(title, under, PLOT_FLOOR + 60, spoken, unit="Same votes in percent")
    for percent in range(70, 101, 10):
        drawn.append(line("grid", PLOT_LEFT, y(percent), PLOT_RIGHT, y(percent)))
        drawn.append(text(PLOT_LEFT - 10, y(percent) + 5, f"{percent}", "muted", "end"))
    for samples in range(2, 11):
        drawn.append(text(x(samples), PLOT_FLOOR + 22, f"{samples}", "muted", "middle"))
    for row, (words, look, points) in enumerate(curves):
        drawn += curve([(x(samples), y(100 * share)) for samples, share in points], look)
        drawn += curve([(PLOT_RIGHT + 30, PLOT_TOP + 8 + 30 * row)], look)
        drawn.append(text(PLOT_RIGHT + 46, PLOT_TOP + 13 + 30 * row, words, "muted"))
    note = "across: samples a question; up: questions with the same vote, %"
    drawn.append(text(PLOT_LEFT, PLOT_FLOOR + 46, note, "muted"))
    return "\n".join([*drawn, "</svg>", ""])


def read(folder: Path = RESULTS) -> dict[str, Any]:
    """The kept results, by the stem of their file; those of measurements as "bench/<stem>"."""
    files = {file.stem: file for file in sorted(folder.glob("*.json"))}
    files |= {f"bench/{file.stem}": file for file in sorted(folder.glob("bench/*.json"))}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


CHARTS = {"headline": headline, "cost": cost, "load": load, "adaptive": adaptive}

if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    kept = read()
    for name, draw in CHARTS.items():
        (IMAGES / f"{name}.svg").write_text(draw(kept))
