"""What the teacher is asked, exactly: a changed prompt is a changed data set."""

from __future__ import annotations

import json

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import FewShotExample, TaskRecipe
from qcrd_ray.tasks import KINDS, build_task
from qcrd_ray.tasks.base import Task

ASKED = Question(id="1", question=" How many? ", choices=("x", "y"))
EXAMPLE = FewShotExample(question="Two and two?", rationale="2 + 2 = 4.", answer="4")


def test_an_empty_instruction_gives_the_bare_form():
    assert (
        build_task(TaskRecipe(kind="word_problems", instruction="")).teacher_prompt(ASKED)
        == "Q: How many?\nA:"
    )


def test_the_plain_form_in_full():
    task = build_task(
        TaskRecipe(
            kind="arithmetic",
            system="Be brief.",
            instruction="Explain, then answer.",
            examples=(EXAMPLE,),
        )
    )
    assert (
        task.teacher_prompt(ASKED)
        == "Be brief.\nExplain, then answer.\n\nQ: Two and two?\nA: 2 + 2 = 4. So the answer is"
        " 4.\n\nQ: How many?\nA:"
    )


def test_the_chat_form_in_full():
    task = build_task(
        TaskRecipe(
            kind="arithmetic", system="Be brief.", instruction="Explain.", examples=(EXAMPLE,)
        )
    )
    assert task.teacher_messages(ASKED) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Explain.\n\nTwo and two?"},
        {"role": "assistant", "content": "2 + 2 = 4. So the answer is 4."},
        {"role": "user", "content": "Explain.\n\nHow many?"},
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_protocol_and_asks_to_explain_before_answering(kind):
    task = build_task(TaskRecipe(kind=kind))
    assert isinstance(task, Task)
    assert (
        "step by step, then" in task.instruction
        and "So the answer is <answer>." in task.instruction
    )
    assert json.loads(json.dumps(task.describe()))["kind"] == kind
    assert task.label("4", Question(id="1", question="How many?")) == "4"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_question_to_try(kind):
    """Bug guarded: the page offered "Write a question here." as an example."""
    task = build_task(TaskRecipe(kind=kind))
    assert task.check(task.EXAMPLE) == "" and task.student_input(task.EXAMPLE)


def test_braces_in_a_question_are_left_alone():
    """Guards against str.format on text that users and models write."""
    task = build_task(
        TaskRecipe(
            kind="arithmetic", instruction="Write {x} as {closing}", closing="{y} is {answer}."
        )
    )
    assert (
        task.teacher_prompt(Question(id="1", question="{z}?"))
        == "Write {x} as {y} is <answer>.\n\nQ: {z}?\nA:"
    )
    assert task.explanation("{a}", "{b}", Question(id="1", question="{z}?")) == "{a} {y} is {b}."
