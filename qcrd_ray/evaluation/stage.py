"""Evaluate the teacher, the base, the baselines and the student of a run on the test splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray import __version__
from qcrd_ray.data.overlap import overlap_note
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    Prediction,
    result_rows,
    student_predictions,
    teacher_predictions,
)
from qcrd_ray.evaluation.votes import vote_predictions
from qcrd_ray.inference.pool import AnswerJob, JobAnswers, Wanted, run_pool, split_jobs
from qcrd_ray.inference.voting import Judges
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.method.ranking import JudgeQuality
from qcrd_ray.models.names import fingerprint
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.runs.folder import RunFolder, read_rationales
from qcrd_ray.runs.judged_votes import is_no_judge
from qcrd_ray.runs.manifests import Overlap, truncation_note
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.results import ResultRow, Results, SplitCounts
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.splits import store_split

TEST_SPLITS = ("test", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One head of one model on one split, or the votes of its samples.

    ``file`` holds its predictions, and is named by a hash of all that they depend on. ``judges`` is
    the folder of the judges that weigh the samples.
    """

    name: str
    model: Path
    wanted: Wanted
    split: str
    questions: tuple[Question, ...]
    file: Path
    judges: Path | None = None

    @property
    def quality(self) -> Path:
        """How well the judges judge the samples."""
        return self.file.with_suffix(".json")


def evaluate(recipe: Recipe, folder: RunFolder, *, report: Report = no_progress) -> Results:
    """Evaluate on the test splits, and write predictions.parquet and results.json.

    Only what has changed since the last call is generated again. The notes of the results say what
    is missing, was cut, or was not new to the student.

    Raises:
        UserError: nothing has been trained, no question has an answer, or the cluster is too small.
    """
    models = _models(recipe, folder)
    questions, splits = read_test_questions(recipe, folder)
    measurements = _measurements(recipe, folder, models, questions)
    _generate(recipe, folder, measurements, report)
    teacher, notes = _teacher(recipe, folder)
    files = [measurement.file for measurement in measurements]
    table = pa.concat_tables(
        [
            _table(teacher),
            *(pq.read_table(file, schema=PREDICTION_SCHEMA) for file in files),
        ]
    )
    write_table(table, folder.evaluation / "predictions.parquet")
    judges = _judges(measurements)
    rows = result_rows(_predictions(table))
    results: Results = {
        "rows": rows,
        "splits": splits,
        "notes": [
            *notes,
            *_data_notes(recipe, folder),
            *judge_notes(judges),
            *silence_notes(rows),
        ],
    }
    if judges:
        results["judges"] = judges
    write_text(folder.evaluation / "results.json", json.dumps(results, indent=2) + "\n")
    kept = {*files, *(each.quality for each in measurements)}
    for stale in set((folder.evaluation / "parts").glob("*.*")) - kept:
        stale.unlink()
    return results


def _models(recipe: Recipe, folder: RunFolder) -> list[tuple[str, Path, tuple[Wanted, ...]]]:
    """(name, folder, heads) of base, baselines and student; the heads are those it has learnt.

    The student's samples are wanted too where the recipe has a judge.
    """
    own = recipe.objective.name
    trained = [
        (name, name, folder.training(name)) for name in recipe.evaluate.baselines if name != own
    ]
    last = folder.student_training(recipe)
    if last != folder.training(own):
        trained.append(("student before self-training", own, folder.training(own)))
    trained.append(("student", own, last))
    models: list[tuple[str, Path, tuple[Wanted, ...]]] = []
    if recipe.evaluate.base:
        models.append(("student base", folder.root / "train" / "start", ("label", "rationale")))
    for name, objective, home in trained:
        heads: tuple[Wanted, ...] = OBJECTIVES[objective].heads()
        if name == "student" and recipe.judge.samples:
            heads = (*heads, "samples")
            if not (home / "judges" / "quality.json").is_file():
                raise UserError(
                    f"evaluation: {home} holds no judge: run `qcrd train` first, or set"
                    " judge.samples to 0"
                )
        models.append((name, home / "best", heads))
    for _, _, home in trained:
        if not (home / "result.json").is_file():
            raise UserError(
                f"evaluation: {home} holds no finished training: run `qcrd train` first"
            )
    return models


def read_test_questions(
    recipe: Recipe, folder: RunFolder
) -> tuple[dict[str, tuple[Question, ...]], dict[str, SplitCounts]]:
    """The questions with an answer of each test split, and how many there were in all.

    The questions are also written into the run folder.

    Raises:
        UserError: no question of a split has an answer.
    """
    questions, splits = {}, {}
    for split in TEST_SPLITS:
        if getattr(recipe.data, split) is None:
            continue
        read, rejected = store_split(recipe, folder, split)
        questions[split] = tuple(question for question in read if question.answer is not None)
        if not questions[split]:
            raise UserError(
                f"data.{split}: none of its {len(read)} questions has an answer, so nothing can be"
                " measured on it"
            )
        splits[split] = {
            "measured": len(questions[split]),
            "without_answer": len(read) - len(questions[split]),
            "rejected": len(rejected),
        }
    return questions, splits


def _measurements(
    recipe: Recipe,
    folder: RunFolder,
    models: Sequence[tuple[str, Path, tuple[Wanted, ...]]],
    questions: dict[str, tuple[Question, ...]],
) -> list[Measurement]:
    limits = (recipe.student.max_input_tokens, recipe.student.max_target_tokens)
    measurements = []
    for name, model, heads in models:
        weights = fingerprint(model)
        for split, asked in questions.items():
            for wanted in heads:
                votes = (recipe.judge, recipe.seed) if wanted == "samples" else None
                content = repr(
                    (__version__, name, weights, wanted, split, limits, recipe.task, asked, votes)
                )
                digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
                measurements.append(
                    Measurement(
                        name=name,
                        model=model,
                        wanted=wanted,
                        split=split,
                        questions=asked,
                        file=folder.evaluation / "parts" / f"{digest[:24]}.parquet",
                        judges=model.parent / "judges" if wanted == "samples" else None,
                    )
                )
    return measurements


def _generate(
    recipe: Recipe, folder: RunFolder, measurements: Sequence[Measurement], report: Report
) -> None:
    """Generate the missing predictions; write a file as soon as its last answer is there."""
    missing = {key: each for key, each in enumerate(measurements) if not each.file.exists()}
    size = recipe.evaluate.batch_size
    start = folder.root / "train" / "start"
    jobs = [job for key, each in missing.items() for job in _jobs(key, each, start, size=size)]
    total = sum(len(job.questions) for job in jobs)
    report(0, total, "starting" if jobs else "nothing has changed")
    finished: dict[int, list[JobAnswers]] = {key: [] for key in missing}
    done = 0
    for answered in run_pool(recipe, jobs):
        key = answered.job.key
        finished[key].append(answered)
        done += len(answered.job.questions)
        measurement = measurements[key]
        report(done, total, f"{measurement.name}, {measurement.wanted}")
        if sum(len(each.job.questions) for each in finished[key]) == len(measurement.questions):
            _write_predictions(recipe, measurement, finished.pop(key))


def _jobs(key: int, measurement: Measurement, start: Path, *, size: int) -> list[AnswerJob]:
    # a batch pads to its longest
    longest_first = sorted(measurement.questions, key=lambda question: -len(question.question))
    return split_jobs(
        key, measurement.model, measurement.wanted, longest_first, size=size, base=start
    )


def _write_predictions(
    recipe: Recipe, measurement: Measurement, answered: Sequence[JobAnswers]
) -> None:
    """Write the predictions, in the order of the measurement's questions."""
    found = {
        question.id: answer
        for each in answered
        for question, answer in zip(each.job.questions, each.answers or each.samples, strict=True)
    }
    answers: list[Any] = [found[question.id] for question in measurement.questions]
    about = {
        "name": measurement.name,
        "split": measurement.split,
        "milliseconds": 1_000 * sum(each.seconds for each in answered) / len(answers),
    }
    if measurement.judges is None:
        predictions = student_predictions(
            head=measurement.wanted, questions=measurement.questions, answers=answers, **about
        )
    else:
        judges = Judges.load(measurement.judges, recipe.judge)
        predictions, quality = vote_predictions(judges, measurement.questions, answers, **about)
        write_text(measurement.quality, json.dumps(quality, indent=2) + "\n")
    write_table(_table(predictions), measurement.file)


def _judges(measurements: Sequence[Measurement]) -> dict[str, dict[str, dict[str, JudgeQuality]]]:
    """The quality of each judge by model, split and name."""
    judges: dict[str, dict[str, dict[str, JudgeQuality]]] = {}
    for each in measurements:
        if each.judges is not None:
            quality = json.loads(each.quality.read_text())
            judges.setdefault(each.name, {})[each.split] = quality
    return judges


def judge_notes(judges: Mapping[str, Mapping[str, Mapping[str, JudgeQuality]]]) -> list[str]:
    """A note for each judge that does not judge: it gives all the same, or ranks like a coin."""
    notes = []
    for model, splits in judges.items():
        for split, by_name in splits.items():
            for name, quality in by_name.items():
                auc, spread = quality["auc_within_question"], quality["spread"]
                if is_no_judge(quality):
                    ranks = "no question has both kinds" if auc is None else f"AUC {auc:.2f}"
                    notes.append(
                        f"the judge `{name}` of {model} does not tell right samples from wrong ones"
                        f" on {split}: {ranks} within a question, scores spread by {spread:.3f}"
                    )
    return notes


def silence_notes(rows: Iterable[ResultRow]) -> list[str]:
    """A note for each head of the student that answers no question."""
    return [
        f"the student answers none of the {row['total']:,} questions of {row['split']} by its"
        f" {row['head']}: it has learnt too little. Give it more rounds (train.rounds), another"
        " train.learning_rate, or begin with a pretrained model (student.model)"
        for row in rows
        if row["name"] == "student" and row["unanswered"] == row["total"]
    ]


def _teacher(recipe: Recipe, folder: RunFolder) -> tuple[list[Prediction], list[str]]:
    """The teacher's predictions, and notes on them.

    They are on the test questions where it was asked them, else on the training questions that have
    an answer, of the first shard where there are several.
    """
    split = "test" if recipe.evaluate.teacher_on_test else "train"
    files = folder.rationale_files(split)
    if split == "train":
        files = files[:1]  # ten thousand questions are sure enough, and a million are too many
    table = read_rationales(files)
    predictions = list(teacher_predictions(table, split=split, task=build_task(recipe.task)))
    if not predictions:
        why = (
            f"none of the {split} questions has an answer"
            if table.num_rows
            else f"it has not been asked the {split} questions"
        )
        return [], [f"the teacher is not measured: {why}"]
    if split == "train":
        return predictions, [
            "the teacher is measured on the training questions; evaluate.teacher_on_test asks it"
            " the test questions too"
        ]
    return predictions, []


def _data_notes(recipe: Recipe, folder: RunFolder) -> list[str]:
    """Notes on overlap and truncation, from the manifests of rationales and training set."""
    notes = []
    rationales = folder.rationales("train") / "manifest.json"
    if rationales.exists():
        overlap: dict[str, Overlap] = json.loads(rationales.read_text()).get("overlap", {})
        notes += [
            overlap_note(split, each["ids"], of=each["of"]) for split, each in overlap.items()
        ]
    training_set = folder.root / "train" / "data" / "manifest.json"
    if training_set.exists():
        notes.append(truncation_note(json.loads(training_set.read_text()), recipe.student))
    return [note for note in notes if note]


def _table(predictions: Iterable[Prediction]) -> pa.Table:
    rows = [prediction.row() for prediction in predictions]
    return pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA)


def _predictions(table: pa.Table) -> list[Prediction]:
    return [
        Prediction(**{name: value for name, value in row.items() if name != "right"})
        for row in table.to_pylist()
    ]
