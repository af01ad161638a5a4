"""Where the seconds of a round go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by part of a round."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[part] = round_s(self.seconds.get(part, 0.0) + time.monotonic() - start)


def round_s(seconds: float) -> float:
    return round(seconds, 3)
