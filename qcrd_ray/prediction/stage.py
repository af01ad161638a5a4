"""The prediction stage: a student answers a large file of questions, by Ray Data.

The file is split into parts. Each finished part is written at once, so that a call which was killed
can be continued. After the last part they are joined in the input's order; see
:mod:`qcrd_ray.prediction.output`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import wait_for_resources
from qcrd_ray.data.columns import paths, root
from qcrd_ray.data.sources import JsonLinesSource, RowSource, present_columns
from qcrd_ray.errors import UserError
from qcrd_ray.inference import choose_engine
from qcrd_ray.inference.vote_result import VoteKind
from qcrd_ray.models.names import fingerprint
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.input import FilePart, LineFile, find_source, split_file, spool
from qcrd_ray.prediction.output import SHOWN_REASONS, Output, RowCounts, nothing_answered
from qcrd_ray.prediction.worker import PredictOptions, Predictor, read_question
from qcrd_ray.recipe import RayRecipe
from qcrd_ray.recipe.base import Resources
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.questions import ASKED, check_columns
from qcrd_ray.tasks.spool import Rejected

ROWS_PER_PART = 256  # what each worker may have to do again after a kill
CHECKED_PARTS = 4  # whose rows show whether a file can be answered


@dataclass(frozen=True, kw_only=True)
class PredictJob:
    """A checked call: the student, the file of questions in parts, and the output."""

    student: StudentFolder
    file: LineFile
    parts: tuple[FilePart, ...]
    output: Output
    options: PredictOptions


def read_columns(options: Sequence[str]) -> dict[str, str]:
    """["question=problem"] -> {"question": "problem"}. Raises UserError for an unknown field."""
    columns = {}
    for option in options:
        field, equals, name = option.partition("=")
        if not (equals and name) or field not in ASKED:
            raise UserError(
                f"--column {option}: give FIELD=NAME, where FIELD is one of {', '.join(ASKED)}"
            )
        columns[field] = name
    return columns


def prepare(
    student: str | Path,
    questions: str,
    output: str | Path,
    *,
    options: PredictOptions,
    split: str | None = None,
    config: str | None = None,
    rows_per_part: int = ROWS_PER_PART,
) -> PredictJob:
    """Check a call before anything is started, and begin its output or continue it.

    Reads the questions; needs no Ray.

    Args:
        questions: a file of any kind that training reads, or a Hugging Face data set.
        output: a .jsonl, .csv or .parquet file.
        split, config: of a data set.

    Raises:
        UserError: there is no student folder, the engine cannot run it, the questions cannot be
            read, none of them can be answered, or the output exists or belongs to another call.
    """
    folder = StudentFolder.open(student, trust_task=options.trust_task)
    target = Output(output)
    target.check_free()
    source = find_source(questions, split=split, config=config)
    choose_engine(folder.path, options.engine)
    discriminator = None
    if options.quality:
        if folder.discriminator is None:
            raise UserError(
                f"--quality: {folder.path} holds no discriminator, so nothing can score its"
                " rationales"
            )
        discriminator = fingerprint(folder.discriminator)
    kind = _vote_kind(folder, options)
    judge = folder.judge if kind == "judged" else None
    file = _lines_of(source, folder, target, options)
    try:
        parts, content = split_file(file.path, rows=rows_per_part)
        if isinstance(source, JsonLinesSource):
            read = (line for part in parts[:CHECKED_PARTS] for line in file.read(part))
            _check_columns(source.name, present_columns(read), folder, options)
        _check_answerable(file, parts, folder, options)
        target.begin(
            {
                "input": content,
                "student": [
                    fingerprint(folder.path),
                    json.dumps(folder.facts["task"], sort_keys=True),
                ],
                "discriminator": discriminator,
                "columns": options.columns,
                "rationale": options.rationale,
                "quality": options.quality,
                "samples": options.samples,
                "vote": kind,
                "judge": judge and [fingerprint(path) for path in (judge.path, judge.base) if path],
                "rows per part": rows_per_part,
            }
        )
        if file.spooled:
            file = LineFile(path=file.path.replace(target.questions), spooled=True)
    finally:
        if file.spooled and file.path != target.questions:
            file.path.unlink()
    return PredictJob(student=folder, file=file, parts=tuple(parts), output=target, options=options)


def _lines_of(
    source: RowSource, student: StudentFolder, output: Output, options: PredictOptions
) -> LineFile:
    """The rows of ``source`` by line: its own file, or one beside the output, which workers see."""
    if isinstance(source, JsonLinesSource):
        return LineFile(path=source.file.absolute())
    present = source.columns()
    _check_columns(source.name, present, student, options)
    wanted = {
        root(path, present) for field in ASKED for path in paths(options.columns.get(field, field))
    }
    handle, name = tempfile.mkstemp(prefix=f".{output.path.name}.", dir=output.path.parent)
    os.close(handle)
    file = LineFile(path=Path(name), spooled=True)
    try:
        spool(source, wanted, file.path)
    except BaseException:
        file.path.unlink()
        raise
    return file


def _check_columns(
    name: str, present: Sequence[str], student: StudentFolder, options: PredictOptions
) -> None:
    check_columns(
        name,
        present,
        columns=options.columns,
        kind=student.task_recipe.kind,
        how="--column {field}=...",
    )


def _check_answerable(
    file: LineFile, parts: Sequence[FilePart], student: StudentFolder, options: PredictOptions
) -> None:
    """Refuse a file without a row that can be answered, as far as a glance at it shows."""
    rejected: list[dict[str, Any]] = []
    for part in parts[:CHECKED_PARTS]:
        for line in file.read(part):
            read = read_question(line, student, options)
            if not isinstance(read, Rejected):
                return
            rejected = [*rejected, asdict(read)][:SHOWN_REASONS]
    if len(parts) <= CHECKED_PARTS:
        raise nothing_answered(sum(part.rows for part in parts), rejected)


def _vote_kind(folder: StudentFolder, options: PredictOptions) -> VoteKind | None:
    """The vote that ``options`` ask for; None: they ask for none. Raises UserError."""
    if not options.samples:
        if options.vote:
            raise UserError("--vote: samples vote; say how many by --samples")
        return None
    if options.vote == "judged" and folder.judge is None:
        raise UserError(
            f"--vote judged: {folder.path} holds no judge (its run had no judge.samples), so its"
            " samples can have a plain vote only"
        )
    return options.vote or ("judged" if folder.judge else "plain")


def predict(
    job: PredictJob,
    *,
    workers: int = 1,
    worker: Resources | None = None,
    report: Report = no_progress,
) -> RowCounts:
    """Answer the parts that are not answered yet, and join all parts.

    Ray must be connected; on several nodes the files lie on storage that they share.

    Args:
        workers: the number of actors that answer.
        worker: what each of them takes of the cluster; None: one CPU.

    Raises:
        MissingResource: the cluster cannot hold the workers.
        UserError: not one row could be answered.
    """
    total = sum(part.rows for part in job.parts)
    missing = [part for part in job.parts if not job.output.answers_of(part.number).exists()]
    done = finished = total - sum(part.rows for part in missing)
    rejected, start = 0, time.monotonic()
    for counts in _answer(job, missing, workers, worker or Resources()):
        done += counts["answered"] + counts["rejected"]
        rejected += counts["rejected"]
        speed = (done - finished) / (time.monotonic() - start)
        report(
            min(done, total),
            total,
            f"{speed:,.1f} rows/s" + (f", {rejected:,} rejected" if rejected else ""),
        )
    return job.output.join(job.parts, job.options.fields)


def _answer(
    job: PredictJob, parts: Sequence[FilePart], workers: int, worker: Resources
) -> Iterator[dict[str, Any]]:
    """Answer ``parts`` by actors; yield the counts of each part when it is finished.

    The part of an actor that dies goes to another one.
    """
    if not parts:
        return
    workers = min(workers, len(parts))
    wait_for_resources(
        [worker.bundle] * workers,
        what="predicting (--workers)",
        timeout_s=RayRecipe().schedule_timeout_s,
    )
    with data_context(cpus=workers * worker.cpus):
        rows = ray.data.from_items(
            [asdict(part) for part in parts], override_num_blocks=len(parts)
        ).map(
            Predictor,  # pyright: ignore[reportArgumentType]  # the stub misses callable classes
            fn_constructor_args=(
                job.student.path,
                job.file,
                job.output,
                job.options,
                worker.cores,
            ),
            compute=ActorPoolStrategy(size=workers),
            num_cpus=worker.cpus,
            num_gpus=worker.gpus,
        )
        yield from rows.iter_rows()
