"""Ids: whatever could change the teacher's answer changes the id, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.rationales.requests import request_id

QUESTION = Question(
    id="q1", question="How many?", choices=("1", "2"), answer="2", rationale="because"
)
ASKED = {
    "teacher": {"source": "serve", "model": "m"},
    "sampling": {"k": 5, "temperature": 0.7, "seed": 0},
}


def id_of(question=QUESTION, prompt="Q: How many?", **changed) -> str:
    return request_id(question, prompt, **{**ASKED, **changed})


def test_it_is_the_same_in_every_process():
    """Python's own hash() differs from process to process: with it each run would pay again."""
    assert id_of() == "486ed090ce2124ca4a5d23643ac914f8"


@pytest.mark.parametrize(
    "other",
    [
        id_of(replace(QUESTION, id="q2")),
        id_of(replace(QUESTION, question="How many ?")),
        id_of(replace(QUESTION, choices=("2", "1"))),
        id_of(prompt="Q: How many? "),
        id_of(prompt=[{"role": "user", "content": "Q: How many?"}]),
        id_of(teacher={"source": "serve", "model": "n"}),
        id_of(sampling={"k": 5, "temperature": 0.8, "seed": 0}),
        id_of(sampling={"k": 5, "temperature": 0.7, "seed": 1}),
    ],
)
def test_what_is_asked_changes_it(other):
    assert other != id_of()


def test_a_mended_gold_answer_does_not():
    assert id_of(replace(QUESTION, answer="1", rationale=None)) == id_of()


def test_the_order_of_keys_does_not():
    assert id_of(sampling={"seed": 0, "temperature": 0.7, "k": 5}) == id_of()


def test_text_outside_unicode_has_an_id():
    assert id_of(prompt="half a surrogate pair \ud800")
