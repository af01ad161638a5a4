"""Work that repeats in the background while a block of code runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qcrd_ray.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def periodically(function: Callable[[], object], *, every_s: float) -> Iterator[None]:
    """Call ``function`` every ``every_s`` seconds while the block runs, and once when it ends.

    The calls come from a daemon thread, so the block keeps the main thread and Ctrl-C reaches it;
    the last call comes from the block's own thread. No two calls overlap.

    A call that fails is logged, and the next one is tried. The last call may raise; if the block
    itself raises, the error of the last call is logged and the block's error is kept.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            _call_or_log(function)

    name = f"periodic {getattr(function, '__name__', '')}".rstrip()
    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()
        thread.join()
        _call_or_log(function)
        raise
    ended.set()
    thread.join()
    function()


def _call_or_log(function: Callable[[], object]) -> None:
    try:
        function()
    except UserError as error:
        log.warning("%s", error)
    except Exception:  # a thread has no caller to raise to
        log.warning("background work failed", exc_info=True)
