"""The table of accuracies, and what is said of a judged vote beside it."""

import pytest

from qcrd_ray.runs.judged_votes import EVIDENCE, is_no_judge, judge_sentence, judged_votes
from qcrd_ray.runs.results import CEILING_NOTE, ceiling_notes, cost_text, markdown_table, table_rows

ROW = {
    "name": "student",
    "head": "rationale",
    "split": "test",
    "correct": 8,
    "total": 10,
    "accuracy": 0.8,
    "low": 0.49,
    "high": 0.94,
    "unanswered": 1,
}
QUALITY = {
    "auc_within_question": 0.87,
    "two_sided": 40,
    "spread": 0.3,
    "calibration_error": 0.04,
}


def test_costs_have_columns_only_where_they_were_measured():
    """Bug guarded: a recording's 0 tokens, read as an answer for nothing."""
    assert markdown_table([ROW | {"tokens": 0.0}]).splitlines()[0].endswith("| no answer |")
    voted = ROW | {"head": "vote of 8", "tokens": 1234.4, "milliseconds": 3.14}
    head, rule, greedy, vote = markdown_table([ROW, voted]).splitlines()
    assert head.endswith("| no answer | tokens | ms |") and rule.count("---:") == 6
    assert greedy.endswith("| 1 |  |  |") and vote.endswith("| 1 | 1,234 | 3.1 |")


@pytest.mark.parametrize(("cost", "text"), [(None, ""), (0.0, ""), (0.54, "0.5"), (10.4, "10")])
def test_costs_have_no_meaningless_digits(cost, text):
    assert cost_text(cost) == text


def test_a_ceiling_is_marked_wherever_it_stands():
    rows = [ROW, ROW | {"head": "any of 8"}]
    assert [cells[2] for cells in table_rows(rows)] == ["rationale", "any of 8 (ceiling)"]
    assert ceiling_notes(rows) == [CEILING_NOTE] and ceiling_notes(rows[:1]) == []


def test_judged_votes_are_the_student_s_own_judge_s():
    """Not those of the judges beside it, and not a baseline's."""
    rows = [
        ROW,
        ROW | {"head": "judged vote of 8"},
        ROW | {"head": "judged vote of 8 (calculator)"},
        ROW | {"name": "dss", "head": "judged vote of 8"},
    ]
    judges = {"student": {"test": {"judge": QUALITY, "calculator": QUALITY}}}
    (found,) = judged_votes({"rows": rows, "judges": judges, "splits": {}, "notes": []})
    assert (found.vote, found.greedy, found.quality) == (rows[1], ROW, QUALITY)
    assert judged_votes({"rows": [ROW], "splits": {}, "notes": []}) == []


@pytest.mark.parametrize(
    ("change", "is_none"),
    [
        ({}, False),
        ({"auc_within_question": 0.54}, True),
        ({"auc_within_question": 0.56}, False),
        ({"spread": 0.019}, True),
        ({"auc_within_question": None}, False),
    ],
)
def test_a_judge_that_does_not_judge(change, is_none):
    quality = QUALITY | change
    assert is_no_judge(quality) == is_none
    assert ("does not judge on test" in judge_sentence(quality, split="test")) == is_none


def test_every_evidence_has_words():
    from typing import get_args

    from qcrd_ray.recipe.judge import EvidenceName

    assert EVIDENCE.keys() == set(get_args(EvidenceName))
