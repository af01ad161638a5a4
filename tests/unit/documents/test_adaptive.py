"""Adaptive sampling's results: the page and the document hold only what the job has measured, and
the job counts what it says."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from qcrd_ray.recipe import AdaptiveRecipe

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "jobs" / "recipes" / "results" / "bench"
JOB = runpy.run_path(str(ROOT / "jobs" / "measure_adaptive.py"))
MEASURED = json.loads((RESULTS / "adaptive.json").read_text())


def test_the_page_is_what_the_results_say():
    """Guards a figure that was mended by hand."""
    assert (RESULTS / "adaptive.md").read_text() == JOB["markdown"](MEASURED)


def test_every_row_of_the_document_was_measured():
    rows = set((RESULTS / "adaptive.md").read_text().splitlines())
    text = (ROOT / "docs" / "adaptive-sampling.md").read_text()
    shown = re.findall(r"^\| (?:svamp|last_letters) .*$", text, re.MULTILINE)
    assert len(shown) > 10 and not [row for row in shown if row not in rows]


def test_the_default_is_what_the_evidence_says():
    """98.5 % the same votes for 60 % of the samples, where k leaves room for it."""
    default = JOB["name_of"](AdaptiveRecipe())
    reached = {
        (each["set"], each["k"]): row["agreement"] >= 0.985 and row["share"] <= 0.6
        for each in MEASURED["sets"]
        for row in each["rules"]
        if row["rule"] == default
    }
    assert reached == {key: key[1] > 5 for key in reached} and len(reached) == 5


def test_a_question_is_asked_by_the_stages_own_rule():
    ask, rule = JOB["ask"], AdaptiveRecipe(threshold=0.9)
    assert ask("aaaabbbbbb", k=10, adaptive=rule) == (3, 1)
    assert ask("aabaaabbbb", k=10, adaptive=rule) == (6, 2)  # (4, 1): 0.891; (5, 1): 0.9375


def test_the_budget_goes_to_the_least_certain_vote():
    spent = [tuple(asked) for asked in JOB["spend"](["aaaa", "abab", "aaab"], k=4)]
    assert spent[2:5] == [(1, 1, 1), (2, 1, 1), (2, 2, 1)]
    assert spent[5:7] == [(2, 3, 1), (2, 4, 1)], "the tie, and not those that agree"
    assert spent[-1] == (3, 4, 3), "three of four cannot be outvoted"


def test_agreement_and_accuracy_are_counted_by_hand():
    drawn = [["a", "a", "b"], ["a", "b", "b"], ["a", "b", None], [None] * 3]
    row = JOB["score"](drawn, [3, 1, 3, 3], ["a", "a", "a", None])
    assert row == pytest.approx(
        {"samples": 2.5, "agreement": 3 / 4, "accuracy": 2 / 4, "accuracy_full": 1 / 4}
    )
