"""The questions of a job, in parts of some hundred rows that can be read alone, on any node.

A part is a byte range of a file of lines. JSON Lines are such a file. Every other source that
training reads (CSV, TSV, JSON lists, Parquet, Hugging Face data sets) is written as one first, with
the rows' own numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from qcrd_ray.data.json_lines import Line, empty_file, expand_path, read_line
from qcrd_ray.data.sources import RowSource, open_source
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Bytes ``start`` up to ``end`` of a file: whole lines, of which ``rows`` are not blank.

    The first is line ``first_line`` of the file, counted from 1.
    """

    number: int
    start: int
    end: int
    first_line: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFile:
    """A file of rows by line: the user's own JSON Lines, or one that :func:`spool` wrote."""

    path: Path
    spooled: bool = False

    def read(self, part: FilePart) -> Iterator[Line]:
        """The rows of a part that are not blank."""
        with self.path.open("rb") as content:
            content.seek(part.start)
            lines = content.read(part.end - part.start).split(b"\n")
        for number, raw in enumerate(lines, part.first_line):
            if raw.strip():
                yield Line(**json.loads(raw)) if self.spooled else read_line(number, raw)


def find_source(questions: str, *, split: str | None, config: str | None) -> RowSource:
    """The source that a user names: a file, or a Hugging Face data set where one is meant.

    A folder, or a name with a ``split`` or a ``config``, is a data set.

    Raises:
        UserError: there is no such file or data set.
    """
    if split or config or expand_path(questions).is_dir():
        return open_source(Split(dataset=questions, split=split, config=config))
    try:
        return open_source(Split(path=questions))
    except UserError as error:
        if questions.count("/") == 1 and not expand_path(questions).exists():
            raise UserError(f"{error} (a Hugging Face data set: say which --split of it)") from None
        raise


def spool(source: RowSource, columns: Collection[str], file: Path) -> None:
    """Write the ``columns`` of all rows of ``source``, readable or not, to ``file``."""
    with file.open("w", encoding="utf-8") as writing:
        for line in source.rows(columns):
            data = line.data and {key: line.data[key] for key in line.data if key in columns}
            row = asdict(line) | {"data": data}
            # a date, a decimal number: as text
            writing.write(json.dumps(row, default=str) + "\n")


def split_file(file: Path, *, rows: int) -> tuple[list[FilePart], str]:
    """Split ``file`` into parts of ``rows`` rows; return them and the hash of the content.

    The file is read once, and never held whole.

    Raises:
        UserError: the file is empty.
    """
    digest = hashlib.sha256()
    parts: list[FilePart] = []
    start = end = in_part = 0
    first_line = 1
    with file.open("rb") as content:
        for number, raw in enumerate(content, 1):
            digest.update(raw)
            end += len(raw)
            in_part += bool(raw.strip())
            if in_part == rows:
                parts.append(
                    FilePart(
                        number=len(parts), start=start, end=end, first_line=first_line, rows=in_part
                    )
                )
                start, first_line, in_part = end, number + 1, 0
    if in_part:
        parts.append(
            FilePart(number=len(parts), start=start, end=end, first_line=first_line, rows=in_part)
        )
    if not parts:
        raise empty_file(file)
    return parts, digest.hexdigest()
