"""A full disk, found in whatever a stage raised because of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")


def full_disk(error: BaseException) -> str | None:
    """What the operating system said of a full disk; None if ``error`` does not come of one.

    Ray raises what a worker raised as its own kinds of error, with the words alone.
    """
    for each in _chain(error):
        if (isinstance(each, OSError) and each.errno in _ERRNOS) or any(
            word in str(each) for word in _WORDS
        ):
            lines = [line for line in str(each).splitlines() if any(w in line for w in _WORDS)]
            return (lines or [str(each)])[-1].strip()
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came of."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        cause = getattr(error, "cause", None)  # Ray's
        error = cause if isinstance(cause, BaseException) else error.__cause__ or error.__context__
