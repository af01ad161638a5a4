"""Labels of natural-language inference read from free text."""

from __future__ import annotations

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="nli"))
ASKED = Question(
    id="1", question="Premise: A man rides.\nHypothesis: A man sleeps.", answer="contradiction"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            (
                "He rides.\nAnswer: contradiction\n\nPremise: A dog.\nHypothesis: A cat.\nAnswer:"
                " neutral"
            ),
            "contradiction",
        ),
        (
            (
                "He rides.\nAnswer: contradiction\n\nPremise: A man rides.\nHypothesis: A man"
                " sleeps.\nAnswer: neutral"
            ),
            "contradiction",
        ),
        ("So the answer is entailment.", "entailment"),
        ("Answer: The premise entails nothing. The answer is neutral", "neutral"),
        ("The answer is yes.", "entailment"),
        ("The answer is no.", "contradiction"),
        ("The answer is it is not possible to tell.", "neutral"),  # not "no"
        ("The answer is: not possible to tell", "neutral"),
        ("The answer is it cannot be determined.", "neutral"),
        ("The relationship is a contradiction.", "contradiction"),
        ("The premise contradicts it, so the label is Contradictory.", "contradiction"),
        ("**Answer:** Entailment", "entailment"),
        (
            "Premise: A man rides.\nHypothesis: A man sleeps.\nAnswer: contradiction",
            "contradiction",
        ),  # restated before the answer
    ],
)
def test_the_label_is_read(text, expected):
    assert TASK.parse(text, ASKED).answer == expected


@pytest.mark.parametrize(
    "text",
    ["", "The man could be riding.\nAnswer:", "The man is notable.", "The answer is notable."],
)
def test_a_text_cut_off_before_its_label_abstains(text):
    parsed = TASK.parse(text, ASKED)
    assert parsed.answer is None and parsed.reason


@pytest.mark.parametrize("label", ["entailment", "neutral", "contradiction"])
def test_the_students_text_reads_back(label):
    parsed = TASK.parse(TASK.explanation("No dog is yes, and it is true.", label, ASKED), ASKED)
    assert (parsed.answer, parsed.rationale) == (label, "No dog is yes, and it is true.")


def test_a_label_that_is_none_is_refused():
    assert "not one of entailment" in TASK.check(
        Question(id="1", question="Premise: x\nHypothesis: y", answer="2")
    )


def test_an_anli_question_is_asked_with_its_parts():
    """As the paper's recipe maps ANLI: the instruction names what the question calls its two
    parts.
    """
    (message,) = TASK.teacher_messages(ASKED)
    instruction, asked = message["content"].split("\n\n")
    assert (
        asked == "Premise: A man rides.\nHypothesis: A man sleeps."
        and asked == TASK.student_input(ASKED)
    )
    for word in (
        "premise",
        "hypothesis",
        "(entailment)",
        "(contradiction)",
        "(neutral)",
        "step by step",
        "So the answer is <answer>.",
    ):
        assert word in instruction
    assert TASK.teacher_prompt(ASKED).endswith(f"Q: {asked}\nA:")
