"""The pictures of the README: the chart is drawn from the kept results, and every picture that a
page shows lies in the repository, readable on a light and on a dark page."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
IMAGES = ROOT / "docs" / "images"
FIGURES = runpy.run_path(str(ROOT / "docs" / "figures.py"))
PAGES = [ROOT / "README.md", ROOT / "jobs" / "recipes" / "RESULTS.md"]
LIMIT = 250_000  # bytes of a picture


def words(drawing: str) -> list[str]:
    return [
        each.text or ""
        for each in ElementTree.fromstring(drawing).iter()
        if each.tag.endswith("}text")
    ]


@pytest.mark.parametrize("name", FIGURES["CHARTS"])
def test_a_chart_is_what_the_results_say(name):
    """Guards a chart that was left behind when results or names changed: run docs/figures.py."""
    drawn = FIGURES["CHARTS"][name](FIGURES["read"]())
    assert (IMAGES / f"{name}.svg").read_text() == drawn


def test_the_costs_chart_names_every_point_with_its_number():
    """Guards a point that leaves the plot, or a number that is not the kept one."""
    results = FIGURES["read"]()
    found = words(FIGURES["cost"](results))
    (votes,) = [part for part in results["confirmed"]["votes"] if part["split"] == "test"]
    for number, (said, _, row) in enumerate(FIGURES["COST_ROWS"], 1):
        assert f"{number}  {said} {100 * votes['means'][row]['mean']:.1f}" in found
    places = re.findall(r"translate\(([\d.]+) ([\d.]+)\)", FIGURES["cost"](results))
    assert len(places) == len(FIGURES["COST_ROWS"]) + len(FIGURES["TEACHER_ROWS"])
    assert all(
        FIGURES["PLOT_LEFT"] <= float(x) <= FIGURES["PLOT_RIGHT"]
        and FIGURES["PLOT_TOP"] <= float(y) <= FIGURES["PLOT_FLOOR"]
        for x, y in places
    )


def test_the_chart_shows_the_measured_numbers():
    results = FIGURES["read"]()
    found = words(FIGURES["headline"](results))
    head = next(
        m for m in results["ladder"]["measured"] if (m["split"], m["head"]) == ("test", "rationale")
    )
    for method in ("dss", "dss_voted", "qcrd_no_discriminator", "qcrd"):
        at = found.index(method)
        assert found[at + 1] == f"{100 * head['means'][method]['mean']:.1f} %"


def test_the_chart_lies_within_its_axis():
    """Guards a bar that leaves the drawing when a result changes by much."""
    lines = re.findall(
        r'class="bar \w+" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"',
        FIGURES["headline"](FIGURES["read"]()),
    )
    assert len(lines) == 8
    assert all(
        FIGURES["LEFT"] <= float(low) < float(high) <= FIGURES["RIGHT"] for low, high in lines
    )


@pytest.mark.parametrize("file", sorted(IMAGES.glob("*.svg")), ids=lambda file: file.name)
def test_a_drawing_can_be_read_in_the_dark_and_aloud(file):
    text = file.read_text()
    drawing = ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text and 'class="panel"' in text
    assert drawing.find("{*}title") is not None and drawing.find("{*}desc") is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_that_a_page_shows_are_there_and_described(page):
    text = page.read_text()
    shown = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    shown += [
        (alt[0] if (alt := re.findall(r'alt="([^"]*)"', tag)) else "", picture)
        for tag, picture in re.findall(r'(<img[^>]* src="([^"]+)"[^>]*>)', text)
    ]
    assert shown
    for description, picture in shown:
        file = page.parent / picture
        assert description and file.is_file() and file.stat().st_size < LIMIT, picture
