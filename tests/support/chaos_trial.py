"""One fault, caused for real at a moment of a stage, and what must be true after the same command
has been given again.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_process import GONE_S, Command, Missed
from chaos_stages import QUESTIONS, STAGES, Place, distance
from chaos_teacher import ChaosTeacher

TRIES = 3  # at moments that were still ahead of the command's end
POLL_S = 0.05
ORDERLY_S = 15.0  # within which a command ends that is asked to
RAYS_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
AGAIN = 3  # calls of one command, until it has ended well
KILLED, DONE, MISTAKE, INTERRUPTED, TERMINATED = -9, 0, 1, 130, 143
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ADDRESS": "local",
    "RAY_worker_niceness": "0",  # beside other work the workers would starve
    "OMP_NUM_THREADS": "1",
}


def nothing(trial: Trial) -> None:
    """What a fault does where it has nothing to do."""


@dataclass(frozen=True)
class Fault:
    """What is broken, and when.

    Args:
        strike: done at a random moment of the stage's work, or as soon as ``moment`` is true.
        codes: how the broken command may end; () allows any way.
        before: done before the command is given first.
        between: done when it has ended, before it is given again.
        begins_in: the stage whose finished folder it begins in; None: the stage's own.
        disk: the trial's folder is a small disk of its own.
        passes: how often all questions may be paid for. A kill costs what was in flight.
    """

    name: str
    stage: str
    strike: Callable[[Trial], object] = nothing
    codes: tuple[int, ...] = ()
    moment: Callable[[Place], bool] | None = None
    before: Callable[[Trial], object] = nothing
    between: Callable[[Trial], object] = nothing
    begins_in: str | None = None
    disk: bool = False
    passes: float = 1.05


@dataclass(frozen=True)
class Unbroken:
    """What a stage left and made that nobody broke, and how long it took."""

    place: Place
    made: dict[str, Any]
    starts_s: float  # until it comes to its own work
    works_s: float
    seconds: float  # of the whole command


class Reference:
    """The unbroken run: each stage in a copy of the folder of the one before, when it is needed."""

    def __init__(self, home: Path, teacher: ChaosTeacher):
        self._home, self._teacher = home, teacher
        self.stages: dict[str, Unbroken] = {}

    def __getitem__(self, name: str) -> Unbroken:
        if name not in self.stages:
            self.stages[name] = self._run(name)
        return self.stages[name]

    def _run(self, name: str) -> Unbroken:
        stage, place = STAGES[name], Place(self._home / name)
        place.home.mkdir(parents=True)
        if stage.begins_in:
            shutil.copytree(self[stage.begins_in].place.run.root, place.run.root)
        self._teacher.forget()
        place.write_recipe(self._teacher.url)
        started = time.monotonic()
        at_work: list[float] = []
        command = Command(stage.command(place), place.home / "words-0.txt", **ENVIRONMENT)
        try:
            while command.code is None:
                if stage.at_work(place, command.words):
                    at_work = [*at_work[:1], time.monotonic()]
                time.sleep(POLL_S)
            assert command.code == DONE, f"{name}: {command.words[-3000:]}"
            assert at_work, f"{name} was never seen at work"
            ended = time.monotonic()
            command.wait_gone()
        finally:
            command.destroy()
        assert set(self._teacher.paid.values()) <= {1}, "it pays once for each question"
        return Unbroken(
            place,
            stage.made(place),
            starts_s=at_work[0] - started,
            works_s=at_work[-1] - at_work[0],
            seconds=ended - started,
        )


@dataclass
class Outcome:
    """The row of one trial."""

    fault: str
    stage: str
    survived: bool = False
    passes: float | None = None
    equal: bool = False
    distance: float | None = None  # of the weights, where they are not equal
    stopped_s: float | None = None  # from a signal to the end of its command
    gone_s: float = 0.0  # from a command's end to that of all that it had started
    recovered_s: float | None = None  # from the fault to the end of all work
    at: float = 0.0  # of the stage's work, as a share
    why: str = ""  # it did not survive


class Trial:
    """A fault in a folder of its own."""

    def __init__(
        self,
        fault: Fault,
        place: Place,
        teacher: ChaosTeacher,
        reference: Reference,
        chance: random.Random,
    ):
        self.fault, self.place, self.teacher = fault, place, teacher
        self.stage, self.reference, self.chance = STAGES[fault.stage], reference, chance
        self.commands: list[Command] = []
        self.outcome = Outcome(fault.name, fault.stage)

    @property
    def command(self) -> Command:
        """The newest one."""
        return self.commands[-1]

    @property
    def deadline_s(self) -> float:
        """Of one command: a recovery may take as long as two unbroken runs, and a minute."""
        return 60 + 3 * self.unbroken.seconds

    @property
    def unbroken(self) -> Unbroken:
        """The same stage, unbroken."""
        return self.reference[self.fault.stage]

    def start(self) -> Command:
        """Give the stage's command once more."""
        log = self.place.home / f"words-{len(self.commands)}.txt"
        self.commands.append(Command(self.stage.command(self.place), log, **ENVIRONMENT))
        return self.command

    def survive(self) -> None:
        """Break it, mend it, and check everything. Raises AssertionError, or Missed."""
        fault = self.fault
        fault.before(self)
        self.start()
        self._wait_for_the_moment()
        struck = time.monotonic()
        fault.strike(self)
        broken = self.commands[0]
        code = broken.wait(self.deadline_s)
        if code in (INTERRUPTED, TERMINATED):
            self.outcome.stopped_s = round(time.monotonic() - struck, 1)
        assert not fault.codes or code in fault.codes, f"exit code {code}: {broken.words[-2000:]}"
        fault.between(self)
        while code != DONE:
            assert len(self.commands) <= AGAIN, f"exit code {code}: {self.command.words[-2000:]}"
            code = self.start().wait(self.deadline_s)
        self.outcome.recovered_s = round(time.monotonic() - struck, 1)
        for command in self.commands:
            self.outcome.gone_s = round(max(self.outcome.gone_s, command.wait_gone()), 1)
            if KILLED not in fault.codes:
                assert "Traceback" not in command.words, command.words[-3000:]
        self._compare()
        late = [words for command in self.commands for words in command.late]
        if KILLED in fault.codes:  # Ray's own agents look for the dead head for a minute
            late = [words for words in late if not words.startswith(RAYS_AGENTS)]
        assert not late, f"alive {GONE_S:.0f} s after the end: {late}"
        limit_s = self.outcome.stopped_s or 0.0
        assert limit_s <= ORDERLY_S, f"it took {limit_s:.0f} s to end"
        self.outcome.survived = True

    def _wait_for_the_moment(self) -> None:
        """Until a random share of the stage's work is done, by the unbroken run's clock."""
        if self.fault.strike is nothing:
            return
        moment = self.fault.moment or (lambda place: self.stage.at_work(place, self.command.words))
        deadline = time.monotonic() + self.deadline_s
        while not moment(self.place):
            if self.command.code is not None:
                raise Missed(f"the command had ended: {self.command.words[-1500:]}")
            assert time.monotonic() < deadline, f"never came to it: {self.command.words[-1500:]}"
            time.sleep(POLL_S)
        if self.fault.moment is None:
            self.outcome.at = round(self.chance.uniform(0.05, 0.9), 2)
            time.sleep(self.outcome.at * self.unbroken.works_s)
        else:
            time.sleep(self.chance.uniform(0.0, 0.2))

    def _compare(self) -> None:
        made, theirs = self.stage.made(self.place), self.unbroken.made
        self.outcome.equal = made == theirs
        if self.fault.stage == "generate":
            self.outcome.passes = round(self.teacher.paid.total() / QUESTIONS, 3)
            assert self.outcome.passes <= self.fault.passes, f"{self.outcome.passes} passes paid"
        elif self.fault.stage == "train" and not self.outcome.equal:
            weights = "best/model.safetensors"
            self.outcome.distance = distance(
                self.place.training / weights, self.unbroken.place.training / weights
            )
        different = [name for name in theirs if made.get(name) != theirs[name]]
        assert self.outcome.equal, (
            f"other than in the unbroken run: {different[:5]}, {self.outcome.distance}"
        )
        assert self.fault.stage == "generate" or not self.teacher.paid, "it asked the teacher"

    def destroy(self) -> None:
        """End whatever is left."""
        for command in self.commands:
            command.destroy()


def try_fault(
    fault: Fault, home: Path, teacher: ChaosTeacher, reference: Reference, seed: str
) -> Outcome:
    """One trial of a fault; its outcome says why it was not survived. Raises Missed."""
    chance, missed = random.Random(seed), Missed("never tried")
    assert reference[fault.stage]  # before the teacher's counts are of this trial
    for number in range(TRIES):
        place = Place(home / str(number))
        place.home.mkdir(parents=True)
        if fault.disk:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=3g", "chaos", place.home], check=True
            )
        teacher.forget()
        trial = Trial(fault, place, teacher, reference, chance)
        try:
            begins_in = fault.begins_in or trial.stage.begins_in
            if begins_in:
                shutil.copytree(reference[begins_in].place.run.root, place.run.root)
            place.write_recipe(teacher.url)
            trial.survive()
            return trial.outcome
        except AssertionError as error:
            trial.outcome.why = str(error)
            return trial.outcome
        except Missed as error:
            missed = error
        finally:
            trial.destroy()
            if fault.disk:
                subprocess.run(["umount", "--lazy", place.home], check=True)
    raise missed
