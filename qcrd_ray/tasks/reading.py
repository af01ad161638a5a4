"""Reading the questions of a split, from a file, a Hugging Face data set or the task's own
generator.

No row is lost: each becomes a :class:`~qcrd_ray.data.records.Question` or a :class:`Rejected` with
its line and reason. What is wrong with the whole source (it is missing, a column is named wrongly,
one id stands for two questions) raises at once.

A row without an answer is a question all the same: it can be asked, voted on and distilled; it only
takes no part where gold is needed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from qcrd_ray.data.columns import Column, is_empty, paths, pick, root
from qcrd_ray.data.json_lines import Line
from qcrd_ray.data.records import Question
from qcrd_ray.data.sources import RowSource, open_source
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split
from qcrd_ray.tasks import word_problems
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.short_text import SEVERAL

FIELDS = ("id", "question", "choices", "answer", "rationale")
# characters of a rejected row that are kept beside its reason; the file has the rest
KEPT_TEXT = 2_000


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be asked: its 1-based line (or place among the rows), its id where it has
    one, why, and its text.
    """

    row: int
    id: str | None
    reason: str
    text: str


def read_questions(
    split: Split,
    *,
    task: Task,
    columns: Mapping[str, Column],
    kind: str,
    max_chars: int,
    values: Mapping[str, str] | None = None,
) -> tuple[list[Question], list[Rejected]]:
    """The questions of a split with gold answers in their canonical spelling, and the rows that are
    none.

    ``kind`` is the recipe's ``task.kind``; questions over ``max_chars`` characters are rejected;
    ``columns`` and ``values`` are those of the recipe's ``data``. Together the two lists hold every
    row of ``split.rows``. Duplicates are looked for in the whole source, so that two splits of one
    file cannot share a question.

    Raises: :class:`UserError` for a missing or empty source, a column that no row has, one id with
    two different questions, ``rows`` that the source does not have, or when no row at all can be
    used.
    """
    if split.generate is not None:
        name = f"the generator of {kind}"
        rows = [
            _checked(Line(i, None, "", str(q)), q, task, max_chars)
            for i, q in enumerate(_generated(split, kind), 1)
        ]
    else:
        source = open_source(split)
        name = source.name
        rows = _read_rows(source, task, columns, kind, max_chars, values or {})
    rows = _taken(rows, split, name)
    questions = [row for row in rows if isinstance(row, Question)]
    rejected = [row for row in rows if isinstance(row, Rejected)]
    if not questions:
        first = "".join(f"\n  row {r.row}: {r.reason}" for r in rejected[:3])
        raise UserError(f"{name}: none of its {len(rows)} rows can be used:{first}")
    return questions, rejected


def _generated(split: Split, kind: str) -> list[Question]:
    if kind != "word_problems":
        raise UserError(
            f"data: only the word_problems task makes its own questions, not {kind}: give a `path`"
        )
    kinds = get_args(word_problems.Kind)
    if split.kind is not None and split.kind not in kinds:
        raise UserError(
            f"data: the generator's kind must be one of {', '.join(kinds)}, not {split.kind!r}"
        )
    return word_problems.generate(split.generate, seed=split.seed, kind=split.kind or "seen")


def _taken(rows: list, split: Split, source: str) -> list:
    """The rows that ``shuffle`` and ``rows`` leave."""
    if split.shuffle is not None:
        random.Random(split.shuffle).shuffle(rows)
    if split.rows is None:
        return rows
    first, past = split.rows
    if past > len(rows):
        raise UserError(
            f"{source}: rows [{first}, {past}] asks for more rows than the {len(rows)} that it has"
        )
    return rows[first:past]


def _read_rows(
    source: RowSource,
    task: Task,
    columns: Mapping[str, Column],
    kind: str,
    max_chars: int,
    values: Mapping[str, str],
) -> list[Question | Rejected]:
    present = source.columns()
    has_ids = check_columns(source.name, present, columns=columns, kind=kind)
    wanted = {root(path, present) for field in FIELDS for path in paths(columns.get(field, field))}
    rows: list[Question | Rejected] = []
    seen: dict[str, tuple[int, Question]] = {}
    for line in source.rows(wanted):
        row = read_row(
            line, task=task, columns=columns, max_chars=max_chars, needs_id=has_ids, values=values
        )
        if isinstance(row, Question):
            number, earlier = seen.setdefault(row.id, (line.number, row))
            if earlier is not row:
                if (earlier.question, earlier.choices) != (row.question, row.choices):
                    raise UserError(
                        f"{source.name}: id {row.id!r} stands for two different questions, in lines"
                        f" {number} and {line.number}; give each question its own id, or map"
                        " another column with data.columns.id"
                    )
                differs = (
                    ""
                    if earlier.answer == row.answer
                    else f", with the answer {row.answer!r} where that has {earlier.answer!r}"
                )
                row = _rejected(line, f"a duplicate of line {number}{differs}", row.id)
        rows.append(row)
    if not rows:
        raise UserError(f"{source.name}: the file is empty; it must hold a question a line")
    return rows


def check_columns(
    name: str,
    present: Sequence[str],
    *,
    columns: Mapping[str, Column],
    kind: str,
    how: str = "data.columns.{field}",
) -> bool:
    """Refuse a column that is not ``present``; whether the rows have ids. Ids may be left out by
    all: they are then made from the question.

    ``how``: where the user says which column holds a field, for the error.
    """
    needed = {"question"} | set(columns) | ({"choices"} if kind == "multiple_choice" else set())
    for field in FIELDS:
        for path in paths(columns.get(field, field)):
            if present and field in needed and root(path, present) not in present:
                near = difflib.get_close_matches(root(path, present), present, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise UserError(
                    f"{name}: no row has the column {root(path, present)!r}{hint} The columns are:"
                    f" {', '.join(present)}. Say which one holds the {field} with"
                    f" {how.format(field=field)}"
                )
    return all(root(path, present) in present for path in paths(columns.get("id", "id")))


def read_row(
    line: Line,
    *,
    task: Task,
    columns: Mapping[str, Column],
    max_chars: int,
    needs_id: bool,
    values: Mapping[str, str] | None = None,
) -> Question | Rejected:
    """One line as a question, or why it is none. A row without an id gets one that is made from its
    question, unless it ``needs_id``.
    """
    if line.data is None:
        return _rejected(line, line.reason)
    found, field = {}, ""
    try:
        for field in FIELDS:
            found[field] = _READERS[field](
                pick(line.data, columns.get(field, field)), _called(columns, field), values or {}
            )
    except ValueError as error:
        return _rejected(
            line, f"{error} (data.columns.{field})" if field in columns else str(error)
        )
    question = Question(**found)
    if not question.id:
        if needs_id:
            return _rejected(line, f"no {_called(columns, 'id')}")
        question = replace(
            question,
            id="q-"
            + hashlib.sha256(repr((question.question, question.choices)).encode()).hexdigest()[:16],
        )
    return _checked(line, question, task, max_chars)


def _checked(line: Line, question: Question, task: Task, max_chars: int) -> Question | Rejected:
    if len(question.question) > max_chars:
        reason = (
            f"the question has {len(question.question):,} characters, over task.max_question_chars"
            f" = {max_chars:,}"
        )
    else:
        reason = task.check(question)
    if reason:
        return _rejected(line, reason, question.id)
    return replace(
        question,
        answer=None if question.answer is None else task.canonical(question.answer, question),
    )


def _rejected(line: Line, reason: str, id: str | None = None) -> Rejected:
    return Rejected(line.number, id, reason, _shown(line)[:KEPT_TEXT])


def _shown(line: Line) -> str:
    return line.text or json.dumps(line.data, ensure_ascii=False, default=str)


def _called(columns: Mapping[str, Column], field: str) -> str:
    """What an error calls the place of a field."""
    column = columns.get(field, field)
    return column if isinstance(column, str) else f"[{', '.join(column)}]"


def _text(value: object, column: str) -> str | None:
    """A text or a number as text; None where there is nothing."""
    if is_empty(value):
        return None
    if isinstance(value, str):
        return value
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


def _answer(value: object, column: str, values: Mapping[str, str]) -> str | None:
    """The answer as text, by its meaning where ``values`` has them and it is none yet; a list of
    accepted answers becomes one text.
    """
    if isinstance(value, list):
        accepted = (_answer(each, f"each of {column}", values) for each in value)
        return (
            f" {SEVERAL} ".join(dict.fromkeys(text for text in accepted if text is not None))
            or None
        )
    if not values or is_empty(value):
        return _text(value, column)
    if isinstance(value, bool | int):
        value = str(value).lower()
    elif isinstance(value, float):  # a table's integers beside a missing one
        value = f"{value:g}"
    # it is one of the meanings already: a class label's name
    if value in values.values() and value not in values:
        return value
    if value not in values:
        raise ValueError(
            f"{column} is {value!r}, which data.values does not name; it names {', '.join(values)}"
        )
    return values[value]


_READERS = {
    "id": lambda value, column, values: _text(value, column) or "",
    "question": lambda value, column, values: _text(value, column) or "",
    "choices": lambda value, column, values: _choices(value, column),
    "answer": _answer,
    "rationale": lambda value, column, values: _text(value, column),
}
