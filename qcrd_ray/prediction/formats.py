"""The file of answers in the format that its name ends in: JSON Lines, CSV or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.errors import UserError

FORMATS = (".jsonl", ".csv", ".parquet")
_ROWS_PER_GROUP = 10_000
TYPES = {
    "row": pa.int64(),
    "id": pa.string(),
    "label": pa.string(),
    "text": pa.string(),
    "rationale": pa.string(),
    "rationale_answer": pa.string(),
    "quality": pa.float64(),
    "vote": pa.string(),
    "vote_kind": pa.string(),
    "vote_rationale": pa.string(),
    "confidence": pa.float64(),
    "votes": pa.map_(pa.string(), pa.int64()),
    "shares": pa.map_(pa.string(), pa.float64()),
}


def check_format(path: Path) -> None:
    """Raise UserError for a name whose ending names no format that is written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(
            f"{path}: answers are written as {', '.join(FORMATS)}, by the name's ending; end it in"
            " one of these"
        )


def write_answers(parts: Sequence[Path], target: Path, *, format: str, fields: tuple[str, ...]):
    """Join the parts' answers (JSON Lines) into ``target``, in the parts' order.

    Args:
        format: one of :data:`FORMATS`.
        fields: the names of an answer, in their order.

    Returns:
        The number of answers.
    """
    if format == ".jsonl":
        return concatenate(parts, target)
    return (_write_csv if format == ".csv" else _write_parquet)(read_answers(parts), target, fields)


def concatenate(files: Sequence[Path], target: Path) -> int:
    """Write ``files`` one after another to ``target``; return the number of lines."""
    lines = 0
    with target.open("wb") as joined:
        for file in files:
            content = file.read_bytes()
            lines += content.count(b"\n")
            joined.write(content)
    return lines


def read_answers(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The answers of the parts, in the parts' order."""
    for part in parts:
        with part.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _write_csv(rows: Iterable[dict[str, Any]], target: Path, fields: tuple[str, ...]) -> int:
    """What is no answer is an empty cell; the votes are JSON."""
    count = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for row in rows:
            writer.writerow([_cell(row[name]) for name in fields])
            count += 1
    return count


def _cell(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


def _write_parquet(rows: Iterable[dict[str, Any]], target: Path, fields: tuple[str, ...]) -> int:
    schema = pa.schema([(name, TYPES[name]) for name in fields])
    count, block = 0, []
    with pq.ParquetWriter(target, schema) as writer:
        for row in rows:
            block.append({name: _pairs(row[name]) for name in fields})
            if len(block) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(block, schema=schema))
                count, block = count + len(block), []
        if block:
            writer.write_table(pa.Table.from_pylist(block, schema=schema))
    return count + len(block)


def _pairs(value: object) -> object:
    """A mapping as Arrow takes it."""
    return list(value.items()) if isinstance(value, dict) else value
