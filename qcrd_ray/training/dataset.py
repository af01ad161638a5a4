"""The prepared training set, read back: memory-mapped rows, and the examples of one round with
everything that round knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from qcrd_ray.data.records import Question, StudentNegative
from qcrd_ray.method.batching import Rounds, global_batch, keyed_seed
from qcrd_ray.method.examples import Example, Rationale, Source, Tokens
from qcrd_ray.method.negatives import merge
from qcrd_ray.method.tokenization import tokenise
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.base import Task

_READ_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A question of the training set: its example with the teacher's rationales (without scores),
    and the texts behind it.
    """

    question: Question
    input: str
    answer: str | None
    example: Example
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundQuestion:
    """A question as one round knows it: its example with what the student wrote and what was made,
    the text of each of its rationales,
    and which of the student's end in the right answer (None: in none, or there is no label).
    """

    row: Row
    example: Example
    texts: Mapping[Tokens, str]
    right: Mapping[Tokens, bool | None]


class TrainingSet:
    """Rows by their index. The file is memory-mapped: workers on a node share it, and a million
    questions cost no memory.
    """

    def __init__(self, file: Path):
        self._rows = Dataset.from_file(str(file))

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> dict[int, Row]:
        columns = self._rows[list(indices)]
        return {
            index: _row({name: column[i] for name, column in columns.items()})
            for i, index in enumerate(indices)
        }

    def rows(self) -> Iterator[Row]:
        """All rows in their order, some at a time."""
        for first in range(0, len(self), _READ_AT_ONCE):
            yield from self.read(range(first, min(first + _READ_AT_ONCE, len(self)))).values()

    @cached_property
    def words(self) -> list[str]:
        """The words of the teacher's positives, sorted: what word replacement draws from."""
        first = self._rows[: min(len(self), 20_000)]["positives"]
        return sorted({word for texts in first for text in texts for word in text.split()})


def rounds_of(recipe: Recipe, questions: int) -> Rounds:
    """The recipe's rounds over that many questions."""
    train = recipe.train
    return Rounds(
        count=train.rounds,
        unit=train.round.unit,
        size=train.round.size,
        questions=questions,
        batch_size=train.batch_size,
    )


def step_batch(recipe: Recipe, questions: int, step: int) -> list[int]:
    """Which questions step ``step`` trains on: a pure function of (seed, step)."""
    return global_batch(
        seed=keyed_seed(recipe.seed, "batches"),
        step=step,
        questions=questions,
        batch_size=recipe.train.batch_size,
    )


def round_questions(recipe: Recipe, rounds: Rounds, round: int) -> list[int]:
    """The questions that occur in a round, each once, in ascending order: only these are sampled
    and scored.
    """
    return sorted(
        {
            index
            for step in rounds.steps(round)
            for index in step_batch(recipe, rounds.questions, step)
        }
    )


def assemble(
    rows: Mapping[int, Row],
    negatives: Iterable[StudentNegative],
    *,
    made: Mapping[int, Sequence[tuple[str, Source]]] | None = None,
    right: Literal["keep", "drop", "positive"] = "keep",
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> dict[int, RoundQuestion]:
    """Each row together with what older snapshots wrote about it and what was ``made`` of its
    positives, every text once a side.

    ``right``: what a student's sample that ends in the right answer is: a negative like the others,
    nothing, or a positive.
    """
    written: dict[str, dict[str, StudentNegative]] = {}
    for negative in negatives:
        if negative.text.strip() and not (right == "drop" and negative.right):
            written.setdefault(negative.question_id, {}).setdefault(negative.text.strip(), negative)
    made = made or {}
    texts = sorted(
        {text for several in (*written.values(), *map(dict, made.values())) for text in several}
    )
    tokens = dict(zip(texts, tokenise(tokenizer, texts, max_tokens=max_tokens).rows, strict=True))
    assembled = {}
    for index, row in rows.items():
        own = written.get(row.question.id, {})
        rewritten = dict(made.get(index, ()))
        praised = {text for text, negative in own.items() if right == "positive" and negative.right}
        # a cut text can lose what made it wrong
        known = {rationale.tokens for rationale in row.example.positives}
        merged = merge(
            [
                *row.example.positives,
                *(
                    Rationale(tokens=tokens[text], source=Source.STUDENT)
                    for text in own
                    if text in praised
                ),
            ],
            row.example.negatives,
            [
                *(
                    Rationale(tokens=tokens[text], source=Source.STUDENT)
                    for text in own
                    if text not in praised
                ),
                *(
                    Rationale(tokens=tokens[text], source=source)
                    for text, source in rewritten.items()
                    if tokens[text] not in known
                ),
            ],
            # by another label than the vote, what the minority says can be right
            drop_equal_to_positive=right == "positive",
        )
        of_tokens = {tokens[text]: text for text in (*rewritten, *own)}
        of_tokens |= {
            r.tokens: text for r, text in zip(row.example.negatives, row.negatives, strict=True)
        }
        of_tokens |= {
            r.tokens: text for r, text in zip(row.example.positives, row.positives, strict=True)
        }
        assembled[index] = RoundQuestion(
            row=row,
            example=replace(row.example, positives=merged.positives, negatives=merged.negatives),
            texts=of_tokens,
            right={tokens[text]: negative.right for text, negative in own.items()},
        )
    return assembled


def candidates(questions: Iterable[RoundQuestion]) -> dict[str, int]:
    """How many negatives each source gives a round, and how many of the student's samples are
    positives in it, for the log.
    """
    negatives, praised = Counter({source: 0 for source in Source}), 0
    for question in questions:
        negatives.update(rationale.source for rationale in question.example.negatives)
        praised += sum(
            rationale.source == Source.STUDENT for rationale in question.example.positives
        )
    return {
        **{f"from_{source}": count for source, count in negatives.items()},
        "student_positives": praised,
    }


def read_validation(file: Path, task: Task, *, limit: int | None) -> list[Question]:
    """The validation questions with a readable gold answer, in canonical spelling; the first
    ``limit`` of them.
    """
    rows = pq.read_table(file).to_pylist()
    questions = [Question(**{**row, "choices": tuple(row["choices"] or ())}) for row in rows]
    answered = []
    for question in questions:
        answer = task.canonical(question.answer, question) if question.answer is not None else None
        if answer is not None:
            answered.append(replace(question, answer=answer))
    return answered[:limit]


def _row(row: dict) -> Row:
    return Row(
        question=Question(
            id=row["id"],
            question=row["question"],
            choices=tuple(row["choices"] or ()),
            answer=row["answer"],
        ),
        input=row["input"],
        answer=row["answer"],
        example=Example(
            predict=tuple(row["predict"]),
            explain=tuple(row["explain"]),
            label=tuple(row["label"]) or None,
            positives=tuple(Rationale(tokens=tuple(ids)) for ids in row["positive_ids"]),
            negatives=tuple(Rationale(tokens=tuple(ids)) for ids in row["negative_ids"]),
            first=tuple(row["first"]) or None,
            single=tuple(row["single"]) or None,
        ),
        positives=tuple(row["positives"]),
        negatives=tuple(row["negatives"]),
    )
