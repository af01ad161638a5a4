"""The `qcrd` command: each verb calls a stage of the package and prints what it returns.

Exit codes: 0 done, 1 an error (a message; the traceback of one that was not foreseen goes to a file
that it names), 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from qcrd_ray.cli import plan, recipes, stages, students  # noqa: F401  # each adds its verbs
from qcrd_ray.cli.app import app, escaped
from qcrd_ray.cluster.noise import quiet_libraries
from qcrd_ray.errors import UserError
from qcrd_ray.runs.disk import full_disk
from qcrd_ray.runs.lock import held_folders
from qcrd_ray.runs.progress import console

__all__ = ["VERBS", "app", "main"]

INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number
VERBS = tuple(typer.main.get_group(app).commands)

_received: set[int] = set()  # the signals that asked this process to end


def main() -> None:
    """Run the console script.

    A user's mistake ends it with a message; SIGTERM ends a stage in order, as Ctrl-C does; so does
    a full disk, with what it was. What nobody foresaw leaves its traceback in a file.
    """
    _received.clear()
    # read by Ray's import: a thread that outlives our Ray would start another one
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # it is ignored behind a script's `&`
        signal.signal(signal.SIGINT, _interrupt)
    # as Ray's workers have it: a task of one's own may lie in the folder that `qcrd` is called from
    sys.path.append(os.getcwd())
    try:
        with quiet_libraries():
            app()
    except UserError as error:
        console.print(f"[bold red]error[/] {escaped(error)}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code != INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise
        _end_interrupted()
    except Exception as error:
        if _received:  # some libraries make an error of their own of it, while they are imported
            _end_interrupted()
        if (said := full_disk(error)) is None:
            _unforeseen(error)
        folders = ", ".join(map(str, held_folders()))
        console.print(
            f"[bold red]error[/] a disk is full: {escaped(said)}\nMake room"
            f"{f' for {escaped(folders)}' if folders else ''}; the same command goes on from what"
            " is finished",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)


def _unforeseen(error: Exception) -> NoReturn:
    """End with what an error says and the file of its traceback; in a job, with the traceback.

    A job's log is where its traceback is looked for, and its files may go away with its node.
    """
    from qcrd_ray.cluster.ray_internals import in_submitted_job
    from qcrd_ray.runs.unexpected import said_and_kept

    if in_submitted_job():
        raise error
    console.print(
        f"[bold red]error[/] {escaped(said_and_kept(error))}", highlight=False, soft_wrap=True
    )
    sys.exit(1)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """On Ctrl-C, and on SIGTERM (`ray job stop`, Kubernetes) alike, end a stage so that it cleans
    up.
    """
    _received.add(signum)
    if signum == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut that short
    raise KeyboardInterrupt


def _end_interrupted() -> NoReturn:
    logging.disable()  # threads of Ray Data go on for a moment, and tell of a Ray that has gone
    console.print("interrupted; the same command goes on from what is finished")
    sys.exit(TERMINATED if signal.SIGTERM in _received else INTERRUPTED)
