"""A teacher for tests of the stage: answers at once, writes down each question that it is asked,
and can be told to die once.

The logic around a teacher (resume, retries, counting) is what is under test with it;
test_served_teacher.py has the real engine.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from ray import cloudpickle

from qcrd_ray.data.records import Completion
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
