"""Choices read from free text, by letter, by text, or by both."""

from __future__ import annotations

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="multiple_choice"))
ASKED = Question(
    id="1",
    question="Where does it park?",
    choices=("bus", "bus depot", "a ledge", "wool", "Rome"),
    answer="bus depot",
)


def answer(text: str, question: Question = ASKED) -> str | None:
    return TASK.parse(text, question).answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sheep. So the answer is (d) wool.", "wool"),
        ("Sheep. So the answer is (d).", "wool"),
        ("Sheep. Therefore, the answer is (D).", "wool"),
        ("Therefore, the most likely answer is (A), bus.", "bus"),
        ("Answer: D. wool\nExplanation: sheep", "wool"),
        ("Answer: D (wool)\nExplanation: sheep", "wool"),
        ("Answer: D", "wool"),
        (r"$\boxed{D}$", "wool"),
        ("The correct choice is D, as sheep have it.", "wool"),
        ("So the answer is wool.", "wool"),
        ("So the answer is the wool.", "wool"),
        ("So the answer is bus depot.", "bus depot"),  # not the shorter choice that it starts with
        ("So the answer is a ledge.", "a ledge"),  # an article is no letter
        (
            "The answer must be a place. So the answer is (b) bus depot.",
            "bus depot",
        ),  # "a place" is not choice (a)
        ("So the answer is ROME", "Rome"),
        ("The best thing would be to (D) shear it.", "wool"),
        ("Therefore, wool is best, which is choice D. Options (A) and (B) do not fit.", "wool"),
        (
            (
                "So the answer is (d) wool.\n\nQ: Next?\nAnswer Choices:\n(a) x\nA: So the answer"
                " is (a)."
            ),
            "wool",
        ),
    ],
)
def test_the_named_choice_is_read(text, expected):
    assert answer(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "So the answer is either (a) bus or (b) bus depot.",
        "Therefore, the answer is (A) or (B).",
        "Therefore, the answers are (B), (C), and (D).",
        "So the answer is one of these four.",
        "Therefore, the answer is not among the given choices.",
        "So the answer is (g).",
        "So the answer is (",
        "busy",  # not the choice "bus"
        "",
    ],
)
def test_a_text_that_names_none_or_several_abstains(text):
    parsed = TASK.parse(text, ASKED)
    assert parsed.answer is None and parsed.reason


def test_the_letter_may_come_with_a_reason_that_names_another():
    assert answer("The answer is (D) wool, because (A) is a vehicle.") == "wool"


def test_choices_that_are_letters_are_read_by_text():
    """Guards the student's own closing: "So the answer is C." means the choice C, not the third."""
    question = Question(id="1", question="Which vitamin?", choices=("C", "B", "A"))
    for choice in question.choices:
        assert answer(TASK.explanation("Because.", choice, question), question) == choice
        assert answer(f"So it must be {choice}.", question) == choice


@pytest.mark.parametrize(
    "choice",
    ["wool", "st. louis", "(x)", "don't know", "yes, often", "1.5", "bus or train", "A", "the sea"],
)
def test_the_students_text_reads_back(choice):
    question = Question(id="1", question="Which?", choices=("bus", "the", choice))
    assert answer(TASK.explanation("First (a), then (b).", choice, question), question) == choice


@pytest.mark.parametrize("written", ["wool", "Wool ", "wool.", "D", "d", "(d)"])
def test_canonical(written):
    assert TASK.canonical(written, ASKED) == "wool"


@pytest.mark.parametrize("written", ["bus stop", "woo", "", "g", "a or b"])
def test_what_only_starts_like_a_choice_is_none(written):
    """Guards gold answers and the label head: "bus stop" is not the choice "bus"."""
    assert TASK.canonical(written, ASKED) is None


def test_what_cannot_be_asked_says_why():
    assert "two different choices" in TASK.check(
        Question(id="1", question="Which?", choices=("a", "a "))
    )
    assert "a choice is empty" in TASK.check(
        Question(id="1", question="Which?", choices=("a", "b", ""))
    )
    assert "more than there are letters" in TASK.check(
        Question(id="1", question="Which?", choices=tuple(map(str, range(27))))
    )
    assert "is not one of the choices" in TASK.check(
        Question(id="1", question="Which?", choices=("x", "y"), answer="z")
    )
    assert (
        TASK.check(
            Question(
                id="1", question="Where?", choices=("bridge", "bridge", "beach"), answer="bridge"
            )
        )
        == ""
    )  # 146 rows of CQA


def test_the_student_reads_the_lettered_choices():
    assert (
        TASK.student_input(Question(id="1", question="Which?", choices=("x", "y")))
        == "Which?\nAnswer Choices:\n(a) x\n(b) y"
    )
