"""The pages of results hold only rows of tables that `qcrd compare` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcrd_ray.comparison.table import markdown

RECIPES = Path(__file__).resolve().parents[3] / "jobs" / "recipes"
TABLES = sorted((RECIPES / "results").glob("*.json"))


def rows(text: str) -> list[str]:
    """The rows of a page's tables, without those of its index of files."""
    skipped = ("| ---", "| [", "| file |")
    return [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith(skipped)
    ]


def test_there_are_results():
    assert TABLES


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_a_table_is_what_its_results_say(file):
    """Guards a figure that was mended by hand."""
    assert file.with_suffix(".md").read_text() == markdown(json.loads(file.read_text()))


@pytest.mark.parametrize("page", ["RESULTS.md", "results/README.md"])
def test_every_row_is_from_a_comparison(page):
    """Guards a figure that no command has measured: each row of the page's tables stands in one of
    the files.
    """
    measured = {row for file in TABLES for row in rows(file.with_suffix(".md").read_text())}
    shown = rows((RECIPES / page).read_text())
    assert shown and not [row for row in shown if row not in measured]
