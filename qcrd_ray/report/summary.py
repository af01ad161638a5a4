"""What a finished run prints: the table, one answered question, where everything lies, and how to
serve the student.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.manifests import truncation_counts
from qcrd_ray.run.progress import format_duration
from qcrd_ray.run.results import render_table

# a file or a pipe has no width of its own, and a table broken to 80 cannot be read
_LOG_COLUMNS = 120
# Results go to standard output, the progress line to standard error.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _LOG_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run leaves to be told: its folder, the measurements, one answered question
    and the seconds of each stage.
    """

    folder: RunFolder
    results: dict
    answer: dict
    seconds: dict[str, float]


def show(walked: RunResult) -> None:
    """Print all of it to standard output, as plain text where that is no terminal."""
    show_table(walked.results)
    _print(data_lines(walked.folder))
    out.print()
    _print(answer_lines(walked.answer))
    out.print()
    mirror = walked.folder.mirror
    out.print(
        f"the run folder, {f'{mirror.name}, worked on in ' if mirror else ''}{walked.folder.root}:",
        markup=False,
    )
    _print(f"  {name:<36} {size_text(size):>10}" for name, size in walked.folder.listing())
    out.print()
    times = ", ".join(
        f"{name} {format_duration(seconds)}" for name, seconds in walked.seconds.items()
    )
    out.print(
        f"time: {times}; {format_duration(sum(walked.seconds.values()))} in all", markup=False
    )
    out.print(f"serve the student:\n  qcrd serve {_short(walked.folder.student)}", markup=False)


def show_table(results: dict) -> None:
    """The measurements alone, with what has to be known to read them."""
    out.print(render_table(results))
    _print(f"  {note}" for note in results["notes"])


def data_lines(folder: RunFolder) -> list[str]:
    """What was trained on, and how much of it was cut."""
    manifest = json.loads((folder.root / "train" / "data" / "manifest.json").read_text())
    cut = truncation_counts(manifest)
    told = ", ".join(f"{count:,} of {total:,} {name}" for name, (count, total) in cut.items())
    kinds = (
        f"{manifest['positives']:,} positives, {manifest['negatives']:,} negatives of the teacher"
    )
    return [
        f"  trained on {manifest['questions']:,} questions, {kinds}; cut for their length: {told}"
    ]


def answer_lines(answer: dict) -> list[str]:
    """The question that the served student was asked, and its answer."""
    lines = [
        f"question   {answer['question']}",
        f"label      {answer['label']} (gold: {answer['gold']})",
    ]
    lines.append(f"rationale  {answer['rationale']}")
    quality = answer["quality"]
    return [
        *lines,
        f"quality    {'no discriminator in this student' if quality is None else f'{quality:.2f}'}",
    ]


def size_text(size: int) -> str:
    """2048 -> "2.0 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _print(lines) -> None:
    for line in lines:
        out.print(line, markup=False)


def _short(path: Path) -> str:
    """A path as it would be typed from here."""
    here = os.path.relpath(path)
    return here if not here.startswith("..") else str(path)
