"""The splits of a recipe, in files: a source is read once, and again only when it has changed.

To read a row is to check it and to spell its answer, half a minute for a million of them. A file of
questions therefore says in its metadata what it was made of.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

import qcrd_ray
from qcrd_ray.data.columns import Column
from qcrd_ray.data.records import Question
from qcrd_ray.data.sources import fingerprint
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, Split
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import read_back, read_questions, write_questions
from qcrd_ray.tasks.spool import MADE_OF, Rejected, Written

_READERS = ("data", "tasks")  # the packages that decide what a row becomes
_PROCESS = uuid.uuid4().hex


def load_split(recipe: Recipe, split: str) -> tuple[list[Question], list[Rejected]]:
    """Read a split (`train`, `validation`, `test`, `held_out`) from its source.

    Raises:
        UserError: see :func:`~qcrd_ray.tasks.questions.write_questions`; it begins with the key of
            the split.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return store_split(recipe, RunFolder(scratch), split)


def load_questions(recipe: Recipe, source: Split) -> tuple[list[Question], list[Rejected]]:
    """Read any source as the recipe's task, with the columns and values of `data`.

    Raises:
        UserError: see :func:`~qcrd_ray.tasks.questions.write_questions`.
    """
    return read_questions(source, **_reading(recipe))


def store_split(
    recipe: Recipe, folder: RunFolder, split: str
) -> tuple[list[Question], list[Rejected]]:
    """:func:`write_split`, and read back what it has written."""
    write_split(recipe, folder, split)
    return read_back(folder.questions(split), folder.rejected(split))


def write_split(recipe: Recipe, folder: RunFolder, split: str) -> Written:
    """Read a split into the run folder, for the later stages; a million rows cost no memory.

    What lies there is left as it is where it would come out again.

    Raises:
        UserError: see :func:`~qcrd_ray.tasks.questions.write_questions`; it begins with the key of
            the split.
    """
    with _named(split):
        made_of = _made_of(recipe, split)
        files = folder.questions(split), folder.rejected(split)
        if there := _counts(*files, made_of):
            return there
        source = getattr(recipe.data, split)
        return write_questions(source, *files, **_reading(recipe), made_of=made_of)


def written_split(recipe: Recipe, folder: RunFolder, split: str) -> Written | None:
    """How many rows lie in ``folder``; None: :func:`write_split` would read them anew.

    Raises:
        UserError: the source is missing; it begins with the key of the split.
    """
    with _named(split):
        made_of = _made_of(recipe, split)
    return _counts(folder.questions(split), folder.rejected(split), made_of)


@contextmanager
def _named(split: str) -> Iterator[None]:
    """Begin an error with the key of the split."""
    try:
        yield
    except UserError as error:
        raise UserError(f"data.{split}: {error}") from error


def _counts(questions: Path, rejected: Path, made_of: str) -> Written | None:
    """How many rows the files hold, if they are whole and were made of that."""
    try:
        metadata = pq.read_metadata(questions)
        if (metadata.metadata or {}).get(MADE_OF) != made_of.encode():
            return None
        return Written(metadata.num_rows, pq.read_metadata(rejected).num_rows)
    except (FileNotFoundError, pa.ArrowInvalid):  # or torn; it is written again
        return None


def _made_of(recipe: Recipe, split: str) -> str:
    """A hash of all that decides what a split becomes: rows, keys of the recipe, and code."""
    source = getattr(recipe.data, split)
    content = {
        "source": source.model_dump(mode="json"),
        "rows": None if source.generate is not None else fingerprint(source),
        "columns": recipe.data.model_dump(mode="json", include={"columns", "values"}),
        "task": recipe.task.model_dump(mode="json"),
        "code": _code(),
        # a task of the user's own may be other code in another process
        "process": _PROCESS if ":" in recipe.task.kind else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    root = Path(qcrd_ray.__file__).parent
    files = sorted(file for name in _READERS for file in (root / name).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _reading(recipe: Recipe) -> dict[str, Any]:
    """How the recipe has any source read."""
    return {
        "task": build_task(recipe.task),
        "columns": cast("Mapping[str, Column]", recipe.data.columns),
        "values": recipe.data.values,
        "kind": recipe.task.kind,
        "max_chars": recipe.task.max_question_chars,
    }
