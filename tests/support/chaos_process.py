"""A command in a process of its own, with everything that it starts, to be broken."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

LOOK_EVERY_S = 0.5
GONE_S = 20.0  # after its end, nothing of a command may be alive


class Missed(Exception):
    """The command had ended, or its process was gone, before the fault."""


class Command:
    """A running command. Its words, of both streams, go to ``log``.

    A thread looks for its descendants as long as one of them lives: orphans are found too.
    """

    def __init__(self, argv: Sequence[str | Path], log: Path, **environment: str):
        self.log = log
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a shell's background; inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("wb") as words:
            self._process = subprocess.Popen(
                list(map(str, argv)),
                stdout=words,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, as a shell gives it: Ctrl-C
                env=os.environ | environment,
            )
        self.pid = self._process.pid
        self._ended = self._gone = time.monotonic()  # when it was last alive; when any of it was
        self.late: list[str] = []
        self._seen: dict[int, psutil.Process] = {self.pid: psutil.Process(self.pid)}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    @property
    def words(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def wait(self, deadline_s: float) -> int:
        """The exit code, ``deadline_s`` from now at the latest."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise AssertionError(
                f"it was still at work after {deadline_s:.0f} s:\n{self.words[-2000:]}"
            ) from None

    def find(self, pattern: str, *, timeout_s: float = 30.0) -> list[psutil.Process]:
        """The living descendants whose command line matches. Raises Missed if none comes."""
        deadline = time.monotonic() + timeout_s
        while self.code is None and time.monotonic() < deadline:
            found = [each for each in self._descendants() if re.search(pattern, _words_of(each))]
            if found:
                return found
            time.sleep(0.05)
        raise Missed(f"no process {pattern}: {[_words_of(each)[:60] for each in self.alive()]}")

    def kill(self, victim: psutil.Process | None = None) -> None:
        """SIGKILL a descendant (None: the command itself), and see that it is dead."""
        victim = victim or psutil.Process(self.pid)
        self.end(victim, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while _lives(victim):
            assert time.monotonic() < deadline, f"{victim} does not die"
            time.sleep(0.01)

    def end(self, victim: psutil.Process, number: int) -> None:
        """Send a signal. Raises Missed if there is nobody to take it."""
        if self.code is not None:
            raise Missed("the command has ended")
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess as error:
            raise Missed("the process has ended") from error

    def terminate(self) -> None:
        """SIGTERM to the command alone, as `ray job stop` and Kubernetes send it."""
        self.end(psutil.Process(self.pid), signal.SIGTERM)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends SIGINT to the whole foreground group."""
        if self.code is not None:
            raise Missed("the command has ended")
        os.killpg(self.pid, signal.SIGINT)

    def alive(self) -> list[psutil.Process]:
        """What lives of the command and all that it has started."""
        return [each for each in list(self._seen.values()) if _lives(each)]

    def wait_gone(self) -> float:
        """Seconds from the command's end to that of the last process that it had started.

        After GONE_S they are waited for no longer; ``late`` names what was still alive then.
        """
        self._watcher.join(GONE_S + 5)
        return self._gone - self._ended

    def destroy(self) -> None:
        """End everything, at the end of a trial that went wrong."""
        for process in self.alive():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait(10)
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S) and (alive := self.alive()):
            self._descendants()
            self._gone = time.monotonic()
            if _lives(self._seen[self.pid]):
                self._ended = self._gone
            elif self._gone > self._ended + GONE_S and not self.late:
                self.late = [_words_of(each)[:80] for each in alive]

    def _descendants(self) -> list[psutil.Process]:
        parents = {each.pid for each in self.alive()}
        everybody = [(each, each.info["ppid"]) for each in psutil.process_iter(["ppid"])]
        found = True
        while found:
            found = [
                each for each, parent in everybody if parent in parents and each.pid not in parents
            ]
            parents |= {each.pid for each in found}
            self._seen.update({each.pid: each for each in found})
        return [each for each in self.alive() if each.pid != self.pid]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _words_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
