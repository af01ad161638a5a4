"""What a rationale set gives the student to learn: texts, and their tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from qcrd_ray.data.records import Outcome, Question, Role
from qcrd_ray.method.tokenization import tokenize, tokenize_inputs
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

_IDS = pa.list_(pa.int32())

PREPARED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the user's question id
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("input", pa.string()),  # as the student reads it, without a prefix
        ("answer", pa.string()),  # the canonical label; null: none
        ("predict", _IDS),
        ("explain", _IDS),
        ("label", _IDS),  # empty: no label
        ("positives", pa.list_(pa.string())),  # targets of the `explain:` head; each text once
        ("positive_ids", pa.list_(_IDS)),
        ("negatives", pa.list_(pa.string())),  # the teacher's minority
        ("negative_ids", pa.list_(_IDS)),
        # the first sample that could be read, right or wrong, voted on or not; empty: none
        ("first", _IDS),
        # the same reasoning closed by the label; empty: there is no label, or no such sample
        ("single", _IDS),
    ]
)


def target_texts(rows: Iterable[dict[str, Any]], task: Task) -> Iterator[str]:
    """The texts that a new tokenizer is trained on: inputs with prefixes, labels, explanations."""
    for row in rows:
        question = Question.from_row(row)
        yield from (prefix + task.student_input(question) for prefix in (PREDICT, EXPLAIN))
        answers = (c["answer"] for c in row["completions"])
        yield from (task.label(answer, question) for answer in answers if answer is not None)
        yield from _explanations(row, Role.POSITIVE, task)


def select_targets(
    row: dict[str, Any], task: Task, recipe: Recipe
) -> tuple[dict[str, Any] | None, str]:
    """The texts of one question, or None and the reason why it cannot be trained on."""
    if row["outcome"] == Outcome.REJECTED_INPUT:
        return None, f"rejected: {row['reason']}"
    question, labels = Question.from_row(row), recipe.objective.labels
    label = row["gold"] if labels == "gold" else row["vote"]
    answer = task.canonical(label, question) if label is not None else None
    if recipe.objective.positives == "label" and answer is not None:
        row = row | {"completions": [c | {"role": _role(c, answer)} for c in row["completions"]]}
    positives = list(dict.fromkeys(_explanations(row, Role.POSITIVE, task)))
    negatives = (
        list(dict.fromkeys(_explanations(row, Role.NEGATIVE, task)))
        if recipe.negatives.teacher
        else []
    )
    if answer is None and not positives:
        why = f"no {labels} answer" if label is None else f"the {labels} answer cannot be read"
        return None, f"{why} and no voted rationale"
    return {
        "id": row["question_id"],
        "question": row["question"],
        "choices": row["choices"],
        "input": task.student_input(question),
        "answer": answer,
        "positives": positives,
        "negatives": negatives,
        **_first(row, answer, task, question),
    }, ""


def _role(completion: dict[str, Any], answer: str) -> Role:
    """The role of a completion where the label takes the place of the vote.

    One that could not vote (its `reason` says why) abstains here too.
    """
    if completion["answer"] is None or completion["reason"]:
        return Role.ABSTAINED
    return Role.POSITIVE if completion["answer"] == answer else Role.NEGATIVE


def _first(
    row: dict[str, Any], answer: str | None, task: Task, question: Question
) -> dict[str, str | None]:
    """The targets of the methods that take the first readable sample.

    "first" is closed by the sample's own answer, "single" by the label.
    """
    completion = next(filter(_readable, row["completions"]), None)
    if completion is None:
        return {"first": None, "single": None}
    rationale = completion["rationale"]
    return {
        "first": task.explanation(rationale, completion["answer"], question),
        "single": None if answer is None else task.explanation(rationale, answer, question),
    }


def tokenize_targets(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    counts: Counter[str],
) -> None:
    """Add the token columns to ``rows``, and what was cut to ``counts``."""

    def ids(texts: list[str], limit: int, name: str) -> list[list[int]]:
        tokenized = (tokenize_inputs if name == "inputs" else tokenize)(
            tokenizer, texts, max_tokens=limit
        )
        counts[f"truncated_{name}"] += tokenized.truncated
        return [list(row) for row in tokenized.rows]

    inputs, targets = recipe.student.max_input_tokens, recipe.student.max_target_tokens
    for column, prefix in (("predict", PREDICT), ("explain", EXPLAIN)):
        for row, tokens in zip(
            rows, ids([prefix + row["input"] for row in rows], inputs, "inputs"), strict=True
        ):
            row[column] = tokens
    labelled = [row for row in rows if row["answer"] is not None]
    for row in rows:
        row["label"] = []
    for row, tokens in zip(
        labelled,
        ids(
            [task.label(row["answer"], Question.from_row(row)) for row in labelled],
            targets,
            "labels",
        ),
        strict=True,
    ):
        row["label"] = tokens
    others = [text for row in rows for text in _others(row)]
    counts["others"] += len(others)
    counts["truncated_others"] += tokenize(tokenizer, others, max_tokens=targets).truncated
    for column in ("first", "single"):
        texts = [row[column] for row in rows if row[column] is not None]
        flat = iter(ids(texts, targets, column))
        for row in rows:
            row[column] = [] if row[column] is None else next(flat)
        counts[f"with_{column}"] += len(texts)
    counts["longest_label"] = max(
        [counts["longest_label"], *(len(row["label"]) for row in labelled)]
    )
    for side, column in (("positives", "positive_ids"), ("negatives", "negative_ids")):
        flat = iter(ids([text for row in rows for text in row[side]], targets, side))
        for row in rows:
            row[column] = [next(flat) for _ in row[side]]
            counts[side] += len(row[side])
    counts["questions"] += len(rows)
    counts["labelled"] += len(labelled)
    counts["with_positives"] += sum(bool(row["positives"]) for row in rows)
    counts["with_teacher_negatives"] += sum(bool(row["negatives"]) for row in rows)


def _others(row: dict[str, Any]) -> set[str]:
    """The targets of a question, each once, that are neither positives nor negatives."""
    return {row["first"], row["single"]} - {None, *row["positives"], *row["negatives"]}


def _explanations(row: dict[str, Any], role: Role, task: Task) -> list[str]:
    """The targets of a question's completions of one role."""
    question = Question.from_row(row)
    return [
        task.explanation(c["rationale"], c["answer"], question)
        for c in row["completions"]
        if c["role"] == role and _readable(c)
    ]


def _readable(completion: dict[str, Any]) -> bool:
    """Whether a completion gives a target: a rationale without a word teaches nothing."""
    return bool(completion["rationale"].strip()) and completion["answer"] is not None
