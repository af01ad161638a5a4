"""Spellings of answers: every way to announce one with every way to write one, 150 and more a kind.

Guards samples that are lost or misread for a mark, a tag or a wording that nobody thought of.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task

ANNOUNCED = (
    *("So the answer is {}.", "The answer is {}.", "The answer is: {}", "the answer is {}"),
    *("Therefore, the correct answer is {}.", "Answer: {}", "**Answer:** {}", "**Answer: {}**"),
    *("Final answer: {}.", "**Final Answer**\n{}", "### Answer\n{}", "#### {}", "Ans: {}"),
    *("<answer>{}</answer>", "<answer>\n{}\n</answer>", "The answer is:\n\n{}", "Answer = {}"),
    *("My final answer is {}", "Hence the answer must be {}.", "Answer - {}", "Answer → {}"),
    *("The answer would be {}.", "ANSWER: {}", "_Answer_: {}", "> Answer: {}"),
)
CHOSEN = (
    *("C", "(C)", "[C]", "C)", "**C**", '"C"', "`C`", r"\boxed{C}", r"\boxed{\text{C}}", "'C'"),
    *("$C$", "(c)", "c)", "option C", "Option (C)", "choice C", "(C) wool", "C. wool", "C: wool"),
    *("wool", "the wool", "**wool**", '"wool"', "C (wool)", "**Option C: wool**", "**C. wool**"),
    *("C, since sheep have it", "C because sheep have it", r"$\boxed{\textbf{C}}$", "<C>", "“C”"),
)
BARE_CHOICES = (
    *(
        "C",
        "C.",
        "c",
        "(C)",
        "(c).",
        "[C].",
        "**C**.",
        '"C".',
        "`C`.",
        r"\boxed{C}.",
        "C because w",
    ),
    *(
        "C.\nSheep have it.",
        "wool",
        "Wool.",
        "**Option C: wool**",
        "C) wool",
        "Option C",
        "C: wool",
    ),
    *("Therefore, C is the correct answer.", "C is correct.", "I choose C.", "So it must be (c)."),
    *("Sheep have it. Therefore, C.", "Thus, wool is the best choice.", "Sheep.\nC", "<b>C</b>"),
    *(
        "So it must be **C**.",
        "It has to be C.",
        "Sheep have it. It can only be (c).",
        "So it is C.",
    ),
    *("It must be C: wool.", "It must be C, as sheep have it.", "A bus is hard. That leaves C."),
    *("This leaves us with only option C.", "So we are left with (C).", "C has to be the answer."),
    *("This makes C the best choice.", "That makes option (C) correct.", "I would choose C."),
    *("I'd go with C.", "We’ll pick option C.", "The correct choice would be (C)", "I'd say C."),
)
NO_CHOICE = (
    *(
        "So the answer is C or D.",
        "The answer is (A) or (C).",
        "Answer: A, B, and C",
        "Answer: C/D",
    ),
    *(
        "So the answer is wool or bus.",
        "So the answer is (c) bus.",
        "The answer is not C.",
        "(",
        "",
    ),
    *("So the answer is a", "A. bus has wheels\nB. tram too\nC. wool has not", "It is (C) or (D)."),
    *(
        "It must be a cold day.",
        "It must be C or D.",
        "It has to be either B or C.",
        "It may be C.",
    ),
    *(
        "It must not be C.",
        "That leaves A and C.",
        "This leaves us with C, D.",
        "That leaves C out.",
    ),
    *(
        "This makes C the worst choice.",
        "I would choose C or D.",
        "I'd pick option B and option C.",
    ),
    *("I would not choose C.", "It must be C-shaped.", "It must be A big city.", "It must be a"),
)
NUMBERS = (
    *("1000", "1,000", "1 000", "1\u00a0000", "1\u202f000", "1\u2009000", "1'000", "1e3", "1E3"),
    *(
        "1.0e3",
        "10^3",
        "10^{3}",
        "10³",
        "1 × 10^3",
        "1000.0",
        "$1,000",
        "**1000**",
        r"\boxed{1000}",
    ),
    *("１０００", "١٠٠٠", "one thousand", "a thousand", "1 thousand", "2000/2", "1000 apples"),
    *("999 + 1 = 1000", r"\$1{,}000", "1_000", "`1000`", "1000, as 2000 is its double", "+1000"),
)
OTHER_NUMBERS = {
    "minus seven": "-7",
    "-7": "-7",
    "−7": "-7",
    "negative 7": "-7",
    "minus 7": "-7",
    "-$7": "-7",
    "1.5e3": "1500",
    "10^5": "100000",
    "2½": "2.5",
    "2 1/2": "2.5",
    "2 and a half": "2.5",
    "two and a half": "2.5",
    "one hundred and five": "105",
    "twenty-one": "21",
    "three point five": "3.5",
    "3.5 million": "3500000",
    "⅛": "0.125",
    "12 345": "12345",
    "٣٫٥": "3.5",
}
NO_NUMBER = (
    *("±3", "+/-3", "3,5", "0,125", "1.234,5", "12/25/2020", "10:30", "5 or 6", "5-6", "5 to 6"),
    *("5 and 6", "3 + 4", "5 x 6", "1.2.3", "0x1F", "5k", "$2M", "1e999", "7/0", "two or three"),
    *("one of them", "two dozen", "nineteen eighty", "5, 6, and 7", "5 dozen", "9" * 50),
)
LABELS = {
    "yes_no": {
        "yes": ("yes", "Yes", "YES", "true", "correct", "definitely yes", "a yes"),
        "no": ("no", "No", "false", "incorrect", "clearly no", '"No"', "`no`"),
    },
    "nli": {
        "entailment": ("entailment", "Entailment", "an entailment", "entailed", "yes", "true"),
        "contradiction": ("contradiction", "a contradiction", "contradictory", "no", "false"),
        "neutral": ("neutral", "it is not possible to tell", "neither", "unknown", "Neutral"),
    },
}
DRESSES = ("{}", "**{}**", '"{}"', "`{}`", r"\boxed{{{}}}", r"\boxed{{\text{{{}}}}}", "({})")
NO_LABEL = (
    *("The answer is yes and no.", "The answer is yes or no.", "The answer is either yes or no."),
    *("No dog flies.", "The answer is notable.", "Answer:", "Yesterday it rained.", "True love."),
)
SHORT = ("new york", "New York", "the New York", "**New York**", '"New York"', "`New York`")
BEFORE = (
    "",
    "A sheep is no vehicle. ",
    "Sheep give it.\n\n",
    "Let us think step by step.\nIt is soft.\n",
)
AFTER = (
    "",
    "\n",
    "  ",
    "\n\nI hope this helps!",
    "\n\nQ: What next?\nA: So the answer is (a) 5 no.",
)

TASKS = {
    kind: build_task(TaskRecipe(kind=kind))
    for kind in ("multiple_choice", "arithmetic", "yes_no", "nli", "short_text")
}
QUESTIONS = {
    "multiple_choice": Question(
        id="1", question="What is soft?", choices=("bus", "tram", "wool", "Rome")
    ),
    "arithmetic": Question(id="1", question="How many sheep are there?"),
    "yes_no": Question(id="1", question="Is wool soft?"),
    "nli": Question(id="1", question="Premise: A sheep.\nHypothesis: An animal."),
    "short_text": Question(id="1", question="Where is it?"),
}


def _table(kind: str) -> list[tuple[str, str]]:
    """Announced spellings of a kind, each with what it says."""
    if kind == "multiple_choice":
        forms = [(form, "wool") for form in CHOSEN]
    elif kind == "arithmetic":
        forms = [*((form, "1000") for form in NUMBERS), *OTHER_NUMBERS.items()]
    elif kind == "short_text":
        forms = [(form, "new york") for form in SHORT]
    else:
        forms = [
            (dress.format(word), label)
            for label, words in LABELS[kind].items()
            for word in words
            for dress in DRESSES
        ]
    return [(frame.format(form), said) for frame in ANNOUNCED for form, said in forms]


@pytest.mark.parametrize("kind", TASKS)
def test_every_announced_spelling_is_read(kind):
    table = _table(kind)
    assert len(table) >= 150
    task, question = TASKS[kind], QUESTIONS[kind]
    wrong = [(t, got) for t, said in table if (got := task.parse(t, question).answer) != said]
    assert not wrong, f"{len(wrong)} of {len(table)}: {wrong[:10]}"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_stands_around_a_spelling_changes_nothing(data):
    kind = data.draw(st.sampled_from(sorted(TASKS)))
    text, said = data.draw(st.sampled_from(_table(kind)))
    whole = f"{data.draw(st.sampled_from(BEFORE))}\n{text}{data.draw(st.sampled_from(AFTER))}"
    assert TASKS[kind].parse(whole, QUESTIONS[kind]).answer == said


@pytest.mark.parametrize("text", BARE_CHOICES)
def test_a_choice_is_read_where_nothing_announces_it(text):
    parsed = TASKS["multiple_choice"].parse(text, QUESTIONS["multiple_choice"])
    assert parsed.answer == "wool" and parsed.source


@pytest.mark.parametrize("text", NO_CHOICE)
def test_what_names_no_one_choice_is_unread(text):
    parsed = TASKS["multiple_choice"].parse(text, QUESTIONS["multiple_choice"])
    assert parsed.answer is None and parsed.reason


@pytest.mark.parametrize("form", NO_NUMBER)
@pytest.mark.parametrize("frame", ["So the answer is {}.", "First 8 - 1 = 7. The answer is {}"])
def test_an_unsure_number_is_unread_and_no_other_number(frame, form):
    task, question = TASKS["arithmetic"], QUESTIONS["arithmetic"]
    parsed = task.parse(frame.format(form), question)
    assert parsed.answer is None and "for sure" in parsed.reason
    assert task.canonical(form, question) is None


@pytest.mark.parametrize(
    "text", ["Yes.", "Yes", "Yes, because it is.", "It is. So, yes.", "**Yes**"]
)
def test_a_bare_yes_is_read(text):
    assert TASKS["yes_no"].parse(text, QUESTIONS["yes_no"]).answer == "yes"
    assert TASKS["nli"].parse(text, QUESTIONS["nli"]).answer == "entailment"


@pytest.mark.parametrize("text", NO_LABEL)
def test_what_names_no_one_label_is_unread(text):
    parsed = TASKS["yes_no"].parse(text, QUESTIONS["yes_no"])
    assert parsed.answer is None and parsed.reason


def test_a_decimal_comma():
    task = build_task(TaskRecipe(kind="arithmetic", decimal="comma"))
    question = Question(id="1", question="Wie viel?")
    for text, said in {
        "1.234,5": "1234.5",
        "3,5": "3.5",
        "0,125": "0.125",
        "1.234": "1234",
        "1 234,5": "1234.5",
        "1.5": "1.5",
    }.items():
        answer = task.parse(f"So the answer is {text}.", question).answer
        assert answer == said
        assert task.canonical(answer, question) == answer
    told = task.explanation("Darum.", task.canonical("1,234", question), question)
    assert (
        told == "Darum. So the answer is 1,2340." and task.parse(told, question).answer == "1.2340"
    )
    with pytest.raises(ValueError, match="only arithmetic reads a decimal comma"):
        TaskRecipe(kind="nli", decimal="comma")
