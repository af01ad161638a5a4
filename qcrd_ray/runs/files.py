"""Atomic writes: a file or a folder appears whole or not at all.

Each is written under a hidden name beside its own (`.<name>.writing`) and renamed when it is
complete. A reader never meets half of one, and neither does the run that continues after a kill.
Hidden names are no part of a run folder; :mod:`qcrd_ray.runs.storage` leaves them out.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger(__name__)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file atomically. Several processes may write the same file at once.

    A file that is not ``durable`` may be lost or torn with its host, and is written faster.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        writing.write_text(text, encoding="utf-8")
        _rename(writing, path, durable=durable)
    finally:
        writing.unlink(missing_ok=True)


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
        _rename(writing, path, durable=True)
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
        for inner in [*writing.rglob("*"), writing]:
            _sync(inner)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        writing.rename(path)
        _sync(path.parent)
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.rename(path)
        shutil.rmtree(writing, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path, default: Any) -> Any:
    """What a JSON file holds; ``default`` where there is none. A torn one is set aside."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except ValueError as error:
        set_aside(path, error)
        return default


def set_aside(path: Path, error: Exception) -> Path:
    """Give a file that cannot be read another name, which nobody reads, and warn of it.

    A lost host or a disk tears files; they are kept for whoever wants to look.
    """
    aside = path.with_name(f"{path.name}.torn-{uuid.uuid4().hex[:8]}")
    path.rename(aside)
    reason = str(error).partition("\n")[0]
    log.warning("%s is torn (%s); it is made again, and lies aside as %s", path, reason, aside.name)
    return aside


def _rename(writing: Path, path: Path, *, durable: bool) -> None:
    """Rename a written file, and be sure of it after a power cut where it is ``durable``.

    Without the first call the name may be on the disk before the content.
    """
    if durable:
        _sync(writing)
    writing.replace(path)
    if durable:
        _sync(path.parent)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do it for folders
            raise
    finally:
        os.close(file)


def _writing(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")
