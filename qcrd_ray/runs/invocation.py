"""The command line of this process, so that a command that it prints can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

JOB = "run.py"  # jobs/run.py takes what `qcrd` takes


def command(*words: str | Path) -> str:
    """A `qcrd` command as the reader of this process's output can paste it.

    ``.venv/bin/qcrd serve x`` where that was typed, ``qcrd serve x`` where the shell finds this
    very program by its name, ``python jobs/run.py serve x`` in a job.
    """
    return shlex.join([*_program(), *(typed(each) for each in words)])


def typed(word: str | Path) -> str:
    """A word of a command: a path below the current folder is written from there."""
    if not isinstance(word, Path):
        return word
    relative = os.path.relpath(word)
    return str(word) if relative.startswith("..") else relative


def _program() -> list[str]:
    script = Path(sys.argv[0])
    if script.name == JOB:
        return [_interpreter(), str(script)]
    if script.suffix == ".py":  # python -m qcrd_ray.cli
        return [_interpreter(), "-m", "qcrd_ray.cli"]
    if script.is_absolute():  # the shell looked it up, or all of the path was typed
        return [script.name if _finds(script.name, script) else typed(script)]
    return [str(script)]


def _interpreter() -> str:
    python = Path(sys.executable)
    return "python" if _finds("python", python) else typed(python)


def _finds(name: str, program: Path) -> bool:
    """Whether the shell finds ``program`` by its name alone."""
    found = shutil.which(name)
    return found is not None and Path(found).absolute() == program.absolute()
