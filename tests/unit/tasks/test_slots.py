"""Slots: numbers are hidden and put back, results are computed, and nothing wrong becomes right."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.tasks.slots import (
    evaluate,
    expression_of,
    fill,
    hide,
    hide_given,
    numbers_of,
    step_to,
)

TASK = build_task(TaskRecipe(kind="slotted_arithmetic", instruction=""))
DIGITS = build_task(TaskRecipe(kind="arithmetic", instruction=""))
ASKED = Question(
    id="1",
    question="Danny has 67 wrappers, 35 caps and $1,200. How many more wrappers than caps has he?",
    answer="32",
)


def numbers(*values: int | str) -> list[Fraction]:
    return [Fraction(value) for value in values]


def test_the_question_keeps_its_words():
    hidden = "Danny has n1 wrappers, n2 caps and $n3. How many more wrappers than caps has he?"
    assert hide_given(ASKED.question) == hidden == TASK.student_input(ASKED)
    assert numbers_of(ASKED.question) == numbers(67, 35, 1200)


@pytest.mark.parametrize(
    ("digits", "slots"),
    [
        ("67 - 35 = 32.", "n1 - n2 = r1."),
        ("67 wrappers - 35 caps = 32 more. So 32.", "n1 wrappers - n2 caps = r1 more. So r1."),
        ("67 + 35 = 102. 102 / 2 = 51.", "n1 + n2 = r1. r1 / 2 = r2."),
        ("$1,200 x 2 = $2,400", "$n3 x 2 = $r1"),
        ("67x35 = 2345", "n1xn2 = r1"),  # glued signs are operations too
        ("67.00 is 67", "n1 is n1"),
        # a wrong step keeps its result, and so does what follows from it
        ("67 - 35 = 33. So 33.", "n1 - n2 = 33. So 33."),
        # a rounded one too: r1 would be 67 / 35
        ("67 / 35 = 1.91", "n1 / n2 = 1.91"),
        # a wrong result that is the question's number is that number
        ("67 + 35 = 67", "n1 + n2 = n1"),
        # a result comes before the question's number of this value, and the last one before others
        ("70 - 35 = 35. 35 is left.", "70 - n2 = r1. r1 is left."),
    ],
)
def test_hide(digits, slots):
    assert hide(digits, numbers(67, 35, 1200)) == slots


def test_equal_numbers_go_to_the_first_slot_but_within_a_step_to_the_next():
    assert hide("5 and 5. 5 + 5 = 10.", numbers(5, 5)) == "n1 and n1. n1 + n2 = r1."
    assert hide("5 + 5 + 5 = 15.", numbers(5, 5)) == "n1 + n2 + n1 = r1."


def test_a_wrong_result_does_not_become_right():
    """Bug guarded: the wrong result of a step that equals an earlier result was written as that
    slot, and computed from the wrong step when it was read.
    """
    text = "20 - 10 = 10. 2 + 10 = 10. So the answer is 10."
    hidden = hide(text, numbers(20, 10, 2))
    assert hidden == "n1 - n2 = r1. n3 + r1 = n2. So the answer is r1."
    assert fill(hidden, numbers(20, 10, 2)) == text


@pytest.mark.parametrize(
    ("slots", "digits"),
    [
        ("n1 - n2 = r1. r1 * n1 = r2. So r2.", "3 - 5 = -2. -2 * 3 = -6. So -6."),
        ("n1 / n2 = r1. r1 * n2 = r2.", "3 / 5 = 0.6. 0.6 * 5 = 3."),
        ("n1 + n1 * n2 = r1", "3 + 3 * 5 = 18"),
        ("he has n3 and r1", "he has n3 and r1"),  # of no value
        ("n1 + n3 = r1. So r1.", "3 + n3 = r1. So r1."),
        ("n1 - n1 = r1. n2 / r1 = r2. r2", "3 - 3 = 0. 5 / 0 = r2. r2"),
        # a result that cannot be computed is not the one before
        ("n1 + n2 = r1. n1 / n4 = r1. r1", "3 + 5 = 8. 3 / n4 = r1. r1"),
        ("n1 + n2 = r1. x = r1", "3 + 5 = 8. x = 8"),
        ("an1 r1b n100", "an1 r1b n100"),
    ],
)
def test_fill(slots, digits):
    assert fill(slots, numbers(3, 5)) == digits


def test_products_of_products_end():
    """Guards a degenerate text whose numbers double their digits with every step."""
    steps = ["n1 * n1 = r1.", *(f"r{i} * r{i} = r{i + 1}." for i in range(1, 90))]
    assert len(fill(" ".join(steps), numbers(99))) < 5_000


@given(
    st.lists(st.integers(0, 60).map(Fraction), min_size=1, max_size=4),
    st.text(st.sampled_from("0123456789+-*/=.,$ x\nab()"), max_size=60),
)
def test_what_is_hidden_is_found_again(values, text):
    """Whatever stands between: numbers come back in their one spelling, words as they were."""
    again = fill(hide(text, values), values)
    assert again == fill(hide(again, values), values)
    assert "n1" not in again and "r1" not in again


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("- n1 n2", "32"),
        ("- n1 * n2 2", "-3"),
        ("/ + n1 n2 n2", "102/35"),
        ("n2", "35"),
        ("- n1", None),
        ("n1 n2", None),
        ("+ n1 n9", None),
        ("/ n1 0", None),
        ("__import__ n1", None),
        ("", None),
    ],
)
def test_evaluate(expression, value):
    assert evaluate(expression, numbers(67, 35)) == (None if value is None else Fraction(value))


def test_the_simplest_expression_is_taken():
    values = numbers(8, 4, 2)
    assert expression_of(Fraction(4), values) == "- n1 n2"  # not n2, nor / n1 n3, which comes later
    assert expression_of(Fraction(14), values) == "+ + n1 n2 n3"
    assert expression_of(Fraction(77), values) is None
    assert expression_of(Fraction(8), numbers(8)) == "n1"
    assert step_to(Fraction(4), values) == "8 - 4 = 4"
    assert step_to(Fraction(14), values) is None and step_to(Fraction(-4), values) is None


# --- The task ---


def test_the_student_writes_slots_and_is_read_in_numbers():
    parsed = TASK.parse("He has n1 - n2 = r1 more. So the answer is r1.", ASKED)
    assert (parsed.rationale, parsed.answer) == ("He has 67 - 35 = 32 more.", "32")
    assert TASK.canonical("- n1 n2", ASKED) == "32" == TASK.canonical("32", ASKED)
    assert TASK.canonical("- n1 n7", ASKED) is None and TASK.canonical("- n1", ASKED) is None
    assert TASK.label("32", ASKED) == "- n1 n2" and TASK.label("9999", ASKED) == "9999"


def test_the_teacher_is_asked_and_read_in_numbers():
    assert TASK.teacher_prompt(ASKED) == DIGITS.teacher_prompt(ASKED)
    assert TASK.teacher_messages(ASKED) == DIGITS.teacher_messages(ASKED)
    text = "Danny has 67 - 35 = 32 more. So the answer is 32."
    assert TASK.parse(text, ASKED) == DIGITS.parse(text, ASKED)


def test_an_answer_that_no_step_computes_gets_one():
    """Bug guarded: a fifth of the recorded rationales taught the student to guess digits."""
    assert (
        TASK.explanation("He has 32 more.", "32", ASKED)
        == "n1 - n2 = r1. He has r1 more. So the answer is r1."
    )
    assert TASK.explanation("Perhaps.", "7", ASKED) == "Perhaps. So the answer is 7."


def test_a_question_that_holds_a_slot_is_rejected():
    assert "'n1'" in TASK.check(Question(id="1", question="Take n1 of 3.", answer="3"))
    assert TASK.check(ASKED) == ""


@pytest.mark.parametrize("kind", ["pretraining", "held_out"])
def test_the_built_in_stories_read_back(kind):
    for story in word_problems.generate(200, seed=0, kind=kind):
        explanation = TASK.explanation(story.rationale or "", story.answer or "", story)
        assert TASK.parse(explanation, story) == DIGITS.parse(
            DIGITS.explanation(story.rationale or "", story.answer or "", story), story
        )
        label = TASK.label(story.answer or "", story)
        assert TASK.canonical(label, story) == story.answer
