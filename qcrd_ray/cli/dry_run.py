"""What `qcrd run --dry-run` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from qcrd_ray.runs.progress import format_duration

if TYPE_CHECKING:
    from qcrd_ray.plan.dry_run import DryRun, FirstQuestion


def show(dry: DryRun) -> None:
    """Print a dry run: its questions, the first of them, and a table of the stages."""
    shown = Console(highlight=False, markup=False, soft_wrap=True)
    for split, written in dry.splits.items():
        rejected = f", {written.rejected:,} rows rejected" if written.rejected else ""
        shown.print(f"{split}: {written.questions:,} questions{rejected}")
    _show_first(dry.first, shown)
    shown.print("\nwhat a run would do:")
    timed = dry.whole_seconds is not None
    table = Table("stage", "work", "GPUs", *(["time"] if timed else []), box=None)
    for stage in dry.stages:
        seconds = "" if stage.seconds is None else format_duration(stage.seconds)
        gpus = f"{stage.gpus:g}" if stage.gpus else ""
        table.add_row(stage.name, stage.work, gpus, *([seconds] if timed else []))
    shown.print(table)
    if dry.whole_seconds is not None:
        shown.print(f"all of it: {format_duration(dry.whole_seconds)}")
    else:
        shown.print("no times: `qcrd plan` measures them")
    begun = ", and goes on from what is finished there" if dry.begun else ""
    shown.print(f"a run works in {dry.folder}{begun}; nothing was started")


def _show_first(first: FirstQuestion, shown: Console) -> None:
    shown.print(f"\nthe teacher's prompt for question {first.id}:")
    if isinstance(first.prompt, str):
        shown.print(_indented(first.prompt))
    else:
        for message in first.prompt:
            shown.print(_indented(f"{message['role']}: {message['content']}"))
    shown.print("\nthe student reads, and learns to write:")
    for prefix, read in first.inputs.items():
        target = first.targets.get(prefix, "the teacher's, since the question has no answer")
        shown.print(_indented(read))
        shown.print(_indented(f"-> {target}"))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
