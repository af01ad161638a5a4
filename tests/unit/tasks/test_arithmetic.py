"""Arithmetic answers read from free text: each case names what a simpler rule gets wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="arithmetic"))
ASKED = Question(
    id="1",
    question="Luke scored 78 points, 3 in each round. How many rounds did he play?",
    answer="26",
)


def answer(text: str) -> str | None:
    return TASK.parse(text, ASKED).answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("78 / 3 = 26. So the answer is 26.", "26"),
        ("78 / 3 = 26. So the answer is 25.", "25"),  # what is said counts, not what would be right
        (
            "78 / 3 = 26 . so  the answer is 26 .",
            "26",
        ),  # blanks and capitals as tokenizers put them back
        ("The answer is 25. Wait, no. So the answer is 26.", "26"),  # the last word counts
        ("The answer is 26 rounds, which is more than 20.", "26"),  # not the last number
        ("So the answer is 8 - 3 = 5 rounds.", "5"),
        ("78/3\n#### 26", "26"),
        (r"We divide. $\boxed{26}$", "26"),
        ("**Answer:** 26", "26"),
        ("Final answer: $1,234.00", "1234"),
        ("The answer is:\n\n78 / 3 = 26", "26"),
        ("The answer is twenty-six.", "26"),
        ("Here is how to get the answer:\n78 / 3 = 26\nHe played 26 rounds.", "26"),
        (
            "Let us check our answer: 26 * 3 = 78.\nTherefore, he played 26 rounds.",
            "26",
        ),  # a check is no announcement
        ("The answer is not 5, as 78 / 3 = 26.", "26"),
        (
            "Therefore, Luke played 26 rounds in order to earn 78 points.",
            "26",
        ),  # the last number was given
        ("So, if he scores 3 in each round, he plays 26 rounds.", "26"),
        ("Luke had 81 - 3 = 78 points.", "78"),  # behind the equals sign, given or not
        ("78 divided by 3 equals 26 rounds of 3 points.", "26"),
        ("So he scored 78 points.", "78"),  # all numbers given: the first
        ("He played 26 rounds.\nI hope this helps!", "26"),  # the last sentence with a number
        ("-5", "-5"),
    ],
)
def test_the_stated_number_is_read(text, expected):
    assert answer(text) == expected


def reads(question: str, text: str) -> str | None:
    return TASK.parse(text, Question(id="1", question=question)).answer


PLANKS = "A wall has 12 large planks and 17 small ones. Each takes 14 nails. How many planks is it?"
KINDS = "6 red, 90 yellow and 16 green plums are here. How many red and green plums are here?"


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        # the text answers, then goes on to count what nobody asked for
        (PLANKS, "There are 12 + 17 = 29 planks. They take 29 x 14 = 406 nails.", "29"),
        # the text sums up what was asked for with what was not
        (
            "A shop has 30 bottles of milk, 8 bottles of beer and 41 pies. How many bottles is it?",
            "It has 30 + 8 = 38 bottles. Adding the pies, it has 38 + 41 = 79 items.",
            "38",
        ),
        # but the question does not name pieces: another word for the same
        (
            "There are 4 pizzas of 12 slices. 39 slices are eaten. How many slices are left?",
            "There are 4 x 12 = 48 slices. So 48 - 39 = 9 pieces are left.",
            "9",
        ),
        # only what is asked for has been said
        (PLANKS, "There are 12 planks. They take 12 x 14 = 168 nails.", "168"),
        # what all of both are is no other thing
        (
            "There are 11 rows of 3 pens and 2 cups. How many pens and cups are there?",
            "There are 33 pens and 22 cups. So there are 55 items.",
            "55",
        ),
        # two people count one thing
        (
            "Tom has 7 pens and 5 cups, Kim has 4 cups. How many cups do Tom and Kim have?",
            "They have 5 + 4 = 9 cups. With the pens, they have 7 + 9 = 16 items.",
            "9",
        ),
    ],
)
def test_a_number_of_something_else_is_not_the_answer(question, text, expected):
    """Guards texts that answer and go on: their last number counts something else, which the
    question names beside what it asks for.
    """
    assert reads(question, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8 guests left, which is 5 more than the 3 who stayed.", "5"),
        ("So 5 more guests left than the 3 who stayed, and 8 in all.", "5"),
        ("So 8 guests left.", "8"),
        ("The answer is -5, which means that 5 more stayed than left.", "-5"),  # 5 counts the other
    ],
)
def test_how_many_more_is_answered_by_the_number_that_says_more(text, expected):
    """Guards "8 guests left, which is 5 more", of which the first number was read."""
    assert reads("There were 11 guests. 3 stayed. How many more left than stayed?", text) == (
        expected
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6 + 16 = 22. So there are 6 red plums and 16 green plums.", "22"),
        ("So there are 3 red and 16 green plums.", "3"),  # no sum said: which of them is unsure
        ("That is 22 - 2 = 20. So there are 4 red plums and 20 green plums.", "4"),
        ("There are 22 plums: 6 red and 16 green. The answer is 6 red and 16 green plums.", "22"),
    ],
)
def test_parts_that_are_asked_for_together_are_summed(text, expected):
    """Guards a conclusion that gives the parts of a sum: the first of them was read."""
    assert reads(KINDS, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It is 26. So the answer is 26.\n\nQ: Tom has 5 apples. How many?\nA: So the answer is 5.",
        "It is 26. So the answer is 26.\nQuestion 2: Tom has 5 apples.\nThe answer is 5.",
        # as a tokenizer without lines gives it
        "It is 26. So the answer is 26. Q: Tom has 5 apples. How many? A: So the answer is 5.",
        "It is 26. So the answer is 26.\n### Problem: Tom has 5 apples. So the answer is 5.",
        "It is 26. So the answer is 26.\n\nHuman: and 5?\nThe answer is 5.",
        (  # restated first
            f"Q: {ASKED.question}\nA: It is 26. So the answer is 26.\n\nQ: Tom has 5 apples.\nA: So"
            " the answer is 5."
        ),
    ],
)
def test_a_run_on_into_invented_questions_is_cut(text):
    parsed = TASK.parse(text, ASKED)
    assert parsed.answer == "26" and "Tom" not in parsed.rationale


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("78 / 3 = 26. So the answer is 26.", "78 / 3 = 26."),
        ("78 / 3 = 26, therefore the final answer is 26.", "78 / 3 = 26"),
        ("Answer: 26\nExplanation: 78 / 3 = 26", "78 / 3 = 26"),  # the answer came first
        ("A: 78 / 3 = 26\n#### 26", "78 / 3 = 26"),
        (
            "Luke played 78 / 3 = 26 rounds.",
            "Luke played 78 / 3 = 26 rounds.",
        ),  # nothing announced: nothing cut
        ("78/3 = <<78/3=26>>26\n#### 26", "78/3 = 26"),
        ("So the answer is 26.", ""),
    ],
)
def test_the_closing_is_not_part_of_the_rationale(text, rationale):
    assert TASK.parse(text, ASKED).rationale == rationale


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "I do not know.",
        "This one cannot be answered.",
        "So the answer is",
        "5/0",
        "9" * 5000,
    ],
)
def test_a_text_without_a_number_says_why(text):
    parsed = TASK.parse(text, ASKED)
    assert parsed.answer is None and parsed.reason


@pytest.mark.parametrize(
    "ending",
    [
        "So the answer is unknown.",
        "The answer is **unclear**, as he may have more.",
        "Therefore, the answer cannot be determined.",
        "Answer: not given",
        "The answer is impossible to say.",
    ],
)
def test_an_answer_that_is_none_is_not_an_earlier_number(ending):
    parsed = TASK.parse(f"He has 5 + 3 = 8 nuts. {ending}", ASKED)
    assert parsed.answer is None and "says that there is no answer" in parsed.reason


def test_a_long_degenerate_text_is_read_in_time():
    """Guards against regular expressions that take quadratic time on what a broken model
    repeats.
    """
    for piece in ("* ", "the ", "answer is ", "1,", "Q:", "-", "= ", "(", "\n"):
        TASK.parse(piece * (50_000 // len(piece)), ASKED)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("32", "32"),
        ("32.0", "32"),
        (" $32.00 ", "32"),
        ("32 apples", "32"),
        ("1,234", "1234"),
        ("20%", "20"),
        ("x = 32", "32"),
        ("It is 30 + 2.\n#### 32", "32"),  # GSM8K as it is published
        ("-0", "0"),
        ("twelve", "12"),
        ("1/3", "1/3"),
        ("", None),
        ("apples", None),
        ("5 or 6", None),
        ("nan", None),
        ("__import__('os')", None),
    ],
)
def test_canonical(written, canonical):
    assert TASK.canonical(written, ASKED) == canonical
    if canonical is not None:
        assert TASK.canonical(canonical, ASKED) == canonical


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200), st.integers(-1000, 1000))
def test_the_students_text_reads_back(rationale, number):
    """What the student is trained to write is read with its own answer, whatever stands before;
    only a run-on header would cut it.
    """
    rationale = rationale.replace(":", "")
    assert answer(TASK.explanation(rationale, str(number), ASKED)) == str(number)


@pytest.mark.parametrize(
    "closing",
    [
        "Answer = {answer}",
        "#### {answer}",
        "I say {answer}, and that is all.",
        "(result: {answer})",
    ],
)
def test_another_closing_phrase_reads_back(closing):
    task = build_task(TaskRecipe(kind="arithmetic", closing=closing))
    parsed = task.parse(task.explanation("He had 3 and 4 of 99.", "7", ASKED), ASKED)
    assert (parsed.answer, parsed.rationale) == ("7", "He had 3 and 4 of 99.")


def test_a_closing_that_could_not_be_found_again_is_refused():
    with pytest.raises(UserError, match=r"task\.closing"):
        build_task(TaskRecipe(kind="arithmetic", closing="{answer} it is."))


def test_a_gold_answer_that_is_no_number_is_refused():
    assert "not one number" in TASK.check(Question(id="1", question="How many?", answer="many"))
    assert TASK.check(Question(id="1", question="  ", answer="3")) == "the question is empty"
    assert TASK.check(Question(id="1", question="How many?", answer=None)) == ""
