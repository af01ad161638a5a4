"""The questions of a recipe, read once for all checks, and for the run that follows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError, headline, own_place
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import atomic_file
from qcrd_ray.runs.folder import RunFolder, resolve
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.tasks.splits import write_split, written_split


class SplitFiles(NamedTuple):
    """A split that has been read: its questions, its rejected rows, and how many they are."""

    questions: Path
    rejected: Path
    size: int
    rejections: int

    def first_rejected(self) -> dict[str, object]:
        """The first rejected row (REJECTED_SCHEMA)."""
        return pq.read_table(self.rejected).slice(0, 1).to_pylist()[0]

    def has_answer(self) -> bool:
        """Whether any question has an answer."""
        with pq.ParquetFile(self.questions) as file:
            batches = file.iter_batches(columns=["answer"])
            return any(batch.num_rows > batch["answer"].null_count for batch in batches)


class Questions:
    """The splits of a recipe, each read when it is first asked for.

    They are held in files: those of the recipe's run folder where they are what would be read, and
    else in a folder of their own that ends with this object.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._scratch = tempfile.TemporaryDirectory(prefix="qcrd-questions-")
        self._fresh = RunFolder(self._scratch.name)
        self.read = cache(self._read)

    def count(self, split: str) -> int:
        """How many questions a split has; 0 where it cannot be read, which another check says."""
        try:
            return self.read(split).size
        except UserError:
            return 0

    def all(self, split: str) -> Iterator[Question]:
        """The questions of a split, some at a time; none where it cannot be read."""
        if self.count(split):
            yield from iter_questions(self.read(split).questions)

    def first(self, split: str, count: int) -> list[Question]:
        """The first questions of a split; [] where it cannot be read."""
        return list(islice(self.all(split), count))

    def keep(self, folder: RunFolder) -> None:
        """Put what was read here into a run folder, where the stages find it."""
        for file in sorted((self._fresh.root / "questions").glob("*"), key=_last_first):
            with atomic_file(folder.root / "questions" / file.name) as writing:
                shutil.copyfile(file, writing)

    def _read(self, split: str) -> SplitFiles:
        try:
            folder = RunFolder(resolve(self._recipe.run))
            counts = written_split(self._recipe, folder, split)
            if counts is None:
                folder = self._fresh
                counts = write_split(self._recipe, folder, split)
        except UserError:
            raise
        except Exception as error:
            if not own_place(error):
                raise
            # a task of the user's own checks and spells each row
            raise UserError(f"task.kind: {self._recipe.task.kind}: {headline(error)}") from error
        return SplitFiles(folder.questions(split), folder.rejected(split), *counts)


def _last_first(file: Path) -> bool:
    """Order a split's rejected rows before its questions, whose presence says that both are."""
    return not file.stem.endswith(".rejected")
