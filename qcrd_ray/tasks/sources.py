"""Where rows come from: JSON Lines, CSV, Parquet and Hugging Face data sets, each as numbered rows of plain values.

A source can be read again from its start and holds no more than a block of rows at a time, so a million rows cost no memory here.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.errors import UserError
from qcrd_ray.json_lines import Line, find_file, iter_json_lines
from qcrd_ray.recipe import Split

BLOCK = 1_000  # rows that are plain Python values at a time


class Source(Protocol):
    """Rows of one file or data set. ``name`` is what errors call it."""

    name: str

    def columns(self) -> list[str]:
        """The columns that there are."""
        ...

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        """All rows, bad ones with their reason. A source of columns reads ``columns`` alone."""
        ...


def open_source(split: Split) -> Source:
    """The source that a split names; by a file's ending, and JSON Lines where that is no other. Raises :class:`UserError`: none there."""
    if split.dataset is not None:
        from qcrd_ray.tasks.hub import HubSource  # `datasets` takes a second to import, and most splits are files

        return HubSource(split)
    file = find_file(split.path)
    return {".csv": CsvSource, ".tsv": CsvSource, ".parquet": ParquetSource}.get(file.suffix.lower(), JsonLinesSource)(file, split.path)


class JsonLinesSource:
    """One JSON object a line, whose columns are whatever keys occur."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name

    def columns(self) -> list[str]:
        return present_columns(iter_json_lines(self.file))

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        return iter_json_lines(self.file)


class CsvSource:
    """Comma- or tab-separated values with a header; a quoted value may hold commas and line ends. Rows are numbered by their first line."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        self._separator = "\t" if file.suffix.lower() == ".tsv" else ","

    def columns(self) -> list[str]:
        with self._open() as content:
            try:
                header = next(csv.reader(content, delimiter=self._separator), [])
            except csv.Error as error:
                raise UserError(f"{self.name}: its header cannot be read: {error}") from None
        if not header:
            raise UserError(f"{self.name}: the file has no header; its first line must name the columns")
        if twice := [column for column in dict.fromkeys(header) if header.count(column) > 1]:
            raise UserError(f"{self.name}: the column {twice[0]!r} is named twice in the header")
        return header

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        header = self.columns()
        with self._open() as content:
            reader = csv.reader(content, delimiter=self._separator)
            next(reader)
            while True:
                number = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:  # a quote that never closes
                    yield Line(number, None, f"no CSV: {error}", "")
                    continue
                if cells:
                    yield self._row(number, header, cells)

    def _row(self, number: int, header: list[str], cells: list[str]) -> Line:
        text = self._separator.join(cells)
        if any("\udc80" <= character <= "\udcff" for character in text):  # how the bytes that are no UTF-8 come through
            return Line(number, None, "not UTF-8", text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        if len(cells) != len(header):
            return Line(number, None, f"{len(cells)} cells, where the header names {len(header)} columns", text)
        return Line(number, dict(zip(header, cells, strict=True)), "", text)

    def _open(self):
        return self.file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class ParquetSource:
    """A Parquet file; integers of a Hugging Face class label become their names."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        try:
            self._schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise UserError(f"{name}: no Parquet file: {error}") from None

    def columns(self) -> list[str]:
        return self._schema.names

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        with pq.ParquetFile(self.file) as parquet:
            batches = parquet.iter_batches(BLOCK, columns=[column for column in self._schema.names if column in columns])
            yield from numbered(batches, self._class_names())

    def _class_names(self) -> dict[str, list[str]]:
        if b"huggingface" not in (self._schema.metadata or {}):
            return {}
        import datasets

        return class_names(datasets.Features.from_arrow_schema(self._schema))


def present_columns(lines: Iterable[Line]) -> list[str]:
    """All keys of the rows that could be read, in the order in which they first occur."""
    return list(dict.fromkeys(key for line in lines for key in line.data or ()))


def class_names(features: Any) -> dict[str, list[str]]:
    """The names behind the integers of each class-label column of ``datasets.Features``."""
    import datasets

    return {column: feature.names for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)}


def numbered(blocks: Iterable[pa.RecordBatch | pa.Table], classes: dict[str, list[str]]) -> Iterator[Line]:
    """The rows of ``blocks``, numbered from 1; a class label of -1 is the hub's way of saying that there is none."""
    number = 0
    for block in blocks:
        for row in block.to_pylist():
            number += 1
            for column, names in classes.items():
                value = row.get(column)
                if value is not None:
                    row[column] = names[value] if 0 <= value < len(names) else None
            yield Line(number, row, "", "")
