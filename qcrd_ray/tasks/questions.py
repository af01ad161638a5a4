"""The questions of a split, from a file, a Hugging Face data set or the task's own generator.

No row is lost: each becomes a :class:`~qcrd_ray.data.records.Question` or a :class:`Rejected` with
its line and a reason. What is wrong with the whole source raises UserError at once: it is missing,
no row has a column, or one id stands for two questions.

A row without an answer is a question all the same: it can be asked, voted on and distilled. It only
takes no part where a gold answer is needed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import pyarrow.parquet as pq

from qcrd_ray.data.columns import Column, paths, pick, root
from qcrd_ray.data.json_lines import Line
from qcrd_ray.data.records import QUESTION_SCHEMA, Question
from qcrd_ray.data.sources import BLOCK, RowSource, open_source
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split
from qcrd_ray.tasks import word_problems
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.fields import READERS, is_chat, question_of
from qcrd_ray.tasks.spool import KEPT_TEXT, Rejected, RowSpool, Written

FIELDS = ("id", "question", "choices", "answer", "rationale")
ASKED = FIELDS[:3]  # of a question that is answered, whatever else its row holds


def iter_questions(file: Path, row_groups: Sequence[int] | None = None) -> Iterator[Question]:
    """The questions that :func:`write_questions` wrote, in their order, some at a time.

    ``row_groups``: those of some row groups alone.
    """
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(
            BLOCK, row_groups=row_groups, columns=QUESTION_SCHEMA.names
        ):
            yield from map(Question.from_row, batch.to_pylist())


def read_questions(
    split: Split,
    *,
    task: Task,
    columns: Mapping[str, Column],
    kind: str,
    max_chars: int,
    values: Mapping[str, str] | None = None,
) -> tuple[list[Question], list[Rejected]]:
    """The questions of a split as a list, and its rejected rows; see :func:`write_questions`."""
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "questions.parquet", Path(scratch) / "rejected.parquet"
        write_questions(
            split,
            *files,
            task=task,
            columns=columns,
            kind=kind,
            max_chars=max_chars,
            values=values,
        )
        return read_back(*files)


def read_back(questions: Path, rejected: Path) -> tuple[list[Question], list[Rejected]]:
    """What :func:`write_questions` wrote, held whole."""
    rows = pq.read_table(rejected).to_pylist()
    return list(iter_questions(questions)), [Rejected(**row) for row in rows]


def write_questions(
    split: Split,
    questions: Path,
    rejected: Path,
    *,
    task: Task,
    columns: Mapping[str, Column],
    kind: str,
    max_chars: int,
    values: Mapping[str, str] | None = None,
    made_of: str = "",
) -> Written:
    """Write the questions of a split, with gold answers in canonical spelling, and its bad rows.

    The two files (WRITTEN_SCHEMA, REJECTED_SCHEMA) together hold every row of ``split.rows``.
    Duplicates are searched in the whole source, so two splits of one file cannot share a question.
    What is held in memory is one block of rows, and a few bytes for each row.

    Args:
        split: the source, and which of its rows to take.
        task: checks the questions and spells their answers.
        columns: `data.columns` of the recipe.
        kind: `task.kind` of the recipe.
        max_chars: longer questions are rejected.
        values: `data.values` of the recipe.
        made_of: kept in the metadata of ``questions``.

    Raises:
        UserError: the source is missing or empty, no row has a column, one id stands for two
            different questions, the source has fewer rows than ``split.rows`` names, or no row can
            be used.
    """
    if split.generate is not None:
        name = f"the generator of {kind}"
        rows = (
            (i, _checked(Line(i, None, "", str(q)), q, task, max_chars))
            for i, q in enumerate(_generated(split, kind), 1)
        )
    else:
        source = open_source(split)
        name = source.name
        rows = _read_rows(source, task, columns, kind, max_chars, values or {})
    with tempfile.TemporaryDirectory() as scratch:
        spool = RowSpool.write(rows, Path(scratch) / "rows.arrow")
        if not len(spool):
            raise UserError(f"{name}: the file is empty; it must hold a question a line")
        if split.generate is None:
            spool.reject_duplicates(name)
        order = _take(len(spool), split, name)
        written = spool.save(order, questions, rejected, made_of=made_of)
    if not written.questions:
        rows = pq.read_table(rejected).slice(0, 3).to_pylist()
        first = "".join(f"\n  row {row['row']}: {row['reason']}" for row in rows)
        raise UserError(f"{name}: none of its {written.rejected} rows can be used:{first}")
    return written


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
    assert split.generate is not None
    generated = cast(word_problems.Kind, split.kind or "seen")
    return word_problems.generate(split.generate, seed=split.seed, kind=generated)


def _take(rows: int, split: Split, source: str) -> Sequence[int]:
    """Which rows a split takes, by their place: shuffled by `shuffle`, and then `rows` of them."""
    order: Sequence[int] = range(rows)
    if split.shuffle is not None:
        shuffled = array("q", order)
        random.Random(split.shuffle).shuffle(shuffled)
        order = shuffled
    if split.rows is None:
        return order
    first, past = split.rows
    if past > rows:
        raise UserError(
            f"{source}: rows [{first}, {past}] asks for more rows than the {rows} that it has"
        )
    return order[first:past]


def _read_rows(
    source: RowSource,
    task: Task,
    columns: Mapping[str, Column],
    kind: str,
    max_chars: int,
    values: Mapping[str, str],
) -> Iterator[tuple[int, Question | Rejected]]:
    """Each row with the number of its line."""
    present = source.columns()
    has_ids = check_columns(source.name, present, columns=columns, kind=kind)
    wanted = {root(path, present) for field in FIELDS for path in paths(columns.get(field, field))}
    for line in source.rows(wanted):
        yield (
            line.number,
            read_row(
                line,
                task=task,
                columns=columns,
                max_chars=max_chars,
                needs_id=has_ids,
                values=values,
            ),
        )


def check_columns(
    name: str,
    present: Sequence[str],
    *,
    columns: Mapping[str, Column],
    kind: str,
    how: str = "data.columns.{field}",
) -> bool:
    """Check that all needed columns are ``present``, and return whether the rows have ids.

    Without an id column, ids are made from the questions. ``how`` says, for the error, where the
    user names the column of a field.

    Raises:
        UserError: names the missing column, and those that there are.
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
    fields: Sequence[str] = FIELDS,
) -> Question | Rejected:
    """One line as a question, or as a rejected row with the reason.

    A row without an id gets one that is made from its question, or is rejected if it ``needs_id``.
    What is none of ``fields`` is not read.
    """
    if line.data is None:
        return _rejected(line, line.reason)
    values_by_field: dict[str, Any] = {}
    field = ""
    try:
        for field in fields:
            value = pick(line.data, columns.get(field, field))
            if field == "question" and is_chat(value):
                value = question_of(value, system=task.describe().get("system"))
            values_by_field[field] = READERS[field](value, _place_of(columns, field), values or {})
    except ValueError as error:
        return _rejected(
            line, f"{error} (data.columns.{field})" if field in columns else str(error)
        )
    question = Question(**values_by_field)
    if not question.id:
        if needs_id:
            return _rejected(line, f"no {_place_of(columns, 'id')}")
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


def _place_of(columns: Mapping[str, Column], field: str) -> str:
    """The column of a field, for an error."""
    column = columns.get(field, field)
    return column if isinstance(column, str) else f"[{', '.join(column)}]"
