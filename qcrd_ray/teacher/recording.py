"""A recording as teacher: completions that were generated earlier.

It has one completion a row: the question's id, the completion's text, and its finish reason where
it is known. JSON Lines are read where they lie; of another kind of file a copy is made
(:mod:`qcrd_ray.teacher.recorded_tables`). K completions of a question are chosen at random by the
seed, since recordings are often sorted, by correctness for example. Asked in waves, a question gets
them in that order.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import ray

from qcrd_ray.data.json_lines import empty_file, expand_path, find_file, read_line
from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RecordedTeacher, SamplingRecipe
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher.base import TeacherAnswer, TeacherRequest
from qcrd_ray.teacher.recorded_tables import is_table, write_json_lines

COPY = ".recording.jsonl"  # of a table, in the run folder's rationales/; hidden: no part of it


class Recording:
    """Answers from a file.

    Where it holds fewer completions of a question than were asked for, it returns those: the vote
    decides. ``copy`` is where the copy of a table lies until :meth:`stop`, for all processes that
    ask; None: this process alone asks.
    """

    def __init__(
        self,
        recipe: RecordedTeacher,
        sampling: SamplingRecipe,
        *,
        seed: int,
        copy: Path | None = None,
    ):
        self._recipe = recipe
        self._copy = copy
        self._k = sampling.k
        self._in_waves = sampling.adaptive is not None
        self._seed = seed
        self._index: RecordingIndex | None = None
        self._shared: ray.ObjectRef | None = None  # the index in Ray's shared memory

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_index": None}

    def identity(self) -> dict[str, Any]:
        """The file's content, not its name: after a move nothing is asked again."""
        with expand_path(self._recipe.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {
            "source": "recording",
            "sha256": digest,
            "columns": dict(sorted(self._recipe.columns.items())),
        }

    def prompt(self, task: Task, question: Question) -> str:
        return task.teacher_prompt(question)

    def check(self, questions: Iterable[Question]) -> None:
        """Read the whole file once, and refuse a recording of other questions.

        Raises:
            UserError: the file is missing, a line cannot be read, or no question of the split
                occurs in it.
        """
        index = self._index = self._index or RecordingIndex.build(self._recipe, self._copy)
        first: list[str] = []
        for question in questions:
            if index.completions(question.id):
                break
            first = [*first, question.id][:3]
        else:
            question_ids, recorded_ids = (", ".join(map(repr, ids)) for ids in (first, index.first))
            raise UserError(
                f"teacher.path: {self._recipe.path} holds no completion for any question of this"
                f" split\n  ids of the questions: {question_ids}"
                f"\n  ids of the recording: {recorded_ids}"
                "\nName the columns that hold the same ids with data.columns.id and"
                " teacher.columns.id."
            )
        if self._shared is None and ray.is_initialized():
            self._shared = ray.put(index)

    def start(self, report: Report = no_progress) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = self._shared = None
        if self._copy is not None:
            self._copy.unlink(missing_ok=True)

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        if self._index is None:  # once in each process that asks
            shared = await self._shared if self._shared is not None else None
            self._index = shared or RecordingIndex.build(self._recipe)
        index = self._index
        return [
            TeacherAnswer(
                tuple(self._choose(index, each.question.id)[each.first : each.first + each.samples])
            )
            for each in requests
        ]

    def _choose(self, index: RecordingIndex, question_id: str) -> list[Completion]:
        """K completions in the order of asking; all of them, where there are no more."""
        recorded = index.completions(question_id)
        if len(recorded) <= self._k and not self._in_waves:
            return recorded
        draw = random.Random(f"{self._seed}:{question_id}")
        return draw.sample(recorded, min(self._k, len(recorded)))


class RecordingIndex:
    """Where the completions of each question stand in a recording: 16 bytes for each of them.

    The texts stay in the file, or in the copy of a table. ``first`` are some ids, for an error.
    """

    def __init__(self, recipe: RecordedTeacher, places: Places) -> None:
        self._recipe = recipe
        self._hashes, self._starts, self.first = places
        self._file: BinaryIO | None = None
        self._scratch: TemporaryDirectory | None = None  # holds a copy that is nobody else's

    def __getstate__(self) -> dict[str, Any]:
        assert self._scratch is None, "an index that is sent away lies in a copy for all"
        return self.__dict__ | {"_file": None}

    @classmethod
    def build(cls, recipe: RecordedTeacher, copy: Path | None = None) -> RecordingIndex:
        """Read the whole file.

        Args:
            copy: where a table is written out; None: a folder of its own, until :meth:`close`.

        Raises:
            UserError: the file is missing or empty, or a line of it is no JSON object or has no id
                or no completion. A bad line is not skipped: its question would silently get another
                vote.
        """
        if not is_table(recipe):
            return cls._of_lines(recipe)
        if copy is not None:
            return cls._of_lines(write_json_lines(recipe, copy))
        scratch = TemporaryDirectory(prefix="qcrd-recording-")
        index = cls._of_lines(write_json_lines(recipe, Path(scratch.name) / COPY))
        index._scratch = scratch
        return index

    @classmethod
    def _of_lines(cls, recipe: RecordedTeacher) -> RecordingIndex:
        file = find_file(recipe.path)
        stat = file.stat()
        columns = tuple(sorted(recipe.columns.items()))
        return cls(recipe, _places(recipe.path, stat.st_size, stat.st_mtime_ns, columns))

    def close(self) -> None:
        """Close the file, and delete the copy of a table that is nobody else's."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._scratch is not None:
            self._scratch.cleanup()

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def questions(self) -> int:
        """How many questions have completions."""
        return len(np.unique(self._hashes))

    def completions(self, question_id: str) -> list[Completion]:
        """The recorded completions of a question, in the file's order."""
        hash = _hash(question_id)
        places = slice(
            np.searchsorted(self._hashes, hash, "left"),
            np.searchsorted(self._hashes, hash, "right"),
        )
        found = []
        for start in self._starts[places].tolist():
            if self._file is None:
                self._file = find_file(self._recipe.path).open("rb")
            self._file.seek(start)
            id, completion = _read(self._recipe, 0 if start else 1, self._file.readline())
            if id == question_id:  # and not another of the same hash
                found.append(completion)
        return found


class Places(NamedTuple):
    """Where the completions stand: a hash of each one's id, in ascending order, and its byte."""

    hashes: np.ndarray
    starts: np.ndarray
    first: list[str]


# the doctor's two checks and the stage read one recording in one process
@lru_cache(maxsize=1)
def _places(path: str, size: int, modified: int, columns: tuple[tuple[str, str], ...]) -> Places:
    """The places in a file; ``size`` and ``modified`` tell its versions apart."""
    recipe = RecordedTeacher.model_validate(
        {"source": "recording", "path": path, "columns": dict(columns)}
    )
    hashes, starts = array("q"), array("q")
    first: dict[str, None] = {}
    file = find_file(path)
    with file.open("rb") as content:
        start = 0
        for number, raw in enumerate(content, 1):
            if raw.strip():
                id, _ = _read(recipe, number, raw)
                hashes.append(_hash(id))
                starts.append(start)
                if len(first) < 3:
                    first[id] = None
            start += len(raw)
    if not hashes:
        raise empty_file(file)
    order = np.argsort(np.frombuffer(hashes, np.int64), kind="stable")  # in the file's order
    return Places(
        np.frombuffer(hashes, np.int64)[order], np.frombuffer(starts, np.int64)[order], list(first)
    )


def _hash(id: str) -> int:
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _read(recipe: RecordedTeacher, number: int, raw: bytes) -> tuple[str, Completion]:
    """The question's id and the completion of line ``number``."""
    line = read_line(number, raw.removesuffix(b"\n"))
    if line.data is None:
        raise UserError(
            f"{recipe.path}:{number}: {line.reason}; fix or delete this line of the recording"
        )
    finish_reason = line.data.get(recipe.columns.get("finish_reason", "finish_reason")) or "stop"
    completion = Completion(
        text=_field(recipe, number, line.data, "completion"), finish_reason=str(finish_reason)
    )
    return _field(recipe, number, line.data, "id"), completion


def _field(
    recipe: RecordedTeacher, number: int, row: dict[str, Any], field: Literal["id", "completion"]
) -> str:
    """The text of ``field`` in the row of line ``number``."""
    name = recipe.columns.get(field, field)
    if row.get(name) is None:
        columns = ", ".join(map(repr, row)) or "no column"
        raise UserError(
            f"{recipe.path}:{number}: no {name!r} in this row, which has {columns}; name the"
            f" column with teacher.columns.{field}"
            + (", and the same of the questions with data.columns.id" if field == "id" else "")
        )
    return str(row[name])
