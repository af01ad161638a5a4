"""A recording that is no JSON Lines, written out as such: CSV, Parquet, or a JSON list.

An answer is one seek into JSON Lines. Rows of a table have no place of their own in their file, so
the table is read once, a block of rows at a time.
"""

from __future__ import annotations

import json
from pathlib import Path

from qcrd_ray.data.json_lines import empty_file, find_file
from qcrd_ray.data.sources import JsonLinesSource, open_source
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RecordedTeacher, Split
from qcrd_ray.recipe.teacher import RecordingColumn
from qcrd_ray.runs.files import atomic_file

_FIELDS: tuple[RecordingColumn, ...] = ("id", "completion", "finish_reason")


def is_table(recipe: RecordedTeacher) -> bool:
    """Whether the recording is anything but JSON Lines.

    Raises:
        UserError: there is no such file, or it is of a kind that is not read.
    """
    return not isinstance(open_source(Split(path=recipe.path)), JsonLinesSource)


def write_json_lines(recipe: RecordedTeacher, copy: Path) -> RecordedTeacher:
    """Write the rows of a table to ``copy``, and return the teacher that reads them there.

    Raises:
        UserError: the file is empty, a column is missing, or a row cannot be read or has no id or
            no completion.
    """
    source = open_source(Split(path=recipe.path))
    present = source.columns()
    names = {field: recipe.columns.get(field, field) for field in _FIELDS}
    rows = 0
    with atomic_file(copy) as writing, writing.open("wb") as lines:
        for line in source.rows(names.values()):
            rows += 1
            if line.data is None:
                raise UserError(
                    f"{recipe.path}:{line.number}: {line.reason}; fix or delete this row of the"
                    " recording"
                )
            row = {field: line.data.get(name) for field, name in names.items()}
            for field in ("id", "completion"):
                if row[field] is None:
                    shown = ", ".join(map(repr, present)) or "no column"
                    raise UserError(
                        f"{recipe.path}:{line.number}: no {names[field]!r} in this row; the file"
                        f" has {shown}; name the column with teacher.columns.{field}"
                    )
            try:
                lines.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
            except UnicodeEncodeError:  # a JSON list can spell half of a surrogate pair
                raise UserError(
                    f"{recipe.path}:{line.number}: half of a character (\\ud800 to \\udfff); fix or"
                    " delete this row of the recording"
                ) from None
    if not rows:
        raise empty_file(find_file(recipe.path))
    return recipe.model_copy(update={"path": str(copy), "columns": {}})
