"""An error that nobody foresaw: its traceback into a file, and a line for the screen."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from qcrd_ray.cluster.private_files import session_parent
from qcrd_ray.errors import headline


def keep_traceback(error: BaseException) -> Path:
    """Write the traceback to a file that this user alone can read, and return its path."""
    folder = session_parent() / "errors"
    folder.mkdir(exist_ok=True)
    file = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns()}.log"
    file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return file


def said_and_kept(error: BaseException) -> str:
    """What to show of an error that nobody foresaw; its traceback is kept in a file."""
    return f"{headline(error)}\nThis was not foreseen. Its traceback: {keep_traceback(error)}"
