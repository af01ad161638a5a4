"""Library messages that mean nothing to a user, and how they are kept off the screen.

Each is matched by its text, with the reason beside it. Nothing is lost: Ray writes the same lines
to its session's log folder, where a developer looks for them.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Lines that the raylet sends to the driver. Ray drops what matches RAY_DEDUP_LOGS_SKIP_REGEX.
_RAYLET_NOISE = (
    # A local Ray declares more logical CPUs than the machine has, so it starts that many workers.
    r"PYTHON worker processes have been started on node",
    # Serve ends its controller from within a call to it; that call then counts as failed.
    r"Task ServeController\.graceful_shutdown failed",
)

# Lines that Ray's C++ core writes to file descriptor 2 of the driver.
_CORE_NOISE = (
    # Ray Data starts every actor of a pool so, whatever its arguments (ray-project/ray#57838).
    rb"has constructor arguments in the object store and max_restarts > 0",
)

# Records of Ray's Python loggers, by logger.
_LOGGED_NOISE = {
    # A local Ray turns token authentication on, which is what we want of it.
    "ray._private.authentication.authentication_token_setup": "Token authentication is enabled",
}


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the known noise off this process's standard error while the block runs.

    Call it before Ray is imported, in a process that is ours: it sets an environment variable that
    Ray reads at its import, and puts a pipe in the place of file descriptor 2. Python's own
    ``sys.stderr`` goes past the pipe, so a terminal stays one.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "|".join(_RAYLET_NOISE))
    for name, text in _LOGGED_NOISE.items():
        logging.getLogger(name).addFilter(lambda record, text=text: text not in record.getMessage())
    if sys.stderr is None:  # called with `2>&-`: nobody reads it
        yield
        return
    with _filtered_descriptor(2, re.compile(rb"|".join(_CORE_NOISE))):
        yield


# The program that a descriptor's lines go through.
_FILTER = """
import os, re, sys
noise = re.compile(os.fsencode(sys.argv[1]))
for line in sys.stdin.buffer:
    if not noise.search(line):
        try:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        except OSError:  # nobody can read it; whoever writes to the pipe must not notice
            pass
"""


@contextmanager
def _filtered_descriptor(descriptor: int, noise: re.Pattern[bytes]) -> Iterator[None]:
    """Drop the lines that match ``noise`` from what is written to ``descriptor``.

    A process of its own reads them. A thread would end with this process, and the last lines of a
    crash, which Ray's core writes before it aborts, with it; and it could not read while a library
    that holds the interpreter's lock writes.
    """
    sys.stderr.flush()
    original, python_stderr = os.dup(descriptor), sys.stderr
    lines = subprocess.Popen(
        # -I and -S: it starts in milliseconds, whatever the environment says
        [sys.executable, "-I", "-S", "-c", _FILTER, os.fsdecode(noise.pattern)],
        stdin=subprocess.PIPE,
        stdout=original,
        start_new_session=True,  # Ctrl-C is for this process; the filter ends with its input
    )
    assert lines.stdin is not None
    os.dup2(lines.stdin.fileno(), descriptor)
    lines.stdin.close()
    sys.stderr = os.fdopen(
        os.dup(original),
        "w",
        buffering=1,
        encoding=python_stderr.encoding,
        errors="backslashreplace",
        closefd=False,  # loggers that were set up meanwhile go on writing to it
    )
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = python_stderr
        os.dup2(original, descriptor)  # closes the pipe's last write end, which ends the filter
        os.close(original)
        with suppress(subprocess.TimeoutExpired):  # a child that inherited the pipe holds it open
            lines.wait(timeout=1.0)
