"""Measure everything that a run has made, once, at its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray import __version__
from qcrd_ray.data.overlap import overlap_note
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.pool import Done, EvaluationJob, run_pool, share_out
from qcrd_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    Prediction,
    predicted,
    result_rows,
    teacher_predictions,
)
from qcrd_ray.inference.heads import Head
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.models.pretrained import fingerprint
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.manifests import truncation_note
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.run.results import Results, SplitCounts
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import read_split

TEST_SPLITS = ("test", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedModel:
    """One head of one model on one split. ``file`` is named after all that its predictions depend
    on.
    """

    name: str
    model: Path
    head: Head
    split: str
    questions: tuple[Question, ...]
    file: Path


def evaluate(recipe: Recipe, folder: RunFolder, *, report: Report = no_progress) -> Results:
    """Measure on the test splits, and write predictions and results. Only what has changed since
    the last call is asked again.

    Returns the results: ``rows`` (see :func:`result_rows`), ``splits`` (what was read, and left
    out), ``notes`` (on what is missing, was cut, or was not new to the student).

    Raises:
        UserError: nothing has been trained, no question has an answer, or the cluster is too small.
    """
    models = _models(recipe, folder)
    questions, splits = _questions(recipe, folder)
    parts = _parts(recipe, folder, models, questions)
    _answer(recipe, parts, report)
    teacher, notes = _teacher(recipe, folder)
    tables = [
        pa.Table.from_pylist([prediction.row() for prediction in teacher], schema=PREDICTION_SCHEMA)
    ]
    table = pa.concat_tables(
        [*tables, *(pq.read_table(part.file, schema=PREDICTION_SCHEMA) for part in parts)]
    )
    write_table(table, folder.evaluation / "predictions.parquet")
    results: Results = {
        "rows": result_rows(_predictions(table)),
        "splits": splits,
        "notes": [*notes, *_data_notes(recipe, folder)],
    }
    write_text(folder.evaluation / "results.json", json.dumps(results, indent=2) + "\n")
    for stale in set((folder.evaluation / "parts").glob("*.parquet")) - {
        part.file for part in parts
    }:
        stale.unlink()
    return results


def _models(recipe: Recipe, folder: RunFolder) -> list[tuple[str, Path, tuple[Head, ...]]]:
    """(name, folder, heads) of each model to be measured: base, baselines, student; only heads that
    it has learnt.
    """
    trained = [(name, name) for name in recipe.evaluate.baselines if name != recipe.objective.name]
    trained.append(("student", recipe.objective.name))
    models: list[tuple[str, Path, tuple[Head, ...]]] = []
    if recipe.evaluate.base:
        models.append(("student base", folder.root / "train" / "start", ("label", "rationale")))
    for name, objective in trained:
        models.append((name, folder.training(objective) / "best", OBJECTIVES[objective].heads()))
    for _, objective in trained:
        if not (folder.training(objective) / "result.json").is_file():
            raise UserError(
                f"evaluation: {folder.training(objective)} holds no finished training: run `qcrd"
                " train` first"
            )
    return models


def _questions(
    recipe: Recipe, folder: RunFolder
) -> tuple[dict[str, tuple[Question, ...]], dict[str, SplitCounts]]:
    """The questions with an answer of each test split, and how many there were in all."""
    questions, splits = {}, {}
    for split in TEST_SPLITS:
        if getattr(recipe.data, split) is None:
            continue
        read, rejected = read_split(recipe, folder, split)
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


def _parts(
    recipe: Recipe, folder: RunFolder, models, questions: dict[str, tuple[Question, ...]]
) -> list[EvaluatedModel]:
    limits = (recipe.student.max_input_tokens, recipe.student.max_target_tokens)
    parts = []
    for name, model, heads in models:
        weights = fingerprint(model)
        for split, asked in questions.items():
            for head in heads:
                told = repr((__version__, name, weights, head, split, limits, recipe.task, asked))
                file = (
                    folder.evaluation
                    / "parts"
                    / f"{hashlib.sha256(told.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.parquet"
                )
                parts.append(
                    EvaluatedModel(
                        name=name, model=model, head=head, split=split, questions=asked, file=file
                    )
                )
    return parts


def _answer(recipe: Recipe, parts: Sequence[EvaluatedModel], report: Report) -> None:
    """Ask for the parts that are missing, and write each as soon as its last answer is there."""
    missing = {key: part for key, part in enumerate(parts) if not part.file.exists()}
    work = [piece for key, part in missing.items() for piece in _pieces(recipe, key, part)]
    total = sum(len(piece.questions) for piece in work)
    report(0, total, "starting" if work else "nothing has changed")
    done: dict[int, list[Done]] = {key: [] for key in missing}
    count = 0
    for finished in run_pool(recipe, work):
        key = finished.work.key
        done[key].append(finished)
        count += len(finished.answers)
        report(count, total, f"{parts[key].name}, {parts[key].head}")
        if sum(len(piece.answers) for piece in done[key]) == len(parts[key].questions):
            _write_part(parts[key], done.pop(key))


def _pieces(recipe: Recipe, key: int, part: EvaluatedModel) -> list[EvaluationJob]:
    # a batch pads to its longest
    longest_first = sorted(part.questions, key=lambda question: -len(question.question))
    return share_out(key, part.model, part.head, longest_first, size=recipe.evaluate.batch_size)


def _write_part(part: EvaluatedModel, done: Sequence[Done]) -> None:
    """The part's predictions, in the order of its questions."""
    answers = {
        question.id: answer
        for each in done
        for question, answer in zip(each.work.questions, each.answers, strict=True)
    }
    ordered = [answers[question.id] for question in part.questions]
    made = predicted(
        name=part.name, head=part.head, split=part.split, questions=part.questions, answers=ordered
    )
    write_table(
        pa.Table.from_pylist([each.row() for each in made], schema=PREDICTION_SCHEMA), part.file
    )


def _teacher(recipe: Recipe, folder: RunFolder) -> tuple[list[Prediction], list[str]]:
    """The teacher on the test questions where it was asked them, else on the training questions
    that have an answer.
    """
    split = "test" if recipe.evaluate.teacher_on_test else "train"
    table = folder.read_rationales(split)
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
    """What the manifests of rationales and training set say that bears on the numbers."""
    asked = folder.rationales("train") / "manifest.json"
    overlap = json.loads(asked.read_text()).get("overlap", {}) if asked.exists() else {}
    notes = [overlap_note(split, found["ids"], of=found["of"]) for split, found in overlap.items()]
    prepared = folder.root / "train" / "data" / "manifest.json"
    cut = (
        truncation_note(json.loads(prepared.read_text()), recipe.student)
        if prepared.exists()
        else ""
    )
    return [*notes, cut] if cut else notes


def _predictions(table: pa.Table) -> list[Prediction]:
    return [
        Prediction(**{name: value for name, value in row.items() if name != "right"})
        for row in table.to_pylist()
    ]
