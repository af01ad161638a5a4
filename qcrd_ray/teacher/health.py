"""Whether a served teacher can still answer: what Ray Serve says of its replicas, over time.

Serve replaces a replica that died. Where the replacement does not start it tries again for ever,
since it gives up before the first success alone. Without this a dead teacher would cost each
question all of its attempts, each as long as a request may take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ray.serve.schema import ApplicationStatusOverview

from qcrd_ray.teacher.base import Stopped

LOOK_EVERY_S = 5.0  # as far apart as Serve's own health checks of a replica


class Health:
    """Looks at the teacher's application every few seconds, while something waits for an answer.

    ``look`` gives the application as Serve reports it, None where it is gone. ``ready_timeout_s``
    is how long a replacement may take (`teacher.ready_timeout_s`). Threads may share it.
    """

    def __init__(
        self,
        look: Callable[[], ApplicationStatusOverview | None],
        *,
        ready_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._look, self._clock, self._ready_timeout_s = look, clock, ready_timeout_s
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._lost: float | None = None  # when no replica was seen first
        self._trouble = ""

    def trouble(self) -> str:
        """Why no replica answers at the moment, in words; "" where one does.

        It may take as long as a call to Serve.

        Raises:
            Stopped: none will answer: the application is gone, Serve has given up on its
                replacements, or none has come within ``ready_timeout_s``.
        """
        with self._lock:
            now = self._clock()
            if self._looked is None or now - self._looked >= LOOK_EVERY_S:
                if self._looked is not None and now - self._looked > self._ready_timeout_s:
                    self._lost = None  # nothing waited meanwhile, and none may have been needed
                self._trouble = self._judge(self._look(), now)
                self._looked = now
            return self._trouble

    def _judge(self, application: ApplicationStatusOverview | None, now: float) -> str:
        if application is None:
            raise Stopped("the teacher is gone: Ray Serve has no application of this run any more")
        deployments = list(application.deployments.values())
        # the states are enums of text
        states = [name for each in deployments for name, n in each.replica_states.items() if n]
        if "RUNNING" in states:
            self._lost = None
            return ""
        message = "\n".join(each.message for each in deployments) or application.message
        reason = f":\n{tail(message)}" if message.strip() else ""
        if application.status == "DEPLOY_FAILED" or any(
            each.status_trigger == "REPLICA_STARTUP_FAILED" for each in deployments
        ):
            raise Stopped(f"the teacher died, and vLLM does not start again{reason}")
        self._lost = now if self._lost is None else self._lost
        if (waited := now - self._lost) > self._ready_timeout_s:
            raise Stopped(
                f"the teacher has had no replica for {waited:.0f} s"
                f" (teacher.ready_timeout_s){reason}"
            )
        return f"the teacher has no replica, for {waited:.0f} s{reason}"


def tail(text: str, lines: int = 6) -> str:
    """The last lines of a traceback, which name the error."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])
