"""An outage of the teacher, as all askers of a process see it together.

One question alone cannot tell an outage from its own fault. When several requests in a row failed
and none was answered between them, the teacher is away: all wait, and one after another tries. A
request that fails again although others were answered since its last failure says nothing of the
teacher: a few questions that can never be answered must not look like an outage at the end of a
stage, when they alone are left.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from qcrd_ray.teacher import Stopped

TRIPS_AT = 5  # failures in a row
MAX_WAIT_S = 60.0  # between two tries
_LOOK_EVERY_S = 0.2


class GivenUp(Stopped):
    """The teacher has been away for longer than anyone waits."""


class Breaker:
    """Lets requests through while the teacher answers, and one at a time while it does not.

    Args:
        patience_s: how long it may be away (`generation.retry_minutes`).
        backoff_s: seconds before the first try; they double with each further one.
    """

    def __init__(
        self,
        *,
        patience_s: float,
        backoff_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._patience_s, self._backoff_s, self._clock = patience_s, backoff_s, clock
        self.answers = 0
        self._failures = 0  # since the last answer
        self._since = self._try_at = 0.0  # of the first of them; when the next try may be
        self._waits = 0
        self._trying = False
        self._reason = ""

    @property
    def away(self) -> bool:
        """Whether no request is answered at the moment."""
        return self._failures >= TRIPS_AT

    def answered(self) -> None:
        """The teacher is there."""
        self.answers += 1
        self._failures = self._waits = 0
        self._trying = False

    def failed(self, reason: str, *, retry_after_s: float = 0.0, suspect: bool = False) -> None:
        """A request found the teacher away; ``retry_after_s`` is how long that asks to wait.

        A ``suspect`` request, one that fails where others are answered, says nothing of the
        teacher, unless it is the one that tries while the teacher is away.
        """
        if suspect and not self.away:
            return
        now = self._clock()
        if not self._failures:
            self._since = now
        self._failures += 1
        self._reason = reason
        if self.away and (self._trying or not self._waits):
            wait_s = min(self._backoff_s * 2**self._waits, MAX_WAIT_S) * random.uniform(0.5, 1.0)
            self._try_at = now + max(wait_s, min(retry_after_s, self._patience_s))
            self._waits += 1
            self._trying = False

    async def admit(self) -> None:
        """Return when a request may be sent.

        Raises:
            GivenUp: the teacher has been away for longer than the patience.
        """
        while self.away:
            now = self._clock()
            if now - self._since > self._patience_s:
                raise GivenUp(
                    f"it has answered nothing for {self._patience_s / 60:.3g} minutes"
                    f" (generation.retry_minutes): {self._reason}"
                )
            if not self._trying and now >= self._try_at:
                self._trying = True
                return
            await asyncio.sleep(_LOOK_EVERY_S)
