"""Where rows come from: JSON Lines and lists, CSV, Parquet and Hugging Face data sets.

Each is read as numbered rows of plain values, as often as needed, and holds one block of rows at a
time, so a million rows cost no memory. Code that comes with a data set is never run.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.json_array import JsonArraySource, is_json_array
from qcrd_ray.data.json_lines import RECODE, Line, find_file, iter_json_lines
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split

BLOCK = 1_000  # rows that are held as Python values at a time

# Spreadsheets of countries with a decimal comma part the cells by semicolons.
_SEPARATORS = (";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class RowSource(Protocol):
    """The rows of one file or data set."""

    name: str  # in error messages

    def columns(self) -> list[str]:
        """The columns of the source."""
        ...

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        """All rows, bad ones with their reason. Where that is faster, only ``columns`` are read."""
        ...


def open_source(split: Split) -> RowSource:
    """The source that a split names.

    A file's kind is known by its ending, and else JSON: a list, or an object a line.

    Raises:
        UserError: there is no such file or data set, or it is of a kind that is not read.
    """
    if split.dataset is not None:
        from qcrd_ray.data.hub_datasets import HubSource

        return HubSource(split)
    assert split.path is not None, "a split that is generated has no source"
    file = find_file(split.path)
    ending = file.suffix.lower()
    if ending == ".parquet":
        return ParquetSource(file, split.path)
    with file.open("rb") as content:
        start = content.read(2)
    if start in _UTF16:
        raise UserError(
            f"{split.path}: the file is UTF-16; `iconv -f UTF-16 -t UTF-8` makes one that can be"
            " read"
        )
    if start == b"PK":
        raise UserError(
            f"{split.path}: a zip archive or a spreadsheet (.xlsx); save the sheet as CSV, or"
            " unpack the archive"
        )
    if ending in (".csv", ".tsv"):
        return CsvSource(file, split.path)
    return (JsonArraySource if is_json_array(file) else JsonLinesSource)(file, split.path)


def fingerprint(split: Split) -> str:
    """A text that changes whenever the rows of a split's source do.

    Raises:
        UserError: as :func:`open_source`.
    """
    if split.dataset is not None:
        from qcrd_ray.data.hub_datasets import HubSource

        return HubSource(split).fingerprint
    assert split.path is not None, "a split that is generated has no source"
    with find_file(split.path).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


class JsonLinesSource:
    """JSON Lines: one object a line. The columns are all keys that occur."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name

    def columns(self) -> list[str]:
        return present_columns(iter_json_lines(self.file))

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        return iter_json_lines(self.file)


class CsvSource:
    """Comma- or tab-separated values with a header, numbered by the first line of each row.

    A header without a comma that holds semicolons or tabs is parted by these. A quoted value may
    hold separators and line ends.
    """

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name
        self._separator = "\t" if file.suffix.lower() == ".tsv" else ","
        header = self._header()
        if len(header) == 1:
            self._separator = next(
                (other for other in _SEPARATORS if other in header[0]), self._separator
            )

    def columns(self) -> list[str]:
        header = self._header()
        if any(map(_not_utf8, header)):
            raise UserError(f"{self.name}: its header is not UTF-8; {RECODE}")
        if not header:
            raise UserError(
                f"{self.name}: the file has no header; its first line must name the columns"
            )
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

    def _header(self) -> list[str]:
        with self._open() as content:
            try:
                return next(csv.reader(content, delimiter=self._separator), [])
            except csv.Error as error:
                raise UserError(f"{self.name}: its header cannot be read: {error}") from None

    def _row(self, number: int, header: list[str], cells: list[str]) -> Line:
        text = self._separator.join(cells)
        if _not_utf8(text):
            return Line(
                number,
                None,
                f"not UTF-8; {RECODE}",
                text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            )
        if len(cells) != len(header):
            return Line(
                number,
                None,
                f"{len(cells)} cells, where the header names {len(header)} columns",
                text,
            )
        return Line(number, dict(zip(header, cells, strict=True)), "", text)

    def _open(self) -> TextIO:
        return self.file.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class ParquetSource:
    """A Parquet file. Integers of a Hugging Face class label become the labels' names."""

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
            batches = parquet.iter_batches(
                BLOCK, columns=[column for column in self._schema.names if column in columns]
            )
            yield from numbered(batches, self._class_names())

    def _class_names(self) -> dict[str, list[str]]:
        if b"huggingface" not in (self._schema.metadata or {}):
            return {}
        from qcrd_ray.data.hub_datasets import class_names_of

        return class_names_of(self._schema)


def _not_utf8(text: str) -> bool:
    """Whether a text holds bytes that are not UTF-8, as `surrogateescape` decodes them."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def present_columns(lines: Iterable[Line]) -> list[str]:
    """All keys of the readable rows, in order of first occurrence."""
    return list(dict.fromkeys(key for line in lines for key in line.data or ()))


def numbered(
    blocks: Iterable[pa.RecordBatch | pa.Table], classes: dict[str, list[str]]
) -> Iterator[Line]:
    """The rows of ``blocks``, numbered from 1. A class label of -1 is none, as on the hub."""
    number = 0
    for block in blocks:
        for row in block.to_pylist():
            number += 1
            for column, names in classes.items():
                value = row.get(column)
                if value is not None:
                    row[column] = names[value] if 0 <= value < len(names) else None
            yield Line(number, row, "", "")
