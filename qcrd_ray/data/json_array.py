"""A JSON file that is one list of objects, as spreadsheets and scripts write it.

JSON has no lines to read it by, so it is held whole; a large one is refused with the command that
makes JSON Lines of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from qcrd_ray.data.json_lines import Line, not_utf8, object_line
from qcrd_ray.errors import UserError

MAX_BYTES = 128 << 20  # some ten times as much in memory
_LOOKED_AT = 4_096
_LIST = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*\{")
_NO_WHOLE_LINE = re.compile(rb"(\xef\xbb\xbf)?\s*\{\s*(\n|\"[^\"\n]*\"\s*:\s*\[?\s*\n)")


def is_json_array(file: Path) -> bool:
    """Whether a file begins as a list of objects; no file of JSON Lines does.

    Raises:
        UserError: it is one object over several lines, or a list that is too large to hold.
    """
    with file.open("rb") as content:
        start = content.read(_LOOKED_AT)
    if _NO_WHOLE_LINE.match(start):
        raise UserError(
            f"{file}: one JSON object over several lines, where a row a line was expected; if a key"
            f" of it holds the rows: `jq -c '.KEY[]' {file.name} > {file.stem}.jsonl`"
        )
    if not _LIST.match(start):
        return False
    if file.stat().st_size > MAX_BYTES:
        raise UserError(
            f"{file}: a JSON list of {file.stat().st_size >> 20} MiB, and a list is held in memory"
            f" up to {MAX_BYTES >> 20}: `jq -c '.[]' {file.name} > {file.stem}.jsonl` makes JSON"
            " Lines of it"
        )
    return True


class JsonArraySource:
    """The objects of a list, numbered from 1. The columns are all keys that occur."""

    def __init__(self, file: Path, name: str):
        self.file, self.name = file, name

    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for line in self.rows(()) for key in line.data or ()))

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        for number, item in enumerate(self._items(), 1):
            yield object_line(number, item, "")

    def _items(self) -> list[Any]:
        try:
            items = json.loads(self.file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{self.name}: {not_utf8(error)}") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.name}: begins as a JSON list, and is none: {error}") from None
        return items
