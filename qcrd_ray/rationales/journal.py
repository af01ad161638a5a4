"""Rows as they are finished: one JSON line each, on the disk as soon as they are answered.

A process that is killed loses nothing that it had written. A kill in the middle of a line leaves a
torn one, which is no row. Nobody appends to a journal that another process began, so only its end
can be torn.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, RationaleSet

log = logging.getLogger(__name__)


class Journal:
    """A file that rows are appended to, in a ``with`` block. There must be none at ``path``."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("xb")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def append(self, sets: Sequence[RationaleSet]) -> None:
        """Write rows, and hand them to the operating system: our own death costs none of them."""
        lines = [json.dumps(each.row(), ensure_ascii=False) + "\n" for each in sets]
        self._file.write("".join(lines).encode())
        self._file.flush()


def read_journal(path: Path) -> pa.Table:
    """The whole rows of a journal (RATIONALE_SET_SCHEMA); torn lines are left out."""
    *lines, last = path.read_bytes().split(b"\n")
    rows, torn = [], 0
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # of a host that was lost; a kill tears the last line alone
            torn += 1
    if torn or last:
        log.log(
            logging.WARNING if torn else logging.DEBUG,
            "%s: %d lines are torn; their questions are asked again",
            path,
            torn + bool(last),
        )
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA)
