"""From a file of questions to requests under their ids, in shards.

A request's id changes with everything that its answer depends on. Its shard depends on the user's
id of the question alone: however a file is sorted or added to, a question stays in its shard, and
what is finished is looked for there and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_table
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.teacher import Prompt, Teacher

REQUEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.string()),
    ]
)

ROWS_PER_SHARD = 10_000  # with 5 samples of 700 characters each, 80 MB in memory
MAX_SHARDS = 1_024
_ROWS_PER_PART = 50_000  # of the questions, that one task turns into requests


def shard_count(questions: int) -> int:
    """How many shards a split of so many questions has."""
    return max(1, min(MAX_SHARDS, -(-questions // ROWS_PER_SHARD)))


def shard_of(question_id: str, shards: int) -> int:
    """The shard of a question, by a hash of the user's id."""
    digest = hashlib.blake2b(question_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


class Part(NamedTuple):
    """Some row groups of a file of questions."""

    number: int
    row_groups: tuple[int, ...]


def parts_of(questions: Path) -> list[Part]:
    """The row groups of a file of questions, in parts of one task each."""
    with pq.ParquetFile(questions) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    parts, members, rows = [], [], 0
    for group, size in enumerate(sizes):
        members.append(group)
        rows += size
        if rows >= _ROWS_PER_PART:
            parts.append(Part(len(parts), tuple(members)))
            members, rows = [], 0
    if members:
        parts.append(Part(len(parts), tuple(members)))
    return parts


def write_requests(
    part: Part,
    *,
    questions: Path,
    folder: Path,
    shards: int,
    recipe: Recipe,
    teacher: Teacher,
    identity: dict[str, Any],
) -> None:
    """Write the requests of one part of ``questions``, a file for each shard.

    ``folder`` then holds ``<shard>/<part>.parquet`` (REQUEST_SCHEMA), in the order of the
    questions. ``identity`` is the teacher's, which can cost reading a large file.
    """
    task = build_task(recipe.task)
    sampling = sampling_of(recipe)
    by_shard: dict[int, list[dict[str, Any]]] = {}
    for question in iter_questions(questions, part.row_groups):
        id = request_id(
            question, teacher.prompt(task, question), teacher=identity, sampling=sampling
        )
        by_shard.setdefault(shard_of(question.id, shards), []).append(
            {
                "id": id,
                "question_id": question.id,
                "question": question.question,
                "choices": list(question.choices),
                "gold": question.answer,
            }
        )
    for shard, rows in by_shard.items():
        write_table(
            pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA),
            folder / f"{shard:05d}" / f"{part.number:05d}.parquet",
        )


def sampling_of(recipe: Recipe) -> dict[str, Any]:
    """The part of a request's id that the recipe decides.

    Keys that are null are left out: a new one of later versions does not ask everything again.
    """
    return {**recipe.sampling.model_dump(mode="json", exclude_none=True), "seed": recipe.seed}


def request_id(question: Question, prompt: Prompt, *, teacher: dict, sampling: dict) -> str:
    """An id that changes whenever the teacher's answer could: 128 bits in hex.

    It hashes the user's id, the question, the prompt, the teacher's identity and the sampling. A
    finished row is therefore never paid for twice, and a changed one is asked again. The gold
    answer is no part of it: correcting a label costs no new answer from the teacher.
    """
    content = {
        "id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "prompt": prompt,
        "teacher": teacher,
        "sampling": sampling,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
