"""The files that the answers of a job are written to.

    <out>                  the answers, in the input's order; once it exists, the job is done
    <out>.rejected.jsonl   the rows that could not be answered, with line and reason, if any
    <out>.parts/           during the job: plan.json, questions.jsonl where the input is no JSON
                           Lines, and two files of answers and rejected rows for each finished part

Where no row at all could be answered nothing is left but the error.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from qcrd_ray.errors import UserError
from qcrd_ray.prediction.formats import check_format, concatenate, read_answers, write_answers
from qcrd_ray.prediction.input import FilePart
from qcrd_ray.runs.files import write_text

SHOWN_REASONS = 3
_ANSWERS = ("label", "rationale_answer", "vote")  # of an answered row, as it was asked for


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """How many rows were answered and rejected; blank rows are in neither.

    ``unread`` ones of the answered hold no answer that could be read from what the student wrote.
    """

    answered: int
    rejected: int
    unread: int


class Output:
    """The files of one output. The constructor touches nothing on the disk."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.rejected = self.path.with_name(f"{self.path.stem}.rejected.jsonl")
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self.plan = self.parts / "plan.json"
        self.questions = self.parts / "questions.jsonl"

    def answers_of(self, number: int) -> Path:
        """The answers of a part. Written last: once it exists, the part is finished."""
        return self.parts / f"{number:06d}.answers.jsonl"

    def rejected_of(self, number: int) -> Path:
        """The rejected rows of a part."""
        return self.parts / f"{number:06d}.rejected.jsonl"

    def check_free(self) -> None:
        """Raise UserError where a file would be overwritten; an unfinished job may be there.

        Also where the name's ending names no format.
        """
        check_format(self.path)
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

    def join(self, parts: Sequence[FilePart], fields: tuple[str, ...]) -> RowCounts:
        """Join the finished parts into two files; the answers' file appears last.

        ``fields`` are those of an answer.

        Raises:
            UserError: no row could be answered. Nothing is left then.
        """
        joined_rejected, joined_answers = self.parts / "rejected", self.parts / "answers"
        rejected = concatenate([self.rejected_of(part.number) for part in parts], joined_rejected)
        files = [self.answers_of(part.number) for part in parts]
        answered = write_answers(
            files, joined_answers, format=self.path.suffix.lower(), fields=fields
        )
        rows = sum(part.rows for part in parts)
        assert answered + rejected == rows, (
            f"{answered} answered and {rejected} rejected are not the {rows} rows that were read"
        )
        if not answered:
            with joined_rejected.open(encoding="utf-8") as lines:
                first = [json.loads(line) for line in islice(lines, SHOWN_REASONS)]
            shutil.rmtree(self.parts)
            raise nothing_answered(rows, first)
        unread = sum(
            all(answer.get(field) is None for field in _ANSWERS) for answer in read_answers(files)
        )
        if rejected:
            joined_rejected.replace(self.rejected)
        joined_answers.replace(self.path)
        shutil.rmtree(self.parts)
        return RowCounts(answered=answered, rejected=rejected, unread=unread)


def nothing_answered(rows: int, rejected: Sequence[Mapping[str, Any]]) -> UserError:
    """The error of an input without a usable row. ``rejected`` are its first rows."""
    reasons = "".join(f"\n  row {row['row']}: {row['reason']}" for row in rejected)
    return UserError(f"none of the {rows:,} rows can be answered, and nothing is written:{reasons}")
