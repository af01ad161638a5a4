"""What a training says about itself: a line a round in ``metrics.jsonl``, the same in TensorBoard, the steps done for the driver.

A line's ``tokens`` are those that the student's steps read (``method.student.StudentOutput``): not what samplers, the discriminator, a
reference or validation read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from qcrd_ray.run_folder import write_text

METRICS, PROGRESS, TENSORBOARD = "metrics.jsonl", "progress.json", "tensorboard"


class MetricsWriter:
    """Rank 0 writes. Rounds from ``first_round`` on that an interrupted training left are dropped: they are about to be run again."""

    def __init__(self, folder: Path, *, first_round: int, first_step: int):
        self.folder = folder
        kept = [row for row in read_metrics(folder) if row["round"] < first_round]
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        self._tensorboard = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step, flush_secs=10)

    def progress(self, step: int, note: str) -> None:
        """How many steps are done, for the driver's progress line."""
        write_text(self.folder / PROGRESS, json.dumps({"step": step, "note": note}))

    def round(self, row: Mapping[str, Any]) -> None:
        """Append a round's row; its numbers go to TensorBoard under the same names, nested ones with a slash."""
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in _numbers(row):
            if name not in ("round", "step"):
                self._tensorboard.add_scalar(name, value, row["step"])
        self._tensorboard.flush()

    def close(self) -> None:
        self._tensorboard.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rounds' rows so far; a last line cut short by a kill is left out, its round has no checkpoint."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1]]


def read_progress(folder: Path) -> tuple[int, str]:
    """(steps done, note), or (0, "starting") before the first."""
    path = folder / PROGRESS
    if not path.exists():
        return 0, "starting"
    progress = json.loads(path.read_text())
    return progress["step"], progress["note"]


def _numbers(row: Mapping[str, Any], prefix: str = ""):
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
