"""The input in parts, and the files that their answers are written to.

    <out>                  the answers, in the input's order; once it exists, the job is done
    <out>.rejected.jsonl   the rows that could not be answered, with line and reason, if any
    <out>.parts/           during the job: plan.json, and two such files for each finished part

A part is a byte range of the input: it can be read, answered and written alone, on any node that
sees the file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.data.json_lines import Line, empty_file, read_line
from qcrd_ray.errors import UserError
from qcrd_ray.run.files import write_text


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """How many rows were answered and rejected; blank rows are in neither."""

    answered: int
    rejected: int


class Output:
    """The files of one output. The constructor touches nothing on the disk."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.rejected = self.path.with_name(
            f"{self.path.name.removesuffix('.jsonl')}.rejected.jsonl"
        )
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self.plan = self.parts / "plan.json"

    def answers_of(self, number: int) -> Path:
        """The answers of a part. Written last: once it exists, the part is finished."""
        return self.parts / f"{number:06d}.answers.jsonl"

    def rejected_of(self, number: int) -> Path:
        """The rejected rows of a part."""
        return self.parts / f"{number:06d}.rejected.jsonl"

    def check_free(self) -> None:
        """Raise UserError where a file would be overwritten; an unfinished job may be there."""
        if not self.path.parent.is_dir():
            raise UserError(f"{self.path}: there is no folder {self.path.parent}")
        for file in (self.path, *([] if self.plan.exists() else [self.rejected, self.parts])):
            if file.exists():
                raise UserError(
                    f"{file} exists, and nothing is written over it: name another output, or move"
                    " it away"
                )

    def begin(self, plan: dict) -> None:
        """Begin, or continue a job of the same plan. Raises UserError for another plan."""
        if not self.plan.exists():
            write_text(self.plan, json.dumps(plan, indent=2) + "\n")
            return
        begun = json.loads(self.plan.read_text(encoding="utf-8"))
        if changed := [key for key in plan if plan[key] != begun.get(key)]:
            raise UserError(
                f"{self.parts} was begun with another {' and another '.join(changed)}: call it as"
                " it was begun, name another output, or delete that folder"
            )

    def join(self, parts: Sequence[FilePart]) -> RowCounts:
        """Join the finished parts into two files; the answers' file appears last."""
        joined_rejected, joined_answers = self.parts / "rejected", self.parts / "answers"
        rejected = _concatenate([self.rejected_of(part.number) for part in parts], joined_rejected)
        answered = _concatenate([self.answers_of(part.number) for part in parts], joined_answers)
        rows = sum(part.rows for part in parts)
        assert answered + rejected == rows, (
            f"{answered} answered and {rejected} rejected are not the {rows} rows that were read"
        )
        if rejected:
            joined_rejected.replace(self.rejected)
        joined_answers.replace(self.path)
        shutil.rmtree(self.parts)
        return RowCounts(answered=answered, rejected=rejected)


def _concatenate(files: Sequence[Path], target: Path) -> int:
    """Write ``files`` one after another to ``target``; return the number of lines."""
    lines = 0
    with target.open("wb") as joined:
        for file in files:
            content = file.read_bytes()
            lines += content.count(b"\n")
            joined.write(content)
    return lines


# --- Parts ---


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


def read_part(file: Path, part: FilePart) -> Iterator[Line]:
    """The lines of a part that are not blank."""
    with file.open("rb") as content:
        content.seek(part.start)
        lines = content.read(part.end - part.start).split(b"\n")
    for number, raw in enumerate(lines, part.first_line):
        if raw.strip():
            yield read_line(number, raw)
