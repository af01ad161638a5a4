"""One progress line for a whole run: stage, share done, rate and time left. On the driver only.

A terminal sees a bar that redraws itself; a log file (a submitted job, a pipe) sees a plain line every few seconds, so that neither is
flooded and both always show how far the run is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]  # (done, total, note); a stage calls it on the driver as often as it likes

console = Console(stderr=True)


def silent(done: int, total: int, note: str = "") -> None:
    """The Report of a stage that is run without anybody watching."""


class Stages:
    """Shows one stage after another, and remembers how long each took (``seconds``)."""

    def __init__(self, *, every_s: float = 10.0):
        self.seconds: dict[str, float] = {}
        self._every_s = every_s

    @contextmanager
    def stage(self, name: str):
        """`with stages.stage("rationales") as report:` -- report(done, total, note) moves the line."""
        start = time.monotonic()
        show = self._bar(name) if console.is_terminal else self._lines(name)
        with show as report:
            yield report
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    @contextmanager
    def _bar(self, name: str):
        columns = (
            TextColumn("[bold]{task.description:<11}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=console, refresh_per_second=4) as progress:
            task = progress.add_task(name, total=None, note="starting")

            def report(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total or None, note=note)

            yield report

    @contextmanager
    def _lines(self, name: str):
        start = time.monotonic()
        last = [float("-inf"), ""]

        def report(done: int, total: int, note: str = "") -> None:
            now = time.monotonic()
            if now - last[0] < self._every_s and not 0 < total <= done:
                return
            line = plain_line(name, done, total, now - start, note)
            if line != last[1]:
                print(line, file=sys.stderr, flush=True)
                last[:] = [now, line]

        report(0, 0, "starting")
        yield report


def plain_line(name: str, done: int, total: int, elapsed: float, note: str) -> str:
    """One line of a log: "training 120/400 30% 0:41 eta 1:36 round 4"."""
    parts = [f"{name:<11}"]
    if total:
        parts.append(f"{done}/{total} {100 * done // total}%")
    parts.append(clock(elapsed))
    if 0 < done < total:
        parts.append(f"eta {clock(elapsed * (total - done) / done)}")
    return " ".join([*parts, note]).rstrip()


def clock(seconds: float) -> str:
    """95 -> "1:35", 3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
