"""Reading the questions of a split, from a JSON Lines file or from the task's own generator.

No row is lost: each becomes a :class:`~qcrd_ray.records.Question` or a :class:`Rejected` with its line and reason. What is wrong with the
whole file (it is missing, a column is named wrongly, one id stands for two questions) raises at once.

A row without an answer is a question all the same: it can be asked, voted on and distilled; it only takes no part where gold is needed.
"""

from __future__ import annotations

import difflib
import hashlib
import random
from dataclasses import dataclass, replace
from typing import get_args

from qcrd_ray.errors import UserError
from qcrd_ray.json_lines import Line, read_json_lines
from qcrd_ray.recipe import Split
from qcrd_ray.records import Question
from qcrd_ray.tasks import word_problems
from qcrd_ray.tasks.base import Task

FIELDS = ("id", "question", "choices", "answer", "rationale")
KEPT_TEXT = 2_000  # characters of a rejected row that are kept beside its reason; the file has the rest


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be asked: its 1-based line (or place among the generated), its id where it has one, why, and its text."""

    row: int
    id: str | None
    reason: str
    text: str


def read_questions(
    split: Split, *, task: Task, columns: dict[str, str], kind: str, max_chars: int
) -> tuple[list[Question], list[Rejected]]:
    """The questions of a split with gold answers in their canonical spelling, and the rows that are none.

    ``kind`` is the recipe's ``task.kind``; questions over ``max_chars`` characters are rejected. Together the two lists hold every row of
    ``split.rows``. Duplicates are looked for in the whole file, so that two splits of one file cannot share a question.

    Raises: :class:`UserError` for a missing or empty file, a column that no row has, one id with two different questions, ``rows`` that
    the file does not have, or when no row at all can be used.
    """
    if split.path is None:
        source = f"the generator of {kind}"
        rows = [_checked(i, q, task, max_chars, str(q)) for i, q in enumerate(_generated(split, kind), 1)]
    else:
        source = split.path
        rows = _file_rows(split.path, task, columns, kind, max_chars)
    rows = _taken(rows, split, source)
    questions = [row for row in rows if isinstance(row, Question)]
    rejected = [row for row in rows if isinstance(row, Rejected)]
    if not questions:
        first = "".join(f"\n  row {r.row}: {r.reason}" for r in rejected[:3])
        raise UserError(f"{source}: none of its {len(rows)} rows can be used:{first}")
    return questions, rejected


def _generated(split: Split, kind: str) -> list[Question]:
    if kind != "word_problems":
        raise UserError(f"data: only the word_problems task makes its own questions, not {kind}: give a `path`")
    kinds = get_args(word_problems.Kind)
    if split.kind is not None and split.kind not in kinds:
        raise UserError(f"data: the generator's kind must be one of {', '.join(kinds)}, not {split.kind!r}")
    return word_problems.generate(split.generate, seed=split.seed, kind=split.kind or "seen")


def _taken(rows: list, split: Split, source: str) -> list:
    """The rows that ``shuffle`` and ``rows`` leave."""
    if split.shuffle is not None:
        random.Random(split.shuffle).shuffle(rows)
    if split.rows is None:
        return rows
    first, past = split.rows
    if past > len(rows):
        raise UserError(f"{source}: rows [{first}, {past}] asks for more rows than the {len(rows)} that it has")
    return rows[first:past]


def _file_rows(path: str, task: Task, columns: dict[str, str], kind: str, max_chars: int) -> list[Question | Rejected]:
    lines = read_json_lines(path)
    has_ids = check_columns(path, lines, columns=columns, kind=kind)
    rows: list[Question | Rejected] = []
    seen: dict[str, tuple[int, Question]] = {}
    for line in lines:
        row = read_row(line, task=task, columns=columns, max_chars=max_chars, needs_id=has_ids)
        if isinstance(row, Question):
            number, earlier = seen.setdefault(row.id, (line.number, row))
            if earlier is not row:
                if (earlier.question, earlier.choices) != (row.question, row.choices):
                    raise UserError(
                        f"{path}: id {row.id!r} stands for two different questions, in lines {number} and {line.number}; "
                        f"give each question its own id, or map another column with data.columns.id"
                    )
                differs = "" if earlier.answer == row.answer else f", with the answer {row.answer!r} where that has {earlier.answer!r}"
                row = _rejected(line, f"a duplicate of line {number}{differs}", row.id)
        rows.append(row)
    return rows


def check_columns(path: str, lines: list[Line], *, columns: dict[str, str], kind: str, how: str = "data.columns.{field}") -> bool:
    """Refuse a column that no row has; whether the rows have ids. Ids may be left out by all: they are then made from the question.

    ``how``: where the user says which column holds a field, for the error.
    """
    names = {field: columns.get(field, field) for field in FIELDS}
    present = list(dict.fromkeys(key for line in lines if line.data for key in line.data))
    needed = {"question"} | set(columns) | ({"choices"} if kind == "multiple_choice" else set())
    for field in FIELDS:
        if present and field in needed and names[field] not in present:
            near = difflib.get_close_matches(names[field], present, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UserError(
                f"{path}: no row has the column {names[field]!r}{hint} The columns are: {', '.join(present)}. "
                f"Say which one holds the {field} with {how.format(field=field)}"
            )
    return names["id"] in present


def read_row(line: Line, *, task: Task, columns: dict[str, str], max_chars: int, needs_id: bool) -> Question | Rejected:
    """One line as a question, or why it is none. A row without an id gets one that is made from its question, unless it ``needs_id``."""
    if line.data is None:
        return _rejected(line, line.reason)
    names = {field: columns.get(field, field) for field in FIELDS}
    values = {field: line.data.get(name) for field, name in names.items()}
    try:
        question = Question(
            id=_text(values["id"], names["id"]) or "",
            question=_text(values["question"], names["question"]) or "",
            choices=_choices(values["choices"], names["choices"]),
            answer=_text(values["answer"], names["answer"]),
            rationale=_text(values["rationale"], names["rationale"]),
        )
    except ValueError as error:
        return _rejected(line, str(error))
    if not question.id:
        if needs_id:
            return _rejected(line, f"no {names['id']}")
        question = replace(question, id="q-" + hashlib.sha256(repr((question.question, question.choices)).encode()).hexdigest()[:16])
    return _checked(line.number, question, task, max_chars, line.text)


def _checked(number: int, question: Question, task: Task, max_chars: int, text: str) -> Question | Rejected:
    if len(question.question) > max_chars:
        reason = f"the question has {len(question.question):,} characters, over task.max_question_chars = {max_chars:,}"
    else:
        reason = task.check(question)
    if reason:
        return Rejected(number, question.id, reason, text[:KEPT_TEXT])
    return replace(question, answer=None if question.answer is None else task.canonical(question.answer, question))


def _rejected(line: Line, reason: str, id: str | None = None) -> Rejected:
    return Rejected(line.number, id, reason, line.text[:KEPT_TEXT])


def _text(value: object, column: str) -> str | None:
    """A text or a number as text; None where there is nothing."""
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{column} must be a text, not {type(value).__name__}")


def _choices(value: object, column: str) -> tuple[str, ...]:
    """A list of texts; also the Hub's {"label": [...], "text": [...]}."""
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{column} must be a list of texts, not {type(value).__name__}")
    return tuple(_text(choice, f"each of {column}") or "" for choice in value)
