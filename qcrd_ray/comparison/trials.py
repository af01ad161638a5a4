"""A trial: one method trained with one seed in one process, and measured on the test splits.

    compare/<share>/data-<key>/               start/, data/: what methods of one key train on
    compare/<share>/<method>-<key>/<seed>/    metrics.jsonl, predictions.parquet, trial.json

A method's key hashes its recipe, so a variant that is changed is trained anew. What a trial read is
in its trial.json: with other rationales or questions it is run again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from qcrd_ray.comparison.files import method_key
from qcrd_ray.comparison.measuring import MeasuredStudent, Quality
from qcrd_ray.comparison.methods import Method
from qcrd_ray.data.records import Question
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, Prediction
from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_code
from qcrd_ray.tasks.steps import check_steps
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.self_training import self_training_job
from qcrd_ray.training.trainer import summarise

# a hundred students would fill a disk; a seed makes one again
LEFTOVERS = ("snapshots", "negatives", "best", "judges", "self_training", "scores", "tensorboard")


@dataclass(frozen=True, kw_only=True)
class SecondTraining:
    """What self-training reads: the run, the teacher's ``rationales``, and the questions that the
    student answers for itself.
    """

    run: RunFolder
    rationales: pa.Table
    unlabelled: tuple[Question, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training and its measuring.

    ``job`` trains ``method`` with seed number ``seed``; ``questions`` are those of each test split.
    ``made_from`` holds a key of what each split holds now: the rationales of train, the questions
    of the others. ``second`` is what self-training reads; None: there is none.
    """

    method: str
    seed: int
    job: TrainingJob
    questions: dict[str, tuple[Question, ...]]
    made_from: dict[str, str]
    second: SecondTraining | None = None

    @property
    def folder(self) -> Path:
        """Where the trial's files lie."""
        return self.job.folder

    @property
    def result(self) -> Path:
        """trial.json, which is written last."""
        return self.folder / "trial.json"

    @property
    def finished(self) -> bool:
        """Whether it was run, and on what is there now."""
        return (
            self.result.exists()
            and json.loads(self.result.read_text()).get("made_from") == self.made_from
        )

    @property
    def predictions(self) -> Path:
        """predictions.parquet, with a row for each test answer (PREDICTION_SCHEMA)."""
        return self.folder / "predictions.parquet"


def make_trial(
    method: Method,
    job: TrainingJob,
    root: Path,
    *,
    seed: int,
    questions: dict[str, tuple[Question, ...]],
    asked: dict[str, str],
    second: SecondTraining | None = None,
) -> Trial:
    """The trial of a method's ``job`` for seed number ``seed``.

    Args:
        questions: those of each test split, with answers.
        asked: the key of each split's questions, validation included.
        second: what self-training reads.
    """
    recipe = job.recipe.model_copy(update={"seed": job.recipe.seed + seed + method.shift})
    folder = root / f"{method.name}-{method_key(method)}" / f"{seed:03d}"
    made_from = {"train": job.manifest["source"], **asked}
    return Trial(
        method=method.name,
        seed=seed,
        job=replace(job, recipe=recipe, folder=folder),
        questions=questions,
        made_from=made_from,
        second=second,
    )


class TrialRunner:
    """An actor that runs one trial after another, so that it imports its libraries once."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.code = describe_code()  # what was imported, whatever becomes of the checkout meanwhile

    def run(self, trial: Trial) -> Trial:
        """Train from the start, measure, write. A trial that was interrupted is run again whole."""
        from qcrd_ray.training.worker import train_in_process

        shutil.rmtree(trial.folder, ignore_errors=True)
        trial.folder.mkdir(parents=True)
        began = time.monotonic()
        train_in_process(trial.job)
        trained = time.monotonic()
        predictions, judges = _measure(trial)
        write_table(
            pa.Table.from_pylist([each.row() for each in predictions], schema=PREDICTION_SCHEMA),
            trial.predictions,
        )
        facts = _facts(trial, predictions) | {
            "judges": judges,
            "code": self.code,
            "seconds": round(trained - began, 1),
            "measuring_seconds": round(time.monotonic() - trained, 1),
        }
        for leftover in LEFTOVERS:
            shutil.rmtree(trial.folder / leftover, ignore_errors=True)
        write_text(trial.result, json.dumps(facts, indent=2) + "\n")
        return trial


def _measure(trial: Trial) -> tuple[list[Prediction], Quality]:
    """The student's answers on every split, and the quality of its judges there.

    With self-training it is the student of the second training, which takes place here.
    """
    student = MeasuredStudent(trial.method, trial.job, first=trial.job)
    quality: Quality = {}
    if trial.second is not None:
        student = _self_trained(trial, trial.second, student)
    predictions = list(student.greedy(trial.questions))
    if student.votes:
        judges, trained = student.train_judges(trial.folder / "judges")
        voted, quality = student.voted(trial.questions, judges)
        predictions += voted
        quality = {"trained on": trained, **quality}
    return predictions, quality


def _self_trained(
    trial: Trial, second: SecondTraining, student: MeasuredStudent
) -> MeasuredStudent:
    """The student of a second training, on its own samples of the unlabelled questions."""
    from qcrd_ray.training.worker import train_in_process

    judges, _ = student.train_judges(trial.folder / "judges")
    job = self_training_job(
        trial.job,
        second.run,
        rationales=second.rationales,
        questions=second.unlabelled,
        samples=student.samples(second.unlabelled),
        judges=judges,
    )
    train_in_process(job)
    return MeasuredStudent(trial.method, job, first=trial.job)


def _facts(trial: Trial, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the table shows of a trial besides its answers."""
    rows, summary = read_metrics(trial.folder), summarise(trial.job)
    scored = [row["discriminator"] for row in rows if "discriminator" in row]
    return {
        "method": trial.method,
        "seed": trial.seed,
        "made_from": trial.made_from,
        "best_round": summary["best_round"],
        "validation": summary["validation"],
        "steps": summary["steps"],
        "questions_seen": summary["questions_seen"],
        "tokens": sum(row["tokens"] for row in rows),
        "rationales": {
            split: rationale_quality(predictions, split=split) for split in trial.questions
        },
        "discriminator": (
            {name: value for name, value in scored[-1].items() if name.startswith("auc")}
            if scored
            else {}
        ),
        "student": rows[-1]["student"],
        "negatives": rows[-1].get("negatives", {}),
    }


# --- The quality of rationales, as far as it can be measured without another model ---

_GRAM = 4  # words


def rationale_quality(predictions: Sequence[Prediction], *, split: str) -> dict[str, float]:
    """Means over the rationales of a split; {} where the method writes none.

    ``parsable``: an answer can be read. ``steps_right``: of all "a op b = c" in them, the share
    that holds (left out where there is none). ``tokens``: the mean length. ``repetition``: 1 -
    distinct / all runs of four words within a rationale. ``agreement``: the share of questions on
    which both heads give the same answer (left out where one head is missing).
    """
    written = [p for p in predictions if p.split == split and p.head == "rationale"]
    if not written:
        return {}
    steps = [check_steps(p.text or "") for p in written]
    total = sum(step.total for step in steps)
    facts = {
        "parsable": sum(p.answer is not None for p in written) / len(written),
        "tokens": sum(p.tokens for p in written) / len(written),
        "repetition": sum(_repetition(p.text or "") for p in written) / len(written),
    }
    if total:
        facts["steps_right"] = sum(step.right for step in steps) / total
    labels = {
        p.question_id: p.answer for p in predictions if p.split == split and p.head == "label"
    }
    if labels:
        facts["agreement"] = sum(
            p.answer is not None and labels[p.question_id] == p.answer for p in written
        ) / len(written)
    return facts


def _repetition(text: str) -> float:
    words = text.split()
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
