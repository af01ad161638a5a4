"""A cell of the comparison: one method trained with one seed in one process, measured on the test splits, its measurements kept.

    compare/data-<key>/            what the methods of one kind train on: start/, data/ (several methods share it)
    compare/<method>-<key>/<seed>/ metrics.jsonl, predictions.parquet, cell.json

A key hashes the recipe of the method, so a variant that is changed is trained anew and never mistaken for what it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.quality import judge_rationales
from qcrd_ray.engines import load_engine
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, Prediction, predicted
from qcrd_ray.heads import ask
from qcrd_ray.questions import write_table
from qcrd_ray.records import Question
from qcrd_ray.run_folder import OPERATIONAL, flatten, write_text
from qcrd_ray.tasks import build_task
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import PREPARED_BY, summarise


@dataclass(frozen=True, kw_only=True)
class Cell:
    """``job`` trains ``method`` with seed number ``seed`` into its own folder; ``questions`` are those of each test split."""

    method: str
    seed: int
    job: TrainingJob
    questions: dict[str, tuple[Question, ...]]

    @property
    def folder(self) -> Path:
        return self.job.folder

    @property
    def result(self) -> Path:
        """cell.json, which is written last: where it is, the cell is finished."""
        return self.folder / "cell.json"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.parquet"


def make_cell(method: Method, job: TrainingJob, root: Path, *, seed: int, questions: dict[str, tuple[Question, ...]]) -> Cell:
    """The cell of a method's ``job`` for seed number ``seed``."""
    recipe = job.recipe.model_copy(update={"seed": job.recipe.seed + seed + 1_000_000 * method.shift})
    folder = root / f"{method.name}-{method_key(method)}" / f"{seed:03d}"
    return Cell(method=method.name, seed=seed, job=replace(job, recipe=recipe, folder=folder), questions=questions)


def method_key(method: Method) -> str:
    """Eight letters for all that a method's numbers can depend on, besides the seed."""
    return _hash(method, lambda key: not _within(key, OPERATIONAL))


def data_key(method: Method) -> str:
    """Eight letters for what its prepared training set depends on besides the rationales."""
    return _hash(method, lambda key: _within(key, PREPARED_BY))


def _hash(method: Method, keeps: Callable[[str], bool]) -> str:
    told = flatten(method.recipe.model_dump(mode="json", by_alias=True))
    own = ["compare.control"] if method.control else []  # its data stands in a part of the recipe on which no other method depends
    kept = {key: value for key, value in told.items() if keeps(key) or _within(key, own)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _within(key: str, parts: Sequence[str]) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in parts)


class CellTrainer:
    """An actor that runs one cell after another; what its imports cost is paid once."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def run(self, cell: Cell) -> Cell:
        """Train from the start, measure, write. A cell that was interrupted is run again whole."""
        from qcrd_ray.training.worker import train_alone

        shutil.rmtree(cell.folder, ignore_errors=True)
        cell.folder.mkdir(parents=True)
        began = time.monotonic()
        train_alone(cell.job)
        trained = time.monotonic()
        predictions = list(_predict(cell))
        write_table(pa.Table.from_pylist([each.row() for each in predictions], schema=PREDICTION_SCHEMA), cell.predictions)
        facts = _facts(cell, predictions) | {
            "seconds": round(trained - began, 1),
            "measuring_seconds": round(time.monotonic() - trained, 1),
        }
        for leftover in ("snapshots", "negatives", "best", "scores", "tensorboard"):
            shutil.rmtree(cell.folder / leftover, ignore_errors=True)  # a hundred students would fill a disk; a seed makes one again
        write_text(cell.result, json.dumps(facts, indent=2) + "\n")
        return cell


def _predict(cell: Cell):
    """Greedy answers of the best student by each head that it has learnt, on every split."""
    recipe, task = cell.job.recipe, build_task(cell.job.recipe.task)
    engine = load_engine(
        cell.folder / "best",
        batch_size=recipe.evaluate.batch_size,
        max_input_tokens=recipe.student.max_input_tokens,
        trust_remote_code=recipe.student.trust_remote_code,
    )
    for split, questions in cell.questions.items():
        for head in cell.job.heads:
            answers = ask(engine, task, questions, head=head, max_tokens=recipe.student.max_target_tokens)
            yield from predicted(name=cell.method, head=head, split=split, questions=questions, answers=answers)


def _facts(cell: Cell, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """What the table says of a cell besides its answers."""
    rows, summary = read_metrics(cell.folder), summarise(cell.job)
    judged = [row["discriminator"] for row in rows if "discriminator" in row]
    return {
        "method": cell.method,
        "seed": cell.seed,
        "best_round": summary["best_round"],
        "validation": summary["validation"],
        "steps": summary["steps"],
        "questions_seen": summary["questions_seen"],
        "tokens": sum(row["tokens"] for row in rows),
        "rationales": {split: judge_rationales(predictions, split=split) for split in cell.questions},
        "discriminator": {name: value for name, value in judged[-1].items() if name.startswith("auc")} if judged else {},
        "student": rows[-1]["student"],
        "negatives": rows[-1].get("negatives", {}),
    }
