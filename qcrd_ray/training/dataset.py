"""The prepared training set, read back: memory-mapped rows, and the questions of one round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from qcrd_ray.data.records import Question, StudentNegative
from qcrd_ray.method.batching import Rounds
from qcrd_ray.method.examples import Example, Rationale, Source, Tokens
from qcrd_ray.method.negatives import merge_rationales
from qcrd_ray.method.tokenization import tokenize
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.questions import iter_questions

QUESTIONS_A_ROUND = 10_000  # 44 KB each on every worker
_READ_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A question of the training set.

    ``example`` holds the teacher's rationales, without scores; ``positives`` and ``negatives`` are
    their texts.
    """

    question: Question
    input: str
    answer: str | None
    example: Example
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundQuestion:
    """A question in one round.

    ``example``: with the round's student negatives and synthetic negatives.
    ``texts``: the text of each of its rationales.
    ``right``: whether a sample of the student ends in the right answer; None: it ends in none, or
    there is no label.
    """

    row: Row
    example: Example
    texts: Mapping[Tokens, str]
    right: Mapping[Tokens, bool | None]


class TrainingSet:
    """Rows by their index, over all parts of a prepared training set.

    The files are memory-mapped: workers on a node share them, and a million questions cost no
    memory.
    """

    def __init__(self, folder: Path):
        files = sorted(folder.glob("train-*.arrow"))
        self._rows = concatenate_datasets([Dataset.from_file(str(file)) for file in files])

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> dict[int, Row]:
        """The rows at ``indices``."""
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
    """The recipe's rounds over ``questions`` questions.

    By default a round is one pass over them, or reads QUESTIONS_A_ROUND where there are more.
    """
    train = recipe.train
    unit, size = train.round.unit, train.round.size
    if size is None and questions > QUESTIONS_A_ROUND:
        unit, size = "steps", -(-QUESTIONS_A_ROUND // train.batch_size)
    return Rounds(
        count=train.rounds,
        unit=unit,
        size=size or 1,
        questions=questions,
        batch_size=train.batch_size,
        seed=recipe.seed,
    )


def assemble(
    rows: Mapping[int, Row],
    negatives: Iterable[StudentNegative],
    *,
    synthetic: Mapping[int, Sequence[tuple[str, Source]]] | None = None,
    right: Literal["keep", "drop", "positive"] = "keep",
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
) -> dict[int, RoundQuestion]:
    """Each row with its student negatives and ``synthetic`` negatives, each text once a side.

    ``right`` is `negatives.right`: what a sample of the student that ends in the right answer is. A
    negative like the others, left out, or a positive.
    """
    sampled: dict[str, dict[str, StudentNegative]] = {}  # by question and text
    for negative in negatives:
        text = negative.text.strip()
        if text and not (right == "drop" and negative.right):
            sampled.setdefault(negative.question_id, {}).setdefault(text, negative)
    synthetic = synthetic or {}
    texts = sorted(
        {text for samples in sampled.values() for text in samples}
        | {text for pairs in synthetic.values() for text, _ in pairs}
    )
    tokens = dict(zip(texts, tokenize(tokenizer, texts, max_tokens=max_tokens).rows, strict=True))
    return {
        index: _round_question(
            row,
            sampled.get(row.question.id, {}),
            dict(synthetic.get(index, ())),
            tokens,
            right_as_positive=right == "positive",
        )
        for index, row in rows.items()
    }


def _round_question(
    row: Row,
    sampled: Mapping[str, StudentNegative],
    synthetic: Mapping[str, Source],
    tokens: Mapping[str, Tokens],
    *,
    right_as_positive: bool,
) -> RoundQuestion:
    """``row`` with its student samples and synthetic negatives, both by text.

    ``tokens`` are those of each text.
    """
    teacher_positives, teacher_negatives = row.example.positives, row.example.negatives
    # a text that was cut can have lost what made it wrong
    known = {rationale.tokens for rationale in teacher_positives}
    from_student = {text: Rationale(tokens=tokens[text], source=Source.STUDENT) for text in sampled}
    as_positives = {text for text in sampled if right_as_positive and sampled[text].right}
    positives, negatives = merge_rationales(
        [*teacher_positives, *(from_student[text] for text in sampled if text in as_positives)],
        [
            *teacher_negatives,
            *(from_student[text] for text in sampled if text not in as_positives),
            *(
                Rationale(tokens=tokens[text], source=source)
                for text, source in synthetic.items()
                if tokens[text] not in known
            ),
        ],
        # by another label than the vote, what the minority says can be right
        drop_equal_to_positive=right_as_positive,
    )
    # the teacher's text wins where two have the same tokens
    text_of = {tokens[text]: text for text in (*synthetic, *sampled)}
    text_of |= _texts(teacher_negatives, row.negatives)
    text_of |= _texts(teacher_positives, row.positives)
    return RoundQuestion(
        row=row,
        example=replace(row.example, positives=positives, negatives=negatives),
        texts=text_of,
        right={tokens[text]: negative.right for text, negative in sampled.items()},
    )


def _texts(rationales: Sequence[Rationale], texts: Sequence[str]) -> dict[Tokens, str]:
    return {rationale.tokens: text for rationale, text in zip(rationales, texts, strict=True)}


def count_sources(questions: Iterable[RoundQuestion]) -> dict[str, int]:
    """How many of a round's negatives each source gave, for the log.

    Student samples that count as positives in the round are counted too.
    """
    negatives, student_positives = Counter({source: 0 for source in Source}), 0
    for question in questions:
        negatives.update(rationale.source for rationale in question.example.negatives)
        student_positives += sum(
            rationale.source == Source.STUDENT for rationale in question.example.positives
        )
    return {
        **{f"from_{source}": count for source, count in negatives.items()},
        "student_positives": student_positives,
    }


def read_validation(file: Path, task: Task, *, limit: int | None) -> list[Question]:
    """The first ``limit`` validation questions with a readable gold answer, made canonical."""
    answered = []
    for question in iter_questions(file):
        answer = task.canonical(question.answer, question) if question.answer is not None else None
        if answer is not None:
            answered.append(replace(question, answer=answer))
        if len(answered) == limit:
            break
    return answered


def _row(row: dict) -> Row:
    return Row(
        question=Question.from_row(row),
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
