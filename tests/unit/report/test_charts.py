"""Charts: what is drawn lies where the data say, whatever the data are; and no text becomes
markup.
"""

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    axis_over,
    share_axis,
    ticks,
)
from qcrd_ray.report.charts import (
    Box,
    Interval,
    Series,
    bar_chart,
    box_chart,
    column_chart,
    interval_chart,
    legend,
    line_chart,
)
from qcrd_ray.report.html import Markup, join, tag

finite = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda value: value == 0 or abs(value) > 1e-6)


def elements(drawing, name):
    return [
        each for each in ElementTree.fromstring(drawing).iter() if each.tag.endswith(f"}}{name}")
    ]


@given(finite, finite)
def test_ticks_cover_the_data(one, other):
    low, high = min(one, other), max(one, other)
    if high - low < 1e-9 * max(abs(low), abs(high)):
        high = low
    found = ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert found[0] <= low + slack and found[-1] >= high - slack
    assert 2 <= len(found) <= 12
    assert all(b > a for a, b in pairwise(found))


@given(st.integers(1, 3000))
def test_rounds_get_whole_ticks(last):
    assert all(tick == int(tick) for tick in ticks(1, last, count=8, whole=True))


def test_ticks_of_eight_rounds_are_the_rounds():
    assert ticks(1, 8, count=8, whole=True) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3], [0.0, 0.0], [-5.0]])
def test_an_axis_of_few_or_equal_values_has_a_length(values):
    """Bug guarded: a division by zero where a training has one round, or a loss that does not
    move.
    """
    axis = axis_over("loss", values)
    assert axis.ticks[0] < axis.ticks[-1]


def test_ticks_are_written_with_the_same_decimals():
    assert [axis_over("s", [0.982, 0.992]).written(tick) for tick in (0.99, 0.992)] == [
        "0.990",
        "0.992",
    ]
    assert (
        share_axis("share").written(0.2) == "20 %" and share_axis("share").exact(0.283) == "28.3 %"
    )


@pytest.mark.parametrize("values", [[0.9875, 0.9895], [0, 1_200_000], [0.1, 0.9]])
def test_the_label_of_an_axis_does_not_touch_its_ticks(values):
    """Bug guarded: ticks of six letters, as of scores between 0.9875 and 0.9895, under the name of
    the axis.
    """
    y = axis_over("score s", values)
    drawing = line_chart(
        "t",
        "d",
        [Series(name="a", points=list(enumerate(values)))],
        x=axis_over("round", [0, 1]),
        y=y,
        reference=(values[0], "r"),
    )
    texts = elements(drawing, "text")
    label = (
        float(next(each for each in texts if each.text == "score s").get("x")) + 3
    )  # what reaches below the line of writing
    beside = [
        each for each in texts if each.get("text-anchor") == "end" and each.get("class") == "tick"
    ]
    assert len(beside) == len(y.ticks) and all(
        float(each.get("x")) - 7 * len(each.text) >= label + 4 for each in beside
    )
    starts = {float(each.get("x1")) for each in elements(drawing, "line")}
    assert (
        starts == {y.margin}
        and min(float(each.get("cx")) for each in elements(drawing, "circle")) == y.margin
    )


@pytest.mark.parametrize(
    "points", [[], [(1, 0.5)], [(1, 0.5), (2, 0.5)], [(1, -3.0), (2, 4e5), (3, 0.0)]]
)
def test_lines_stay_inside_the_frame(points):
    y = axis_over("loss", [value for _, value in points])
    drawing = line_chart(
        "t", "d", [Series(name="a", points=points)], x=axis_over("round", [1, 3], whole=True), y=y
    )
    marks = elements(drawing, "circle")
    assert len(marks) == len(points)
    for mark in marks:
        assert LEFT - 0.1 <= float(mark.get("cx")) <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= float(mark.get("cy")) <= HEIGHT - BOTTOM + 0.1


def test_a_higher_value_is_drawn_higher():
    drawing = line_chart(
        "t",
        "d",
        [Series(name="a", points=[(1, 0.1), (2, 0.9)])],
        x=axis_over("round", [1, 2]),
        y=share_axis("share"),
    )
    first, second = elements(drawing, "circle")
    assert float(second.get("cy")) < float(first.get("cy")) and float(second.get("cx")) > float(
        first.get("cx")
    )


def test_lines_differ_by_more_than_colour():
    """Bug guarded: six lines that a colour-blind reader cannot tell apart."""
    names = ["a", "b", "c", "d", "e", "f"]
    series = [Series(name=name, points=[(1, 0.0), (2, 1.0)]) for name in names]
    drawing = line_chart("t", "d", series, x=axis_over("round", [1, 2]), y=share_axis("share"))
    dashes = [
        path.get("stroke-dasharray")
        for path in elements(drawing, "path")
        if path.get("class").startswith("line")
    ]
    assert len(set(dashes)) == len(names)
    shapes = re.findall(r'd="(M[^"]*)" transform', str(legend(names)))
    assert len(set(shapes)) == len(names) - 1, "the first one's mark is a circle"


def test_a_long_line_keeps_few_marks():
    points = [(x, x / 500) for x in range(1, 501)]
    drawing = line_chart(
        "t",
        "d",
        [Series(name="a", points=points)],
        x=axis_over("round", [1, 500], whole=True),
        y=share_axis("share"),
    )
    assert len(elements(drawing, "circle")) <= 30


def test_an_interval_is_drawn_from_low_to_high():
    drawing = interval_chart(
        "t", "d", [Interval(name="student", kind=0, value=0.5, low=0.25, high=0.75)], label="right"
    )
    line = next(each for each in elements(drawing, "line") if "c0" in each.get("class"))
    dot = elements(drawing, "circle")[0]
    assert float(line.get("x1")) < float(dot.get("cx")) < float(line.get("x2"))
    assert math.isclose(
        float(dot.get("cx")), (float(line.get("x1")) + float(line.get("x2"))) / 2, abs_tol=0.02
    )


def test_stacked_columns_stand_on_each_other():
    y = axis_over("votes", [0, 10])
    drawing = column_chart(
        "t", "d", [("20", (6, 4)), ("40", (0, 0))], parts=("right", "wrong"), x="share", y=y
    )
    below, above = elements(drawing, "rect")
    assert math.isclose(
        float(above.get("y")) + float(above.get("height")), float(below.get("y")), abs_tol=0.02
    )
    assert math.isclose(float(below.get("height")) / float(above.get("height")), 1.5, abs_tol=0.01)
    assert "hollow" in above.get("class") and "hollow" not in below.get("class")


def test_bars_are_as_wide_as_their_counts():
    drawing = bar_chart("t", "d", [("read", 10, "10"), ("asked", 5, "5"), ("voted", 0, "0")])
    widths = [
        float(each.get("width"))
        for each in elements(drawing, "rect")
        if each.get("class").startswith("bar")
    ]
    assert math.isclose(widths[1], widths[0] / 2, abs_tol=0.02) and widths[2] == 0


def test_a_box_lies_between_its_whiskers():
    axis = Axis(label="s", ticks=(0.0, 1.0))
    drawing = box_chart(
        "t",
        "d",
        [Box(name="pos.", kind=0, percentiles=(0.1, 0.3, 0.5, 0.6, 0.9))],
        x="source",
        y=axis,
    )
    whisker = next(each for each in elements(drawing, "line") if each.get("class") == "line c0")
    box = elements(drawing, "rect")[0]
    top, bottom = float(box.get("y")), float(box.get("y")) + float(box.get("height"))
    assert float(whisker.get("y2")) < top < bottom < float(whisker.get("y1"))


@pytest.mark.parametrize(
    "drawing",
    [
        line_chart("a title", "what it is", [], x=axis_over("round", []), y=axis_over("loss", [])),
        column_chart(
            "a title", "what it is", [], parts=("right",), x="share", y=axis_over("votes", [])
        ),
        bar_chart("a title", "what it is", []),
        interval_chart("a title", "what it is", [], label="right"),
        box_chart("a title", "what it is", [], x="source", y=axis_over("s", [])),
    ],
)
def test_nothing_to_draw_is_a_chart_all_the_same_and_says_what_it_is(drawing):
    root = ElementTree.fromstring(drawing)
    assert root.get("role") == "img" and "a title" in root.get("aria-label")
    assert [root[0].text, root[1].text] == ["a title", "what it is"]


def test_texts_are_escaped_in_elements_and_attributes():
    evil = "<script>alert(1)</script>\"'&"
    assert "<script" not in tag("p", evil, title=evil) and "\"'" not in tag("p", evil)
    assert tag("p", tag("b", "x"), "1 < 2") == "<p><b>x</b>1 &lt; 2</p>"
    assert isinstance(join("a", None, Markup("<i>b</i>")), Markup)


def test_a_tooltip_is_escaped():
    """Bug guarded: names of models and splits are the user's."""
    drawing = interval_chart(
        "t",
        "d",
        [Interval(name="</title><script>", kind=0, value=0.5, low=0.4, high=0.6)],
        label="right",
    )
    assert "<script" not in drawing and elements(drawing, "circle")


def test_the_axis_of_right_answers_is_whole(monkeypatch):
    """Bug guarded: it ended at the best value so far, so that 3 % looked like everything."""
    from qcrd_ray.report import learning

    seen = []
    monkeypatch.setattr(learning, "round_figure", lambda title, series, y, note: seen.append(y))

    class Own:
        objective = "qcrd"

        def curve(self, *path):
            return [(1.0, 0.01), (2.0, 0.03)]

    learning._validation(Own(), [], "label")
    (axis,) = seen
    assert axis.share and (axis.ticks[0], axis.ticks[-1]) == (0.0, 1.0)
