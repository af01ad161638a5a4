"""Atomic writes: a file or a folder appears whole or not at all.

Each is written under a hidden name beside its own (`.<name>.writing`) and renamed when it is
complete. A reader never meets half of one, and neither does the run that continues after a kill.
Hidden names are no part of a run folder; :mod:`qcrd_ray.run.storage` leaves them out.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Several processes may write the same file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    writing.write_text(text, encoding="utf-8")
    writing.replace(path)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file atomically."""
    with atomic_file(path) as writing:
        pq.write_table(table, writing)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path to write to; the file takes the name ``path`` when the block ends.

    Nothing appears if the block raises. One process at a time may write ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = _writing(path)
    try:
        yield writing
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the name ``path`` when the block ends.

    A folder that exists at ``path`` is replaced: its name is free only between two renames. Nothing
    changes if the block raises. One process at a time may write ``path``.
    """
    writing, old = _writing(path), path.with_name(f".{path.name}.old")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    try:
        yield writing
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        writing.rename(path)
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.rename(path)
        shutil.rmtree(writing, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _writing(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")
