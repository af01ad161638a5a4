"""Right rationales with other numbers: corrupted ones go wrong in one step, evolved ones answer
another question, step by step right.
"""

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcrd_ray.tasks.numbers import find_numbers
from qcrd_ray.tasks.steps import check_steps, corrupted, evolved, misoperated, swapped
from qcrd_ray.tasks.word_problems import generate

QUESTIONS = generate(60, seed=5)
DRAWS = range(40)


def closed(question) -> str:
    return f"{question.rationale} So the answer is {question.answer}."


def words(text: str) -> list[str]:
    return ["#" if word.strip(".$").isdigit() else word for word in text.split()]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUESTIONS), st.integers(0, 10**6))
def test_a_corrupted_rationale_has_one_wrong_step_and_says_nothing_else(question, seed):
    told = corrupted(closed(question), Fraction(question.answer), random.Random(seed))
    if told is not None:
        before, after = check_steps(closed(question)), check_steps(told)
        assert after.total == before.total == before.right == after.right + 1
        assert [w for w in words(told) if w != "#."] == [
            w for w in words(closed(question)) if w != "#."
        ]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUESTIONS), st.integers(0, 10**6))
def test_an_evolved_rationale_is_right_in_every_step_and_changes_numbers_alone(question, seed):
    numbers = {value for _, _, value in find_numbers(question.question)}
    told = evolved(closed(question), numbers, random.Random(seed))
    if told is not None:
        after = check_steps(told)
        assert after.total == after.right > 0 and told != closed(question)
        assert words(told) == words(closed(question))


@pytest.mark.parametrize("alter", ["corrupted", "evolved"])
def test_most_rationales_can_be_rewritten(alter):
    """A source that fails on half of the questions would be a bias nobody asked for."""
    made = 0
    for question in QUESTIONS:
        numbers = {value for _, _, value in find_numbers(question.question)}
        for seed in DRAWS[:12]:
            draw = random.Random(seed)
            text = closed(question)
            told = (
                corrupted(text, None, draw)
                if alter == "corrupted"
                else evolved(text, numbers, draw)
            )
            if told is not None:
                made += 1
                break
    assert made >= 0.95 * len(QUESTIONS)


def all_of(function, *arguments) -> set[str | None]:
    return {function(*arguments, random.Random(seed)) for seed in DRAWS}


def test_an_error_is_carried_on():
    """What follows from a wrong step must follow from it, or the text contradicts itself and is no
    hard negative.
    """
    told = all_of(
        corrupted,
        "He has 3 + 4 = 7 pens. Then 7 * 2 = 14 pens, 14 in all. So the answer is 14.",
        None,
    )
    assert "He has 3 + 4 = 9 pens. Then 9 * 2 = 18 pens, 18 in all. So the answer is 18." in told
    assert any(text.startswith("He has 3 + 4 = 7 pens. Then 7 * 2 = 1") for text in told)


def test_other_numbers_are_carried_through_prose_and_steps():
    told = all_of(
        evolved,
        "Of 3 + 4 = 7 pens, 2 are red: 7 - 2 = 5. So the answer is 5.",
        {Fraction(3), Fraction(2)},
    )
    assert "Of 8 + 4 = 12 pens, 7 are red: 12 - 7 = 5. So the answer is 5." in told, (
        "and it can come out right"
    )
    assert all("+ 4 =" in text for text in told - {None}), "4 is not the question's"


@pytest.mark.parametrize(
    "text",
    [
        "12 = 7 + 5 pens. So the answer is 12.",
        "7 + x = 12, x = 5, and 7 + 5 = 12. So the answer is 12.",
        "Twice (3 + 3) = 12. So the answer is 12.",
        "10 + 2 = 13 or so. So the answer is 12.",  # a wrong step already
        "A dozen, that is 12. So the answer is 12.",
    ],
)
def test_steps_that_cannot_be_followed_leave_the_answer_to_be_changed(text):
    told = all_of(corrupted, text, Fraction(12))
    assert None not in told and all(one.count("12") == 0 and len(one) == len(text) for one in told)
    assert all_of(evolved, text, {Fraction(n) for n in (2, 3, 4, 5, 10)}) == {None}
    assert all_of(corrupted, text, None) == {None}


def test_money_thousands_and_decimals_are_read():
    told = all_of(
        evolved, "It costs $1,200 + $300 = $1,500, or 1500 / 2 = 750.50?", {Fraction(1200)}
    )
    assert told == {None}, "a wrong step is not followed"
    told = all_of(evolved, "It costs 1,200 + $2.50 = $1,202.50.", {Fraction(1200)}) - {None}
    assert "It costs 1300 + $2.50 = $1302.5." in told
    assert all(check_steps(text).right == 1 for text in told)


@pytest.mark.parametrize(
    ("text", "given", "one"),
    [
        ("3 + 4 + 5 = 12 pens.", {4}, "3 + 8 + 5 = 16 pens."),
        ("$31 (before) + 2 x $3 = $37, so $37.", {31}, "$35 (before) + 2 x $3 = $41, so $41."),
        (
            "19 total books - 4 books read = 15 books still to read.",
            {4},
            "19 total books - 9 books read = 10 books still to read.",
        ),
        (
            "6 t-shirts x 5 per box = 30 t-shirts, and 30 t-shirts / 2 = 15.",
            {5},
            "6 t-shirts x 3 per box = 18 t-shirts, and 18 t-shirts / 2 = 9.",
        ),
        (
            "60 bottles – 19 bottles (diet) = 41, and 41 bottles * 2 days/bottle = 82.",
            {60},
            "70 bottles – 19 bottles (diet) = 51, and 51 bottles * 2 days/bottle = 102.",
        ),
        ("Pens in a box = 12 / 3 = 4.", {12}, "Pens in a box = 18 / 3 = 6."),
        ("10 / 4 = 2.5 each.", {10}, "14 / 4 = 3.5 each."),
    ],
)
def test_chains_units_and_precedence_are_followed(text, given, one):
    """As large teachers write: less than half of their rationales hold nothing but "a op b = c"."""
    assert one in all_of(evolved, text, {Fraction(value) for value in given})


def test_nothing_takes_long():
    """Units are words before an operation: a text of words and numbers must not be tried in every
    way.
    """
    began = time.process_time()
    for text in (
        "12 of the pens in a box " * 500,
        "1 " * 4_000,
        "3 a b c d e - " * 800,
        "3 + " * 2_000,
    ):
        evolved(text, {Fraction(12)}, random.Random(0))
    assert time.process_time() - began < 2


def test_results_stay_whole_and_do_not_fall_below_zero():
    told = all_of(evolved, "5 - 3 = 2 and 12 / 4 = 3.", {Fraction(n) for n in (5, 3, 12, 4)}) - {
        None
    }
    assert told and not any(
        "-" in text.replace(" - ", "") or "/" in text.replace(" / ", "") for text in told
    )


def test_nothing_to_change():
    assert corrupted("Let us see.", None, random.Random(0)) is None
    assert corrupted("It is a third.", Fraction(1, 3), random.Random(0)) is None
    assert evolved("Let us see.", {Fraction(3)}, random.Random(0)) is None


def texts_of(alter) -> set[str | None]:
    return {alter(random.Random(seed)) for seed in range(200)} - {None}


def test_another_operation_and_what_follows_from_it():
    """Every step stays right by itself; one that would end in a fraction or below 0 is not said."""
    said = "3 + 4 = 7 pens. 7 * 2 = 14 pens. So the answer is 14."
    assert texts_of(lambda draw: misoperated(said, draw)) == {
        "3 * 4 = 12 pens. 12 * 2 = 24 pens. So the answer is 24.",
        "3 + 4 = 7 pens. 7 + 2 = 9 pens. So the answer is 9.",
        "3 + 4 = 7 pens. 7 - 2 = 5 pens. So the answer is 5.",
    }
    assert texts_of(lambda draw: misoperated("12 x 3 = 36.", draw)) == {
        "12 + 3 = 15.",
        "12 - 3 = 9.",
        "12 / 3 = 4.",
    }, "x is an operation too"
    assert misoperated("3 + 4 = 8.", random.Random(0)) is None, "a wrong step is not followed"
    assert misoperated("The answer is 8.", random.Random(0)) is None


def test_two_numbers_of_the_question_change_places():
    given = {Fraction(12), Fraction(3), Fraction(2)}
    said = "12 - 3 = 9 pens. 9 * 2 = 18 pens. So the answer is 18."
    assert texts_of(lambda draw: swapped(said, given, draw)) == {
        "12 - 2 = 10 pens. 10 * 3 = 30 pens. So the answer is 30."
    }, "the two others give numbers below 0"
    assert swapped("12 - 3 = 9.", {Fraction(12)}, random.Random(0)) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(QUESTIONS), st.integers(0, 10**6))
def test_every_step_of_the_two_is_right(question, seed):
    numbers = {value for _, _, value in find_numbers(question.question)}
    draw = random.Random(seed)
    for told in (misoperated(closed(question), draw), swapped(closed(question), numbers, draw)):
        if told is not None:
            after = check_steps(told)
            assert after.right == after.total == check_steps(closed(question)).total
