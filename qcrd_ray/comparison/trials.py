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
from qcrd_ray.comparison.methods import Method
from qcrd_ray.data.records import Question
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, Prediction, student_predictions
from qcrd_ray.evaluation.votes import vote_predictions
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.heads import answer_questions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.inference.voting import Judges, ballot_of, load_reader, sample
from qcrd_ray.method.ranking import JudgeQuality
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.run.provenance import describe_code
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.steps import check_steps
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.judges import fit_judges, judge_questions
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import summarise


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training and its measuring.

    ``job`` trains ``method`` with seed number ``seed``; ``questions`` are those of each test split.
    ``made_from`` holds a key of what each split holds now: the rationales of train, the questions
    of the others.
    """

    method: str
    seed: int
    job: TrainingJob
    questions: dict[str, tuple[Question, ...]]
    made_from: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where the trial's files lie."""
        return self.job.folder

    @property
    def votes(self) -> bool:
        """Whether votes of the student's samples are measured, by the recipe's judges."""
        return bool(self.job.recipe.judge.samples) and "rationale" in self.job.heads

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
) -> Trial:
    """The trial of a method's ``job`` for seed number ``seed``.

    Args:
        questions: those of each test split, with answers.
        asked: the key of each split's questions, validation included.
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
        predictions, judges = _predict(trial)
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
        for leftover in ("snapshots", "negatives", "best", "judges", "scores", "tensorboard"):
            # a hundred students would fill a disk; a seed makes one again
            shutil.rmtree(trial.folder / leftover, ignore_errors=True)
        write_text(trial.result, json.dumps(facts, indent=2) + "\n")
        return trial


def _predict(trial: Trial) -> tuple[list[Prediction], dict[str, dict[str, JudgeQuality]]]:
    """The best student's answers on every split, and the quality of its judges there.

    The answers are greedy ones by each head that it has learnt and, with judges, those of votes.
    """
    recipe, task = trial.job.recipe, build_task(trial.job.recipe.task)
    engine = load_engine(
        trial.folder / "best",
        batch_size=recipe.evaluate.batch_size,
        max_input_tokens=recipe.student.max_input_tokens,
        trust_remote_code=recipe.student.trust_remote_code,
    )
    assert isinstance(engine, TransformersEngine)
    predictions: list[Prediction] = []
    for split, questions in trial.questions.items():
        for head in trial.job.heads:
            began = time.monotonic()
            answers = answer_questions(
                engine, task, questions, head=head, max_tokens=recipe.student.max_target_tokens
            )
            predictions += student_predictions(
                name=trial.method,
                head=head,
                split=split,
                questions=questions,
                answers=answers,
                milliseconds=_milliseconds(began, questions),
            )
    quality: dict[str, dict[str, JudgeQuality]] = {}
    if trial.votes:
        reader = load_reader(recipe, task, engine, base=trial.job.start)
        ballot = ballot_of(recipe)
        asked = judge_questions(recipe, trial.job.home, trial.job.validation)
        samples = sample(engine, reader, asked, ballot=ballot)
        quality["trained on"] = fit_judges(recipe, asked, samples, trial.folder / "judges")[
            "judges"
        ]
        judges = Judges.load(trial.folder / "judges", recipe.judge)
        for split, questions in trial.questions.items():
            began = time.monotonic()
            samples = sample(engine, reader, questions, ballot=ballot)
            voted, quality[split] = vote_predictions(
                judges,
                questions,
                samples,
                name=trial.method,
                split=split,
                milliseconds=_milliseconds(began, questions),
            )
            predictions += voted
    return predictions, quality


def _milliseconds(began: float, questions: Sequence[Question]) -> float:
    return 1_000 * (time.monotonic() - began) / len(questions)


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
