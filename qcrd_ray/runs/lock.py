"""One driver at a time in a run folder: two would pay for the same questions.

The lock is a file that names its holder. On one machine the kernel keeps it (`flock`), so it is
free the moment its process is gone, however that ended. Not every shared file system carries such
locks between machines. So the holder also touches the file every few seconds, and a driver on
another machine watches: a file that is touched has a living holder, one that is not touched for a
minute has a dead one, and is taken over. No two clocks are compared.
"""

from __future__ import annotations

import _thread
import atexit
import fcntl
import json
import logging
import os
import platform
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from qcrd_ray.errors import UserError

BEAT_EVERY_S = 5.0
DEAD_AFTER_S = 60.0  # without a beat; a busy machine or file system may miss some
_WATCH_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Holder(TypedDict):
    """The driver that has a lock, as its file says."""

    token: str
    host: str
    place: str  # of the process's id: a boot of a machine, and a container on it
    pid: int
    since: str  # UTC, ISO 8601


class _Held:
    """A lock that this process has, and its beat."""

    def __init__(self, path: Path, file: int, token: str):
        self._path, self._file, self._token = path, file, token
        self._over = threading.Event()
        threading.Thread(target=self._beat, name=f"beat of {path}", daemon=True).start()

    def release(self) -> None:
        if not self._over.is_set():
            self._over.set()
            if self._is_ours():
                os.ftruncate(self._file, 0)
            os.close(self._file)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_EVERY_S):
            if not self._is_ours():
                log.error("another driver has taken %s over; this one stops", self._path.parent)
                _thread.interrupt_main()
                return
            os.utime(self._path)

    def _is_ours(self) -> bool:
        """Whether nobody took this lock over while this machine slept, for example."""
        holder = _read(self._path)
        return holder is not None and holder["token"] == self._token


_held: dict[Path, _Held] = {}


def hold(path: Path, *, folder: str) -> None:
    """Take the lock in the file ``path`` until :func:`release`, or this process's end.

    Does nothing where this process has it already. ``folder`` names the run folder in errors.

    Raises:
        UserError: another driver has it; names its host, its process and since when.
    """
    if path in _held:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(path, file, folder)
        token = uuid.uuid4().hex
        _write(file, token)
    except BaseException:
        os.close(file)
        raise
    _held[path] = _Held(path, file, token)
    atexit.register(release, path)


def release(path: Path) -> None:
    """Let go of a lock; does nothing where this process does not have it."""
    if held := _held.pop(path, None):
        held.release()


def held_folders() -> list[Path]:
    """The folders of the locks that this process has."""
    return [path.parent for path in _held]


def _take(path: Path, file: int, folder: str) -> None:
    """Return when no living driver has the lock. Raises UserError where one has."""
    kept_by_kernel = True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(_read(path), path, folder) from None
    except OSError as error:  # a file system without locks
        log.debug("%s: no lock by the kernel: %s", path, error)
        kept_by_kernel = False
    holder = _read(path)
    if holder is None or (kept_by_kernel and holder["place"] == _place()):
        return
    log.warning(
        "a driver on %s worked in %s; waiting %.0f s for a sign of life",
        holder["host"],
        folder,
        DEAD_AFTER_S,
    )
    last, deadline = _last_beat(path), time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < deadline:
        time.sleep(_WATCH_EVERY_S)
        if _last_beat(path) != last:
            if (holder := _read(path)) is None:
                return  # it ended meanwhile
            raise _refusal(holder, path, folder)


def _refusal(holder: Holder | None, path: Path, folder: str) -> UserError:
    who = "another process"
    if holder is not None:
        who = f"process {holder['pid']} on {holder['host']}, since {holder['since']},"
    return UserError(
        f"run: {who} works in {folder}; two drivers would pay for the same questions. Wait until it"
        f" ends, or end it there, and run this command again. The lock is {path}."
    )


def _write(file: int, token: str) -> None:
    holder: Holder = {
        "token": token,
        "host": platform.node(),
        "place": _place(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)
    os.fsync(file)


def _read(path: Path) -> Holder | None:
    """The holder by the file; None where it is empty, gone, or was being written at a kill."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _last_beat(path: Path) -> int:
    with path.open("rb") as file:  # opening makes NFS ask its server
        return os.fstat(file.fileno()).st_mtime_ns


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
