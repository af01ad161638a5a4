"""A training's metrics files, and how they are written and read.

    metrics.jsonl          a RoundMetrics a round (qcrd_ray.runs.results)
    tensorboard/           the same numbers
    progress.json          Progress: how far it is, for the driver's progress line
    scores/<r>.parquet     the scores of a sample of round r's rationales (SCORED_RATIONALE_SCHEMA)

Rank 0 writes them. The ``tokens`` of a round are those that the student's steps read
(``method.student.StudentOutput``), not what samplers, the discriminator, a reference or validation
read. The scores are those that the round was trained with, so a report needs neither the
discriminator of that round nor the time to score again.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.tensorboard import SummaryWriter

from qcrd_ray.data.records import SCORED_RATIONALE_SCHEMA, ScoredAs, ScoredRationale
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.runs.results import RoundMetrics
from qcrd_ray.training.dataset import RoundQuestion

METRICS, PROGRESS, TENSORBOARD, SCORES = "metrics.jsonl", "progress.json", "tensorboard", "scores"
KEPT_QUESTIONS = 200  # whose scores are kept
_PROGRESS_EVERY_S = 0.5


class Progress(TypedDict):
    """How far a training is."""

    step: int  # the student's optimizer steps that are done
    note: str  # what it is doing: "pretraining the discriminator 12/80", "round 3/8"


class MetricsWriter:
    """Writes the metrics and the progress of a training that begins with round ``first_round``.

    Later rounds that an interrupted training left are dropped: they are about to be run again. The
    file is written whole each time: a row that was appended to a line that a lost host tore would
    be lost with it.
    """

    def __init__(self, folder: Path, *, first_round: int, first_step: int):
        self.folder = folder
        self._rows = [row for row in read_metrics(folder) if row["round"] < first_round]
        self._write()
        self._tensorboard = SummaryWriter(
            str(folder / TENSORBOARD), purge_step=first_step, flush_secs=10
        )
        self._phase, self._due = "", 0.0

    def progress(self, step: int, phase: str, count: str = "") -> None:
        """How many steps are done, and what is being done now.

        ``count`` moves within a phase ("12/80"). A new phase is written at once, a new count at
        most twice a second.
        """
        if phase == self._phase and time.monotonic() < self._due:
            return
        self._phase, self._due = phase, time.monotonic() + _PROGRESS_EVERY_S
        progress: Progress = {"step": step, "note": f"{phase} {count}".rstrip()}
        write_text(self.folder / PROGRESS, json.dumps(progress))

    def round(self, row: RoundMetrics) -> None:
        """Add a round's row; its numbers go to TensorBoard too, nested names with a slash."""
        self._rows.append(row)
        self._write()
        for name, value in _numbers(row):
            if name not in ("round", "step"):
                self._tensorboard.add_scalar(name, value, row["step"])
        self._tensorboard.flush()

    def close(self) -> None:
        """Close the TensorBoard writer."""
        self._tensorboard.close()

    def _write(self) -> None:
        lines = [json.dumps(row) + "\n" for row in self._rows]
        write_text(self.folder / METRICS, "".join(lines))


def read_metrics(folder: Path) -> list[RoundMetrics]:
    """The rows of the rounds so far.

    Lines that a lost host tore are left out: a torn row is of a round without a checkpoint, which
    is run again.
    """
    path = folder / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def read_progress(folder: Path) -> Progress:
    """The last progress; step 0 and the note "starting" before the first."""
    path = folder / PROGRESS
    return json.loads(path.read_text()) if path.exists() else {"step": 0, "note": "starting"}


def _numbers(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


def keep_scores(folder: Path, round: int, questions: Sequence[RoundQuestion], *, seed: int) -> None:
    """Write all scores of up to :data:`KEPT_QUESTIONS` questions, chosen by ``seed``.

    They are the same questions in every round that contains them.
    """
    kept = heapq.nsmallest(
        KEPT_QUESTIONS,
        questions,
        key=lambda question: keyed_seed(seed, "kept scores", question.row.question.id),
    )
    rows = [asdict(scored) for question in kept for scored in _scored_rationales(question)]
    write_table(
        pa.Table.from_pylist(rows, schema=SCORED_RATIONALE_SCHEMA),
        folder / SCORES / f"{round:05d}.parquet",
    )


def read_scores(folder: Path) -> dict[int, list[ScoredRationale]]:
    """The kept scores by round; {}: there are none."""
    files = sorted((folder / SCORES).glob("*.parquet"))
    rows = {
        int(file.stem): pq.read_table(file, schema=SCORED_RATIONALE_SCHEMA).to_pylist()
        for file in files
    }
    return {
        round: [ScoredRationale(**{**row, "scored_as": ScoredAs(row["scored_as"])}) for row in each]
        for round, each in rows.items()
    }


_POSITIVE_AS = {Source.TEACHER: ScoredAs.TEACHER_POSITIVE, Source.STUDENT: ScoredAs.STUDENT}
_NEGATIVE_AS = {
    Source.TEACHER: ScoredAs.TEACHER_MINORITY,
    Source.STUDENT: ScoredAs.STUDENT,
    Source.CORRUPTED: ScoredAs.CORRUPTED,
    Source.EVOLVED: ScoredAs.EVOLVED,
}


def _scored_rationales(question: RoundQuestion) -> Iterator[ScoredRationale]:
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
        yield scored(rationale, _POSITIVE_AS[rationale.source])
    for rationale in question.example.negatives:
        yield scored(rationale, _NEGATIVE_AS[rationale.source])


class Timer:
    """Seconds by part of a round: ``with timer("scoring"): ...``."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        seconds = self.seconds.get(part, 0.0) + time.monotonic() - start
        self.seconds[part] = round(seconds, 3)
