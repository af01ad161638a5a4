"""A teacher of your own: any program that reads a prompt and writes a completion.

The stage that asks retries, times out, votes and resumes; a teacher only answers.
docs/extending.md explains it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher import TeacherAnswer, TeacherError, TeacherRequest


class CommandTeacher:
    """Runs ``command`` once for each sample that is asked for, with the prompt as its input."""

    def __init__(self, command: Sequence[str]):
        self.command = tuple(command)

    def identity(self) -> dict:
        """What makes its answers what they are: another command asks every question again."""
        return {"source": "command", "command": list(self.command)}

    def prompt(self, task: Task, question: Question) -> str:
        """One plain text; a teacher that chats takes ``task.teacher_messages(question)``."""
        return task.teacher_prompt(question)

    def check(self, questions: Sequence[Question]) -> None:
        """Called on the driver before anything is asked."""
        if not self.command:
            raise UserError("teacher: the command is empty; give a program and its arguments")

    def start(self, report: Report = no_progress) -> None:
        """There is nothing to start."""

    def stop(self) -> None:
        """There is nothing to stop."""

    async def complete(self, asks: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        """Answer the questions in their order; raises TeacherError, and is then asked again."""
        answers = []
        for ask in asks:
            runs = [self._run(str(ask.prompt)) for _ in range(ask.samples)]
            samples = await asyncio.gather(*runs)  # all have ended, whatever comes of them
            if failed := [code for code, _ in samples if code]:
                raise TeacherError(f"{self.command[0]} ended with {failed[0]}")
            completions = tuple(Completion(text=text) for _, text in samples)
            answers.append(TeacherAnswer(completions))
        return answers

    async def _run(self, prompt: str) -> tuple[int | None, str]:
        """(exit status, what the program wrote)."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self.command, stdin=pipe, stdout=pipe)
        written, _ = await process.communicate(prompt.encode())
        return process.returncode, written.decode().strip()
