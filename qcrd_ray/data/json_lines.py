"""JSON Lines files and the paths of a recipe. Every line is kept, a bad one with a reason."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcrd_ray.errors import UserError

_DATA = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# Nothing in a file says which of the old encodings it has, so none is guessed.
RECODE = "of a file in Latin-1, `iconv -f WINDOWS-1252 -t UTF-8` makes one that can be read"
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a source, readable or not."""

    number: int  # of the line or row, from 1
    data: dict[str, Any] | None  # None if it cannot be read
    reason: str  # why not
    text: str


def expand_path(path: str) -> Path:
    """``path`` with ${VARIABLES} of the environment and ``~`` filled in.

    Raises:
        UserError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UserError(
                f"{path}: the environment variable {match[1]} is not set; set it, or write the"
                " path out"
            )
        return os.environ[match[1]]

    return Path(_VARIABLE.sub(value, path)).expanduser()


def read_json_lines(path: str) -> list[Line]:
    """All lines that are not blank.

    Raises:
        UserError: there is no such file, or nothing in it.
    """
    file = find_file(path)
    lines = list(iter_json_lines(file))
    if not lines:
        raise empty_file(file)
    return lines


def iter_json_lines(file: Path) -> Iterator[Line]:
    """The lines that are not blank, one at a time."""
    with file.open("rb") as content:
        for number, raw in enumerate(content, 1):
            if raw.strip():
                yield read_line(number, raw.removesuffix(b"\n"))


def find_file(path: str) -> Path:
    """The file that ``path`` names.

    Raises:
        UserError: it is no file; offers files of similar names.
    """
    file = expand_path(path)
    if file.is_dir():
        raise UserError(f"{file}: is a folder; name the file in it{_suggest(file / '*')}")
    if not file.is_file():
        raise UserError(f"{file}: there is no such file{_suggest(file)}")
    return file


def empty_file(file: Path) -> UserError:
    """The error for a file without a line."""
    return UserError(
        f"{file}: the file is empty; it must hold a question a line, each a JSON object"
    )


def read_line(number: int, raw: bytes) -> Line:
    """One line of a file, whatever it holds."""
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        return Line(
            number,
            None,
            not_utf8(error),
            raw.decode("utf-8", "replace"),
        )
    try:
        data = json.loads(text)
        if "\\u" in text:  # only an escape can spell half of a surrogate pair
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        return Line(number, None, f"no JSON: {error.msg} at column {error.colno}", text)
    except UnicodeEncodeError:
        return Line(
            number,
            None,
            "holds half of a surrogate pair (a \\ud800 escape), which is no character",
            text,
        )
    # a number of thousands of digits; brackets nested by the thousand
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"JSON that cannot be read: {error}", text)
    return object_line(number, data, text)


def object_line(number: int, data: object, text: str) -> Line:
    """A row of JSON that has been read: an object, or a row that cannot be used."""
    if not isinstance(data, dict):
        return Line(
            number,
            None,
            f'a JSON {type(data).__name__}, where an object like {{"id": ...}} was expected',
            text or json.dumps(data, ensure_ascii=False),
        )
    return Line(number, data, "", text)


def not_utf8(error: UnicodeDecodeError) -> str:
    """What to tell of bytes that are not UTF-8, with the command that usually helps."""
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}; {RECODE}"


def _suggest(file: Path) -> str:
    """Similar names in the folder of a missing file, for its error."""
    if not file.parent.is_dir():
        return f" (nor the folder {file.parent})"
    names = sorted(p.name for p in file.parent.iterdir() if p.is_file())
    near = (
        difflib.get_close_matches(file.name, names, n=3, cutoff=0.5)
        or [n for n in names if n.endswith(_DATA)][:5]
    )
    return f"; near it: {', '.join(near)}" if near else ""
