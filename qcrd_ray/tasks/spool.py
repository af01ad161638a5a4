"""Rows on their way from a source to the run folder, in a memory-mapped file between.

A million rows are read, searched for duplicates, shuffled and cut without being held: what stays in
memory is a block of rows, and eight bytes for each row.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.overlap import KEY, key_of
from qcrd_ray.data.records import QUESTION_SCHEMA, Question
from qcrd_ray.data.sources import BLOCK
from qcrd_ray.errors import UserError
from qcrd_ray.runs.files import atomic_file

if TYPE_CHECKING:
    from datasets import Dataset

ROWS_PER_GROUP = 10_000  # of a written file
# Characters of a rejected row that are kept beside its reason; the source has the rest.
KEPT_TEXT = 2_000

REJECTED_SCHEMA = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("reason", pa.string()), ("text", pa.string())]
)
WRITTEN_SCHEMA = pa.schema([*QUESTION_SCHEMA, KEY])  # of a file of questions
# A question with its line; or, where there is a reason, the text of a row that cannot be used.
_SPOOLED = pa.schema(
    [*WRITTEN_SCHEMA, ("row", pa.int64()), ("reason", pa.string()), ("text", pa.string())]
)
MADE_OF = b"qcrd_ray.made_of"  # in the metadata of a file of questions


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used as a question: a row of :data:`REJECTED_SCHEMA`."""

    row: int  # its line, or its place among the rows; from 1
    id: str | None
    reason: str
    text: str


class Written(NamedTuple):
    """How many rows became questions, and how many did not."""

    questions: int
    rejected: int


class RowSpool:
    """Rows of a source, by their place."""

    def __init__(self, file: Path, ids: np.ndarray) -> None:
        self._rows = _mapped(file) if len(ids) else None
        self._ids = ids  # a hash of each row's id; 0: a row that cannot be used
        self._duplicates: dict[int, str] = {}  # the reason, by place

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def write(cls, rows: Iterable[tuple[int, Question | Rejected]], file: Path) -> RowSpool:
        """Spool ``rows``, each with the number of its line, to ``file``."""
        ids = array("q")
        block: list[dict[str, Any]] = []
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, _SPOOLED) as writer:
            for number, row in rows:
                good = isinstance(row, Question)
                ids.append(_hash(row.id) if good else 0)
                # not dataclasses.asdict, which copies every value
                names = QUESTION_SCHEMA.names if good else REJECTED_SCHEMA.names
                block.append({"row": number} | {name: getattr(row, name) for name in names})
                if isinstance(row, Question):
                    block[-1][KEY.name] = key_of(row)
                if len(block) == BLOCK:
                    writer.write_batch(pa.RecordBatch.from_pylist(block, schema=_SPOOLED))
                    block = []
            if block:
                writer.write_batch(pa.RecordBatch.from_pylist(block, schema=_SPOOLED))
        return cls(file, np.frombuffer(ids, np.int64) if ids else np.empty(0, np.int64))

    def reject_duplicates(self, source: str) -> None:
        """Reject every question that an earlier row holds.

        Raises:
            UserError: one id stands for two different questions of ``source``.
        """
        used = self._ids[self._ids != 0]
        hashes, counts = np.unique(used, return_counts=True)
        places = np.flatnonzero(np.isin(self._ids, hashes[counts > 1]))
        seen: dict[str, dict[str, Any]] = {}
        rows = self._read(places.tolist()).to_pylist()
        for place, row in zip(places.tolist(), rows, strict=True):
            earlier = seen.setdefault(row["id"], row)
            if earlier is row:
                continue
            if (earlier["question"], earlier["choices"]) != (row["question"], row["choices"]):
                raise UserError(
                    f"{source}: id {row['id']!r} stands for two different questions, in lines"
                    f" {earlier['row']} and {row['row']}; give each question its own id, or map"
                    " another column with data.columns.id"
                )
            differs = (
                ""
                if earlier["answer"] == row["answer"]
                else f", with the answer {row['answer']!r} where that has {earlier['answer']!r}"
            )
            self._duplicates[place] = f"a duplicate of line {earlier['row']}{differs}"

    def save(
        self, order: Sequence[int], questions: Path, rejected: Path, *, made_of: str
    ) -> Written:
        """Write the rows at ``order``: to ``questions``, or to ``rejected`` with their reason.

        ``made_of`` goes into the metadata of ``questions``, the last of the two to appear.
        """
        schema = WRITTEN_SCHEMA.with_metadata({MADE_OF: made_of})
        written = rejections = 0
        with (
            atomic_file(questions) as good,
            atomic_file(rejected) as rejected_file,
            pq.ParquetWriter(good, schema) as good_writer,
            pq.ParquetWriter(rejected_file, REJECTED_SCHEMA) as rejected_writer,
        ):
            for first in range(0, len(order), ROWS_PER_GROUP):
                places = order[first : first + ROWS_PER_GROUP]
                rows = self._read(places)
                reasons = rows["reason"].to_pylist()
                if self._duplicates:
                    reasons = [
                        self._duplicates.get(place, reason)
                        for place, reason in zip(places, reasons, strict=True)
                    ]
                usable = rows.filter(pa.array([reason is None for reason in reasons], pa.bool_()))
                good_writer.write_table(usable.select(schema.names).cast(schema))
                bad = rows.filter(pa.array([reason is not None for reason in reasons], pa.bool_()))
                unusable = [
                    row | {"reason": reason, "text": _text(row)}
                    for row, reason in zip(bad.to_pylist(), filter(None, reasons), strict=True)
                ]
                if unusable:
                    rejected_writer.write_table(
                        pa.Table.from_pylist(unusable, schema=REJECTED_SCHEMA)
                    )
                written += rows.num_rows - len(unusable)
                rejections += len(unusable)
        return Written(written, rejections)

    def _read(self, places: Sequence[int]) -> pa.Table:
        if not len(places):
            return _SPOOLED.empty_table()
        assert self._rows is not None
        rows = cast("pa.Table", self._rows[list(places)])  # in its format "arrow"
        return rows.combine_chunks()


def _mapped(file: Path) -> Dataset:
    # a second to import: not for an actor that only knows what a rejected row is
    from datasets import Dataset

    return Dataset.from_file(str(file)).with_format("arrow")


def _hash(id: str) -> int:
    """Of an id, never 0."""
    digest = hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def _text(row: dict[str, Any]) -> str:
    """What a rejected row shows: its text, or the question of a duplicate."""
    return (row["text"] if row["text"] is not None else row["question"])[:KEPT_TEXT]
