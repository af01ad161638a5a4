"""A reasoning model's thinking is told apart from its rationale, wherever its marks stand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks.thinking import Thought, split_thinking

MARKS = ("<think>", "</think>")
OPEN, CLOSE = MARKS
PLAIN = st.text(st.characters(blacklist_characters="<>"), max_size=40)
PIECES = st.lists(
    st.one_of(st.sampled_from([*MARKS, "<", "think>", "<thi", "</"]), PLAIN), max_size=12
)


@given(thinking=PLAIN, text=PLAIN)
def test_marks_around_the_thinking(thinking, text):
    assert split_thinking(f"{OPEN}{thinking}{CLOSE}{text}", MARKS) == Thought(
        text.strip(), thinking.strip()
    )


@given(thinking=PLAIN, text=PLAIN)
def test_a_thinking_that_began_in_the_prompt(thinking, text):
    """Chat templates of DeepSeek-R1 and QwQ write the opening mark themselves."""
    assert split_thinking(f"{thinking}{CLOSE}{text}", MARKS) == Thought(
        text.strip(), thinking.strip()
    )


@given(before=PLAIN, thinking=PLAIN)
def test_a_text_that_is_cut_off_inside_its_thinking(before, thinking):
    assert split_thinking(f"{before}{OPEN}{thinking}", MARKS) == Thought(
        before.strip(), thinking.strip(), cut_off=True
    )


@given(pieces=PIECES)
def test_nothing_is_lost_and_no_mark_is_left(pieces):
    whole = "".join(pieces)
    thought = split_thinking(whole, MARKS)
    kept = thought.text + thought.thinking
    if any(mark in whole for mark in MARKS):
        assert not any(mark in part for mark in MARKS for part in (thought.text, thought.thinking))
    letters = Counter("".join(kept.split())) + Counter(
        OPEN * whole.count(OPEN) + CLOSE * whole.count(CLOSE)
    )
    assert letters == Counter("".join(whole.split()))


@given(text=st.text(max_size=80))
def test_no_marks_change_nothing(text):
    assert split_thinking(text, None) == Thought(text)
    if OPEN not in text and CLOSE not in text:
        assert split_thinking(text, MARKS) == Thought(text)


@given(pieces=PIECES)
def test_what_is_left_is_not_split_again(pieces):
    text = split_thinking("".join(pieces), MARKS).text
    assert split_thinking(text, MARKS) == Thought(text)


@pytest.mark.parametrize(
    ("text", "marks", "wanted"),
    [
        ("<think>a<think>b</think>c</think>d", MARKS, Thought("d", "a\nb\nc")),
        ("<think>a</think>b<think>c</think>d", MARKS, Thought("b\nd", "a\nc")),
        ("<think></think>8", MARKS, Thought("8")),
        ("|t|a|t|b", ("|t|", "|t|"), Thought("b", "a")),
        ("[[a]]]b", ("[[", "]]]"), Thought("b", "a")),
        ("<a>x<a>/b", ("<a>", "<a>/"), Thought("b", "x")),  # one mark begins the other
    ],
)
def test_marks_in_odd_places(text, marks, wanted):
    assert split_thinking(text, marks) == wanted


def test_marks_in_a_recipe():
    assert TaskRecipe(kind="arithmetic").thinking == MARKS
    assert TaskRecipe(kind="arithmetic", thinking=None).thinking is None
    with pytest.raises(ValueError, match="two marks"):
        TaskRecipe(kind="arithmetic", thinking=("", "</think>"))
