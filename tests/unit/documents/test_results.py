"""jobs/recipes/RESULTS.md: what it claims stands in tables that `qcrd compare` wrote, and these lie
beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcrd_ray.comparison.table import markdown

RECIPES = Path(__file__).resolve().parents[3] / "jobs" / "recipes"
TABLES = sorted((RECIPES / "results").glob("*.json"))


def rows(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")
    ]


def test_there_are_results():
    assert TABLES


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_a_table_is_what_its_results_say(file):
    """Guards a figure that was mended by hand."""
    assert file.with_suffix(".md").read_text() == markdown(json.loads(file.read_text()))


def test_every_row_is_from_a_comparison():
    """Guards a figure that no command has measured: each row of the page's tables stands in one of
    the files.
    """
    measured = {row for file in TABLES for row in rows(file.with_suffix(".md").read_text())}
    told = rows((RECIPES / "RESULTS.md").read_text())
    assert told and not [row for row in told if row not in measured]
