"""One progress line for a whole run: stage, share done, rate and time left. On the driver only.

A terminal gets a bar that redraws itself. A log file (a submitted job, a pipe) gets a plain line
every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# (done, total, note); a stage calls it on the driver as often as it likes
Report = Callable[[int, int, str], None]

console = Console(stderr=True)


def no_progress(done: int, total: int, note: str = "") -> None:
    """A Report that shows nothing."""


class Stages:
    """Shows the progress of one stage after another, and keeps the ``seconds`` of each."""

    def __init__(self, *, every_s: float = 10.0):
        self.seconds: dict[str, float] = {}
        self._every_s = every_s

    @contextmanager
    def stage(self, name: str):
        """Show a stage while the block runs: `with stages.stage("rationales") as report: ...`."""
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
            TextColumn("{task.fields[pace]}"),
            TextColumn("[dim]{task.fields[note]}"),
        )
        pace = Pace()
        with Progress(*columns, console=console, refresh_per_second=4) as progress:
            task = progress.add_task(name, total=None, note="starting", pace="")

            def report(done: int, total: int, note: str = "") -> None:
                pace.update(done, total, time.monotonic())
                progress.update(
                    task, completed=done, total=total or None, note=note, pace=pace.text()
                )

            yield report

    @contextmanager
    def _lines(self, name: str):
        start = time.monotonic()
        last = [float("-inf"), ""]
        pace = Pace()

        def report(done: int, total: int, note: str = "") -> None:
            now = time.monotonic()
            pace.update(done, total, now)
            if now - last[0] < self._every_s and not 0 < total <= done:
                return
            line = plain_line(name, done, total, now - start, pace.text(), note)
            if line != last[1]:
                print(line, file=sys.stderr, flush=True)
                last[:] = [now, line]

        report(0, 0, "starting")
        yield report


class Pace:
    """How fast a stage goes, measured from its first progress on.

    What an earlier run had finished, and the time in which models and workers start, say nothing
    about how fast the rest will go.
    """

    def __init__(self):
        self._total, self._done, self._now = 0, 0, 0.0
        self._from: tuple[int, float] | None = None  # done, and when

    def update(self, done: int, total: int, now: float) -> None:
        """Add a report. Another total, or less done than before, begins a new measurement."""
        if total != self._total or done < self._done:
            self._from = None
        elif self._from is None and done > self._done:
            self._from = (done, now)
        self._total, self._done, self._now = total, done, now

    @property
    def rate(self) -> float | None:
        """Work done per second; None if it is not known yet."""
        if self._from is None or self._done == self._from[0]:
            return None
        return (self._done - self._from[0]) / (self._now - self._from[1])

    def text(self) -> str:
        """ "3.3/s eta 1:30", or "" if the rate is not known yet."""
        if self.rate is None:
            return ""
        left = self._total - self._done
        return (
            f"{rate_text(self.rate)} eta {format_duration(left / self.rate)}"
            if left
            else rate_text(self.rate)
        )


def rate_text(per_second: float) -> str:
    """33/s, 3.3/s, 12/min, 5.0/h: in the unit that is easiest to read."""
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 1 or unit == "h":
            break
    count = per_second * seconds
    return f"{count:,.0f}/{unit}" if count >= 10 else f"{count:.1f}/{unit}"


def plain_line(name: str, done: int, total: int, elapsed: float, pace: str, note: str) -> str:
    """One line of a log: "qcrd 120/400 30% 0:41 2.9/s eta 1:36 round 4"."""
    parts = [f"{name:<11}"]
    if total:
        parts.append(f"{done}/{total} {100 * done // total}%")
    parts.append(format_duration(elapsed))
    return " ".join(part for part in (*parts, pace, note) if part).rstrip()


def format_duration(seconds: float) -> str:
    """95 -> "1:35", 3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
