"""What evaluation counts, on rows small enough to count by hand."""

from __future__ import annotations

import pyarrow as pa
import pytest
from rich.console import Console

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Outcome, Question, RationaleSet
from qcrd_ray.evaluation.predictions import Prediction, result_rows, teacher_predictions
from qcrd_ray.evaluation.stage import silence_notes
from qcrd_ray.inference.pool import split_jobs
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.runs.results import markdown_table, render_table
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="arithmetic"))


def predictions(name, answers, *, gold="7", head="label", split="test"):
    return [
        Prediction(name=name, head=head, split=split, question_id=str(i), gold=gold, answer=a)
        for i, a in enumerate(answers)
    ]


def test_right_wrong_and_unanswered():
    """An answer that cannot be read is wrong, not left out: leaving it out would flatter a model
    that babbles.
    """
    (row,) = result_rows(predictions("student", ["7", "7", "8", None, "07"]))
    assert (row["correct"], row["total"], row["unanswered"]) == (2, 5, 1)
    assert row["accuracy"] == 0.4


@pytest.mark.parametrize(
    (
        "correct",
        "total",
        "low",
        "high",
    ),  # none right: [0, z^2 / (n + z^2)]; all right: [n / (n + z^2), 1]; half: worked out by hand
    [
        (0, 10, 0.0, 0.277533),
        (8, 10, 0.490162, 0.943318),
        (10, 10, 0.722467, 1.0),
        (150, 300, 0.443780, 0.556220),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_intervals_are_wilsons(correct, total, low, high):
    (row,) = result_rows(predictions("student", ["7"] * correct + ["8"] * (total - correct)))
    assert row["low"] == pytest.approx(low, abs=1e-6)
    assert row["high"] == pytest.approx(high, abs=1e-6)


def test_a_student_that_answers_nothing_is_said_so():
    """Bug guarded: a table of zeros, and not a word on what to do."""
    silent = predictions("student", [None, None], head="rationale")
    others = [*predictions("student base", [None]), *predictions("student", [None, "8"])]
    (note,) = silence_notes(result_rows([*silent, *others]))
    assert "none of the 2 questions of test by its rationale" in note and "train.rounds" in note


def test_each_name_head_and_split_is_counted_alone():
    mixed = [
        *predictions("student base", ["7", "8"]),
        *predictions("student", ["7", "7"]),
        *predictions("student", ["8", "8"], head="rationale"),
        *predictions("student", ["7", None], split="held_out"),
    ]
    found = {
        (row["name"], row["head"], row["split"]): (row["correct"], row["total"])
        for row in result_rows(mixed)
    }
    assert found == {
        ("student base", "label", "test"): (1, 2),
        ("student", "label", "test"): (2, 2),
        ("student", "rationale", "test"): (0, 2),
        ("student", "label", "held_out"): (1, 2),
    }


def rationale_set(number, *, gold, answers, vote, outcome=Outcome.ACCEPTED):
    completions = tuple(
        Completion(text=f"it is {answer}", answer=answer, tokens=3) for answer in answers
    )
    return RationaleSet(
        id=f"hash{number}",
        question_id=f"q{number}",
        question="?",
        gold=gold,
        completions=completions,
        vote=vote,
        outcome=outcome,
    ).row()


def test_the_teacher_is_measured_by_its_first_sample_and_by_its_vote():
    rows = [
        rationale_set(0, gold="7", answers=["8", "7", "7"], vote="7"),
        rationale_set(1, gold="7.0", answers=["7", "9", "9"], vote="9"),
        rationale_set(
            2, gold="7", answers=[None, "1", "2"], vote=None, outcome=Outcome.NO_CONSENSUS
        ),
        rationale_set(3, gold="7", answers=[], vote=None, outcome=Outcome.FAILED),
        rationale_set(4, gold=None, answers=["7"], vote="7"),
        rationale_set(5, gold="7", answers=[], vote=None, outcome=Outcome.REJECTED_INPUT),
    ]
    table = pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)
    one, voted = result_rows(teacher_predictions(table, split="train", task=TASK))
    assert (one["name"], one["correct"], one["total"], one["unanswered"]) == (
        "teacher, one sample",
        1,
        4,
        2,
    )
    assert (voted["name"], voted["correct"], voted["total"], voted["unanswered"]) == (
        "teacher, voted",
        1,
        4,
        2,
    )
    assert one["split"] == voted["split"] == "train"


def test_every_question_is_shared_out_once():
    questions = [Question(id=str(i), question="?") for i in range(10)]
    pieces = split_jobs(3, "folder", "label", questions, size=4)
    assert [question.id for piece in pieces for question in piece.questions] == [
        str(i) for i in range(10)
    ]
    assert [len(piece.questions) for piece in pieces] == [4, 4, 2]


def test_the_table_shows_every_row():
    rows = [
        *predictions("teacher, voted", ["7"] * 9 + ["8"], head="vote", split="train"),
        *predictions("student", ["7", None]),
    ]
    results = result_rows(rows)
    markdown = markdown_table(results).splitlines()
    assert markdown[2] == "| train | teacher, voted | vote | 90.0 | 59.6 - 98.2 | 9/10 | 0 |"
    assert markdown[3] == "| test | student | label | 50.0 | 9.5 - 90.5 | 1/2 | 1 |"
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_table(results))
    assert "59.6 - 98.2" in console.export_text()
