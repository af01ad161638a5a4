"""Replica health: report a model that died or hangs.

Ray Serve keeps sending requests to a replica that does not report its trouble.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Health:
    """Runs the model's work in threads, and records whether it failed or hangs.

    Args:
        stuck_after_s: seconds after which a batch counts as hanging; longer than any batch takes.
        threads: pieces of work that may be in progress at once; more wait.
    """

    def __init__(self, *, stuck_after_s: float, threads: int = 8) -> None:
        self._stuck_after_s = stuck_after_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._started: dict[object, float] = {}  # when each piece of work in progress began
        self._failed: set[str] = set()  # the kinds of work whose last piece raised

    async def run(self, kind: str, work: Callable[[], T]) -> T:
        """``work()`` in a thread: the event loop stays free for health checks."""
        mark = object()
        self._started[mark] = time.monotonic()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception:
            self._failed.add(kind)
            raise
        finally:
            del self._started[mark]
        self._failed.discard(kind)
        return result

    @property
    def trouble(self) -> str:
        """Why the model cannot answer requests, or ""."""
        if self._stuck:
            return f"the model has been busy with one batch for over {self._stuck_after_s:g} s"
        return "the model failed in its last batch" if self._failed else ""

    async def check(self, probe: Callable[[], object]) -> None:
        """Raise where the model hangs, or where its last batch failed and ``probe`` fails too.

        One bad batch alone does not mean that the model is dead.
        """
        if self._stuck:
            raise RuntimeError(self.trouble)
        if self._failed and not self._started:
            await self.run("probe", probe)
            self._failed.clear()

    @property
    def _stuck(self) -> bool:
        return any(
            time.monotonic() - started > self._stuck_after_s for started in self._started.values()
        )
