"""A teacher for tests of the stage: answers at once, writes down each question that it is asked,
and can be told to die once.

The logic around a teacher (resume, retries, counting) is what is under test with it;
test_served_teacher.py has the real engine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from ray import cloudpickle

from qcrd_ray.data.records import Completion
from qcrd_ray.errors import UserError
from qcrd_ray.teacher import TeacherAnswer

cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # this folder is not on the path of Ray's workers


class AskedTeacher:
    """Asked files lie in ``folder``, one a process. ``delay_s`` slows an answer down; a file `die`
    there ends the next process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        k: int = 3,
        delay_s: float = 0.0,
        text: str = "3 and 5 make 8. So the answer is 8.",
    ):
        self.folder, self.k, self.delay_s, self.text = folder, k, delay_s, text
        self.started = 0

    def identity(self) -> dict:
        return {"source": "test"}

    def prompt(self, task, question) -> str:
        return task.teacher_prompt(question)

    def check(self, questions) -> None: ...

    def start(self, report=None) -> None:
        self.started += 1

    def stop(self) -> None: ...

    async def complete(self, asks) -> list[TeacherAnswer]:
        with (self.folder / f"asked-{os.getpid()}").open("a") as file:
            file.writelines(f"{ask.question.id}\n" for ask in asks)
        if (self.folder / "die").exists():
            (self.folder / "die").unlink()
            os._exit(1)
        await asyncio.sleep(self.delay_s)
        return [
            TeacherAnswer((Completion(text=self.text, tokens=10),) * self.k, prompt_tokens=20)
            for _ in asks
        ]

    def asked(self) -> list[str]:
        return [
            line for file in self.folder.glob("asked-*") for line in file.read_text().splitlines()
        ]


class SlowTeacher(AskedTeacher):
    """Is ready once it has been sent to those who ask; asked before, it answers nothing.

    ``broken``: its start fails instead.
    """

    def __init__(self, folder: Path, *, broken: bool = False):
        super().__init__(folder)
        self.broken, self.driver, self.deployed = broken, os.getpid(), 0

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state
        if os.getpid() != self.driver:
            (self.folder / "sent").touch()

    def deploy(self, report=None) -> None:
        self.deployed += 1

    def start(self, report=None) -> None:
        super().start(report)
        deadline = time.monotonic() + 60
        while not (self.folder / "sent").exists():
            assert time.monotonic() < deadline, "nobody who asks has started beside the teacher"
            time.sleep(0.1)
        time.sleep(1.0)  # in which one who does not wait would ask
        if self.broken:
            raise UserError("it cannot be hosted")
        (self.folder / "ready").touch()

    async def complete(self, asks) -> list[TeacherAnswer]:
        assert (self.folder / "ready").exists()
        return await super().complete(asks)
