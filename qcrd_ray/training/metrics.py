"""What a training says about itself: a line a round in ``metrics.jsonl``, the same in TensorBoard,
the steps done for the driver.

A line's ``tokens`` are those that the student's steps read (``method.student.StudentOutput``): not
what samplers, the discriminator, a reference or validation read.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from qcrd_ray.data.records import SCORED_RATIONALE_SCHEMA, ScoredAs, ScoredRationale
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.training.dataset import RoundQuestion

METRICS, PROGRESS, TENSORBOARD = "metrics.jsonl", "progress.json", "tensorboard"


class MetricsWriter:
    """Rank 0 writes. Rounds from ``first_round`` on that an interrupted training left are dropped:
    they are about to be run again.
    """

    def __init__(self, folder: Path, *, first_round: int, first_step: int):
        self.folder = folder
        kept = [row for row in read_metrics(folder) if row["round"] < first_round]
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        self._tensorboard = SummaryWriter(
            str(folder / TENSORBOARD), purge_step=first_step, flush_secs=10
        )

    def progress(self, step: int, note: str) -> None:
        """How many steps are done, for the driver's progress line."""
        write_text(self.folder / PROGRESS, json.dumps({"step": step, "note": note}))

    def round(self, row: Mapping[str, Any]) -> None:
        """Append a round's row; its numbers go to TensorBoard under the same names, nested ones
        with a slash.
        """
        with (self.folder / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in _numbers(row):
            if name not in ("round", "step"):
                self._tensorboard.add_scalar(name, value, row["step"])
        self._tensorboard.flush()

    def close(self) -> None:
        self._tensorboard.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rounds' rows so far; a last line cut short by a kill is left out, its round has no
    checkpoint.
    """
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


# MERGED training.scores: The scores of a round, kept for a sample of its questions:
# ``scores/<round>.parquet`` (SCORED_RATIONALE_SCHEMA).
#
# They are what the round was trained with, so a report needs neither the discriminator of the time
# nor the seconds to score again.
#

SCORES = "scores"
KEPT_QUESTIONS = 200
_SCORED_AS = {
    source: ScoredAs.TEACHER_MINORITY if source == Source.TEACHER else ScoredAs(source.value)
    for source in Source
}


def keep_scores(folder: Path, round: int, questions: Sequence[RoundQuestion], *, seed: int) -> None:
    """Write all scores of up to :data:`KEPT_QUESTIONS` questions: the same ones in every round that
    knows them, chosen by ``seed``.
    """
    kept = heapq.nsmallest(
        KEPT_QUESTIONS,
        questions,
        key=lambda question: keyed_seed(seed, "kept scores", question.row.question.id),
    )
    rows = [asdict(scored) for question in kept for scored in _scored(question)]
    write_table(
        pa.Table.from_pylist(rows, schema=SCORED_RATIONALE_SCHEMA),
        folder / SCORES / f"{round:05d}.parquet",
    )


def read_scores(folder: Path) -> dict[int, list[ScoredRationale]]:
    """What was kept, by round; {}: nothing."""
    files = sorted((folder / SCORES).glob("*.parquet"))
    rows = {
        int(file.stem): pq.read_table(file, schema=SCORED_RATIONALE_SCHEMA).to_pylist()
        for file in files
    }
    return {
        round: [ScoredRationale(**{**row, "scored_as": ScoredAs(row["scored_as"])}) for row in each]
        for round, each in rows.items()
    }


def _scored(question: RoundQuestion) -> Iterator[ScoredRationale]:
    def scored(rationale: Rationale, scored_as: ScoredAs) -> ScoredRationale:
        assert rationale.score is not None, question.row.question.id
        return ScoredRationale(
            question_id=question.row.question.id,
            question=question.row.question.question,
            scored_as=scored_as,
            text=question.texts[rationale.tokens],
            score=rationale.score,
            right=(
                question.right.get(rationale.tokens) if rationale.source == Source.STUDENT else None
            ),
        )

    for rationale in question.example.positives:
        yield scored(
            rationale,
            ScoredAs.STUDENT if rationale.source == Source.STUDENT else ScoredAs.TEACHER_POSITIVE,
        )
    for rationale in question.example.negatives:
        yield scored(rationale, _SCORED_AS[rationale.source])


# MERGED training.clock: Where the seconds of a round go.


class Timer:
    """Seconds by part of a round."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[part] = round_s(self.seconds.get(part, 0.0) + time.monotonic() - start)


def round_s(seconds: float) -> float:
    return round(seconds, 3)
