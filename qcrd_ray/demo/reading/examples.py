"""What the base reads: word problems with slots, each with a label or a rationale, or both.

They come from three places:

- MAWPS and ASDiv-A with their equations in prefix notation: the label, and bare steps;
- GSM8K's solutions with their calculator marks: rationales in sentences;
- the built-in stories: rationales in sentences, and numbers of no use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from qcrd_ray.data.overlap import same_questions
from qcrd_ray.data.records import Question
from qcrd_ray.demo.recorded import read_rows
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.numbers import plain
from qcrd_ray.tasks.slots import numbers_of
from qcrd_ray.tasks.steps import NUMBER, value_of

BUILT_IN = 3_000  # stories
LONGEST_QUESTION, LONGEST_RATIONALE = 70, 50  # words, of a GSM8K row
# of two operands, and no end of a longer one
_STEP = re.compile(
    r"(?<![-+*/.\w])(?<![-+*/] )([nr]\d+|[\d.]+) ?([-+*/]) ?([nr]\d+|[\d.]+) ?= ?(r\d+)"
)


@dataclass(frozen=True, slots=True)
class Example:
    """A question as the student reads it, and what its two heads are to write; "": nothing."""

    question: Question
    input: str
    label: str
    explanation: str


def slotted_task() -> Task:
    """The task of the recipes, with the bare prompt."""
    return build_task(TaskRecipe(kind="slotted_arithmetic", instruction=""))


def read_examples(
    data: Path, *, recorded: Sequence[Question], seed: int
) -> tuple[list[Example], Counter[str]]:
    """The examples of the folders mwp and gsm8k in ``data``, and built-in ones.

    Args:
        recorded: questions that must not be read; an example on one of them is left out.

    Returns:
        The examples, and how many there are of each source and how many were left out.
    """
    task = slotted_task()
    counts: Counter[str] = Counter()
    made = {
        "mwp": list(_equations(data / "mwp" / "train.jsonl", task)),
        "gsm8k": list(_solutions(data / "gsm8k" / "train.jsonl", task)),
        "built-in": list(_stories(task, seed)),
    }
    kept: list[Example] = []
    for source, examples in made.items():
        known = set(same_questions([each.question for each in examples], recorded))
        kept += [each for each in examples if each.question.id not in known]
        counts[source] = len(examples) - len(known)
        counts["left out, since recorded"] += len(known)
    return kept, counts


def _equations(file: Path, task: Task) -> Iterator[Example]:
    """Questions whose equation gives their answer."""
    for row in read_rows(file, "id", "question", "answer", "equation_prefix"):
        question = Question(id=row["id"], question=row["question"], answer=row["answer"])
        label = with_slots(row["equation_prefix"], numbers_of(question.question))
        right = task.canonical(row["answer"], question)
        if not task.check(question) and "n" in label and task.canonical(label, question) == right:
            steps, last = steps_of(label)
            explanation = f"{steps} {_closing(last)}"
            yield Example(question, task.student_input(question), label, explanation)


def _solutions(file: Path, task: Task) -> Iterator[Example]:
    """Questions of which every step, and so the answer, is computed from slots."""
    for row in read_rows(file, "id", "question", "answer", "rationale"):
        question = Question(id=row["id"], question=row["question"], answer=row["answer"])
        answer = task.canonical(row["answer"], question)
        rationale = " ".join(plain(row["rationale"]).split())
        if (
            answer is None
            or task.check(question)
            or len(row["question"].split()) > LONGEST_QUESTION
            or len(rationale.split()) > LONGEST_RATIONALE
        ):
            continue
        explanation = task.explanation(rationale, answer, question)
        computed = re.findall(r"\br\d+", explanation)
        if computed and explanation.endswith(_closing(computed[-1])):
            label = _checked(expression_from(explanation), question, task)
            yield Example(question, task.student_input(question), label, explanation)


def _stories(task: Task, seed: int) -> Iterator[Example]:
    for story in word_problems.generate(BUILT_IN, seed=seed, kind="pretraining"):
        explanation = task.explanation(story.rationale or "", story.answer or "", story)
        label = _checked(expression_from(explanation), story, task)
        yield Example(story, task.student_input(story), label, explanation)


def _checked(label: str, question: Question, task: Task) -> str:
    """``label``, or "" if it does not give the question's answer."""
    right = task.canonical(question.answer or "", question)
    return label if label and task.canonical(label, question) == right else ""


def _closing(result: str) -> str:
    return TaskRecipe(kind="slotted_arithmetic").closing.replace("{answer}", result)


def with_slots(prefix: str, given: Sequence[Fraction]) -> str:
    """An equation in prefix notation with slots for its numbers; equal ones take the next slot."""
    used: set[str] = set()
    written = []
    for token in prefix.split():
        slots = (
            [f"n{i}" for i, value in enumerate(given, 1) if value == value_of(token)]
            if re.fullmatch(NUMBER, token)
            else []
        )
        slot = next((each for each in slots if each not in used), slots[0] if slots else token)
        used.add(slot)
        written.append(slot)
    return " ".join(written)


def steps_of(expression: str) -> tuple[str, str]:
    """The steps of an expression in prefix notation, and the name of the last result."""
    stack: list[str] = []
    steps: list[str] = []
    for token in reversed(expression.split()):
        if token in ("+", "-", "*", "/"):
            steps.append(f"{stack.pop()} {token} {stack.pop()} = r{len(steps) + 1}.")
            stack.append(f"r{len(steps)}")
        else:
            stack.append(token)
    return " ".join(steps), stack[0]


def expression_from(explanation: str, *, most: int = 3) -> str:
    """The expression in prefix notation that an explanation computes.

    "" if a step has another form than ``a + b = r1``, or it has more than ``most`` operations.
    """
    known: dict[str, str] = {}
    steps = list(_STEP.finditer(explanation))
    if len(steps) != explanation.count("="):
        return ""
    for one, operation, other, result in (step.groups() for step in steps):
        known[result] = f"{operation} {known.get(one, one)} {known.get(other, other)}"
    closing = re.findall(r"\br\d+", explanation)
    expression = known.get(closing[-1], "") if closing else ""
    return expression if 0 < sum(map(expression.count, "+-*/")) <= most else ""
