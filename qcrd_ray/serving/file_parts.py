"""A JSON Lines file in parts by byte range: each can be read, answered and written alone, on any node that sees the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qcrd_ray.json_lines import Line, empty, read_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes ``start`` up to ``end`` of a file: whole lines, of which ``rows`` are not blank. The first is its line ``first_line``."""

    number: int
    start: int
    end: int
    first_line: int
    rows: int


def cut(file: Path, *, rows: int) -> tuple[list[Part], str]:
    """The parts of ``file``, of ``rows`` rows each, and the hash of its content; read once and never held whole.

    Raises:
        UserError: there is nothing in it.
    """
    digest = hashlib.sha256()
    parts: list[Part] = []
    start = end = taken = 0
    first_line = 1
    with file.open("rb") as content:
        for number, raw in enumerate(content, 1):
            digest.update(raw)
            end += len(raw)
            taken += bool(raw.strip())
            if taken == rows:
                parts.append(Part(number=len(parts), start=start, end=end, first_line=first_line, rows=taken))
                start, first_line, taken = end, number + 1, 0
    if taken:
        parts.append(Part(number=len(parts), start=start, end=end, first_line=first_line, rows=taken))
    if not parts:
        raise empty(file)
    return parts, digest.hexdigest()


def read_part(file: Path, part: Part) -> Iterator[Line]:
    """The lines of a part that are not blank."""
    with file.open("rb") as content:
        content.seek(part.start)
        lines = content.read(part.end - part.start).split(b"\n")
    for number, raw in enumerate(lines, part.first_line):
        if raw.strip():
            yield read_line(number, raw)
