"""A student's answers to a large file of questions, by Ray Data.

The file is cut into parts, and each finished part is written at once, so a call that was killed is
gone on with where it stopped. When
the last part is done they are joined in the input's order; see :mod:`qcrd_ray.prediction.output`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ray
from ray.data import ActorPoolStrategy

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.data.json_lines import find_file
from qcrd_ray.data.sources import present_columns
from qcrd_ray.errors import UserError
from qcrd_ray.inference import choose_engine
from qcrd_ray.models.pretrained import fingerprint
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.output import FilePart, Output, RowCounts, cut, read_part
from qcrd_ray.prediction.worker import Options, Predictor
from qcrd_ray.recipe import RayRecipe
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks.reading import FIELDS, check_columns

ROWS_PER_PART = 256  # what each worker may have to do again after a kill
LOOKED_AT = 4  # parts whose rows tell whether the file has the columns


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who answers: ``count`` actors, and what each takes of the cluster."""

    count: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A checked call: the student, the file of questions and its parts, and where the answers
    go.
    """

    student: StudentFolder
    file: Path
    parts: tuple[FilePart, ...]
    output: Output
    options: Options


def read_columns(given: Sequence[str]) -> dict[str, str]:
    """["question=problem"] -> {"question": "problem"}. Raises UserError for a field that questions
    do not have.
    """
    columns = {}
    for option in given:
        field, equals, name = option.partition("=")
        if not (equals and name) or field not in FIELDS:
            raise UserError(
                f"--column {option}: say FIELD=NAME, where FIELD is one of {', '.join(FIELDS)}"
            )
        columns[field] = name
    return columns


def prepare(
    student: str | Path,
    file: str,
    output: str | Path,
    *,
    options: Options,
    rows_per_part: int = ROWS_PER_PART,
) -> Job:
    """Check a call before anything is started for it, and begin its output or go on with it. Reads
    the file once; needs no Ray.

    Raises:
        UserError: no student folder, an engine that cannot run it, a file that cannot be read, or
            an output that is there already or was begun with something else.
    """
    folder, questions, target = (
        StudentFolder.open(student),
        find_file(file).absolute(),
        Output(output),
    )
    choose_engine(folder.path, options.engine)
    if options.quality and folder.discriminator is None:
        raise UserError(
            f"--quality: {folder.path} holds no discriminator, so nothing can score its rationales"
        )
    target.check_free()
    parts, content = cut(questions, rows=rows_per_part)
    present = present_columns(
        line for part in parts[:LOOKED_AT] for line in read_part(questions, part)
    )
    check_columns(
        str(questions),
        present,
        columns=options.columns,
        kind=folder.facts["task"]["kind"],
        how="--column {field}=...",
    )
    target.begin(
        {
            "input": content,
            "student": [fingerprint(folder.path), json.dumps(folder.facts["task"], sort_keys=True)],
            "discriminator": fingerprint(folder.discriminator) if options.quality else None,
            "columns": options.columns,
            "rationale": options.rationale,
            "quality": options.quality,
            "rows per part": rows_per_part,
        }
    )
    return Job(student=folder, file=questions, parts=tuple(parts), output=target, options=options)


def predict(job: Job, *, workers: Workers | None = None, report: Report = no_progress) -> RowCounts:
    """Answer what is not answered yet, and join the parts. Ray must be connected; on several nodes
    the files lie on storage they share.

    Raises:
        MissingResource: the cluster cannot hold the workers.
    """
    total = sum(part.rows for part in job.parts)
    missing = [part for part in job.parts if not job.output.answers_of(part.number).exists()]
    done = finished = total - sum(part.rows for part in missing)
    rejected, began = 0, time.monotonic()
    for answered in _answer(job, missing, workers or Workers()):
        done, rejected = (
            done + answered["answered"] + answered["rejected"],
            rejected + answered["rejected"],
        )
        speed = (done - finished) / (time.monotonic() - began)
        report(
            min(done, total),
            total,
            f"{speed:,.1f} rows/s" + (f", {rejected:,} rejected" if rejected else ""),
        )
    return job.output.join(job.parts)


def _answer(job: Job, parts: Sequence[FilePart], workers: Workers) -> Iterator[dict]:
    """Run the actors over ``parts``; what each came to, as it is finished. A part in the hands of
    an actor that dies goes to another.
    """
    if not parts:
        return
    count = min(workers.count, len(parts))
    bundle = {"CPU": workers.cpus, "GPU": workers.gpus}
    cluster.wait_for_resources(
        [bundle] * count, what="predicting (--workers)", timeout_s=RayRecipe().schedule_timeout_s
    )
    with data_context(cpus=count * workers.cpus):
        rows = ray.data.from_items(
            [asdict(part) for part in parts], override_num_blocks=len(parts)
        ).map(
            Predictor,
            fn_constructor_args=(job.student.path, job.file, job.output, job.options, workers.cpus),
            compute=ActorPoolStrategy(size=count),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )
        yield from rows.iter_rows()
