"""Run the cells that are missing, as many at a time as the cluster has room for, and make the table
of all of them.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.util import ActorPool

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.comparison.baselines import control_table, measure_beside
from qcrd_ray.comparison.files import folder_of, write_tables
from qcrd_ray.comparison.fingerprints import data_key, questions_key
from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.notes import budget_notes, code_notes, data_notes
from qcrd_ray.comparison.statistics import summarise
from qcrd_ray.comparison.trials import CellTrainer, Trial, make_cell
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.tasks.questions import load_split, read_split
from qcrd_ray.training.trainer import prepare_job

log = logging.getLogger(__name__)

SPLITS = ("test", "held_out")
RETRIES = 1


def compare(
    recipe: Recipe,
    folder: RunFolder,
    methods: Sequence[Method],
    *,
    seeds: int,
    fraction: float = 1.0,
    report: Report = no_progress,
) -> dict[str, Any]:
    """Train every method with every seed and compare them; needs a connected Ray and the rationales
    in the run folder.

    Cells that are finished are not run again, unless rationales or questions have changed since.
    ``fraction`` of the rationales is trained on, chosen by the recipe's seed. Returns what the
    table's JSON holds; its Markdown shows it (see :mod:`qcrd_ray.comparison.files`).

    Raises:
        UserError: no rationales, or a method cannot be trained on them; nothing has been started
            then.
        MissingResource: the cluster cannot hold one cell.
    """
    call, root = describe_call(recipe.seed), folder_of(folder, fraction)
    tables = {"train": _share(folder.read_rationales("train"), fraction, seed=recipe.seed)}
    if any(method.control for method in methods):
        tables["compare.control"] = control_table(recipe)
    questions = _questions(recipe, folder)
    validation, _ = load_split(recipe, "validation")
    asked = {
        split: questions_key(each)
        for split, each in {"validation": validation, **questions}.items()
    }
    cells = []
    for method in methods:
        home = root / f"{'control' if method.control else 'data'}-{data_key(method)}"
        table = tables["compare.control" if method.control else "train"]
        job = prepare_job(
            method.recipe, folder, method.recipe.objective.name, home=home, table=table
        )
        cells += [
            make_cell(method, job, root, seed=seed, questions=questions, asked=asked)
            for seed in range(seeds)
        ]
    missing = [cell for cell in cells if not cell.finished]
    if stale := sum(cell.result.exists() for cell in missing):
        log.warning(
            "%d of %d cells were made from other rationales or questions than there are now: they"
            " are run again",
            stale,
            len(cells),
        )
    report(0, len(missing), f"{len(cells) - len(missing)} of {len(cells)} cells are there already")
    for done, cell in enumerate(_run(recipe, missing), 1):
        report(done, len(missing), f"{cell.method}, seed {cell.seed}")
    beside = measure_beside(recipe, folder, cells[0].job.start, questions, root)
    facts = [json.loads(cell.result.read_text()) for cell in cells]
    jobs = {cell.method: cell.job for cell in cells}
    measured = _results(
        recipe,
        methods,
        cells,
        facts,
        seeds=seeds,
        fraction=fraction,
        rationales=tables["train"].num_rows,
    )
    notes = [
        *data_notes(tables, jobs, questions),
        *budget_notes(measured["cost"], jobs),
        *code_notes([fact["code"] for fact in facts], call),
    ]
    chosen = {name: job.choose_by for name, job in jobs.items()}
    results = {"call": call, **measured, "chosen_by": chosen, "notes": notes, "beside": beside}
    write_tables(results, folder, methods)
    return results


def _share(table: pa.Table, fraction: float, *, seed: int) -> pa.Table:
    """The rows whose question falls into the fraction: a smaller one is part of a larger one."""
    if not table.num_rows:
        raise UserError("there are no rationales to train on: run `qcrd generate` first")
    ids = table.column("question_id").to_pylist()
    ranked = sorted(range(len(ids)), key=lambda i: keyed_seed(seed, "data fraction", ids[i]))
    kept = sorted(ranked[: max(1, round(fraction * len(ids)))])
    return table.take(kept)


def _questions(recipe: Recipe, folder: RunFolder) -> dict[str, tuple[Question, ...]]:
    questions = {}
    for split in SPLITS:
        if getattr(recipe.data, split) is not None:
            read, _ = read_split(recipe, folder, split)
            questions[split] = tuple(question for question in read if question.answer is not None)
            if not questions[split]:
                raise UserError(
                    f"data.{split}: none of its {len(read)} questions has an answer, so nothing can"
                    " be measured on it"
                )
    return questions


def _run(recipe: Recipe, cells: Sequence[Trial]) -> Iterator[Trial]:
    """The cells as they finish, seed after seed, so that an interrupted comparison has whole seeds
    of all methods.
    """
    if not cells:
        return
    worker = recipe.compare.worker
    cluster.wait_for_resources(
        [worker.bundle],
        what="the comparison (compare.worker)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    room = recipe.compare.workers or max(1, int(_cores() // worker.cpus))
    threads = worker.cores
    actor = ray.remote(
        **worker.options,
        max_restarts=RETRIES,
        max_task_retries=RETRIES,
        runtime_env={
            "env_vars": {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        },
    )(CellTrainer)
    actors = [actor.remote(threads) for _ in range(min(room, len(cells)))]
    try:
        ordered = sorted(cells, key=lambda cell: cell.seed)
        yield from ActorPool(actors).map_unordered(
            lambda trainer, cell: trainer.run.remote(cell), ordered
        )
    finally:
        for each in actors:
            ray.kill(each)


def _cores() -> float:
    """Real cores: a local Ray on a small machine declares more logical CPUs than there are, which
    would only slow every cell down.
    """
    total = ray.cluster_resources().get("CPU", 1.0)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return min(total, os.cpu_count() or 1) if len(nodes) == 1 else total


def _results(
    recipe: Recipe,
    methods: Sequence[Method],
    cells: Sequence[Trial],
    facts: Sequence[dict[str, Any]],
    *,
    seeds: int,
    fraction: float,
    rationales: int,
) -> dict[str, Any]:
    """What the table shows of the methods, from the cells' files; ``facts``: their cell.json."""
    scores = _scores(cells)
    measured = []
    for split, head in sorted({(split, head) for split, head, _ in scores}):
        present = {
            method.name: scores[split, head, method.name]
            for method in methods
            if (split, head, method.name) in scores
        }
        means, pairs = summarise(present, resamples=recipe.compare.resamples, seed=recipe.seed)
        measured.append(
            {
                "split": split,
                "head": head,
                "means": {name: mean._asdict() for name, mean in means.items()},
                "pairs": [pair._asdict() for pair in pairs],
            }
        )
    return {
        "seeds": seeds,
        "fraction": fraction,
        "rationales": rationales,
        "methods": {method.name: _settings(method.recipe) for method in methods},
        "measured": measured,
        "cost": {
            method.name: _cost([fact for fact in facts if fact["method"] == method.name])
            for method in methods
        },
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The parts of a method's recipe in which methods differ."""
    told = recipe.model_dump(mode="json", by_alias=True)
    return {part: told[part] for part in ("objective", "negatives", "discriminator", "train")}


def _scores(cells: Sequence[Trial]) -> dict[tuple[str, str, str], np.ndarray]:
    """(split, head, method) -> ``[seeds, questions]``, questions in one order for all."""
    rows: dict[tuple[str, str, str], list[list[bool]]] = {}
    for cell in cells:
        found: dict[tuple[str, str, str], dict[str, bool]] = {}
        for row in pq.read_table(cell.predictions, schema=PREDICTION_SCHEMA).to_pylist():
            found.setdefault((row["split"], row["head"], cell.method), {})[row["question_id"]] = (
                row["right"]
            )
        for key, right in found.items():
            rows.setdefault(key, []).append([right[question] for question in sorted(right)])
    return {key: np.array(each) for key, each in rows.items()}


def _cost(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over a method's seeds of what it cost and of what its rationales and its discriminator
    are like.
    """

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def means(dictionaries: list[dict[str, float]]) -> dict[str, float]:
        names = dict.fromkeys(name for each in dictionaries for name in each)
        return {
            name: mean([each[name] for each in dictionaries if each.get(name) is not None])
            for name in names
        }

    return {
        **{
            name: mean([fact[name] for fact in facts])
            for name in ("steps", "questions_seen", "tokens", "seconds", "best_round")
        },
        "validation": means([fact["validation"] for fact in facts]),
        "rationales": {
            split: means([fact["rationales"][split] for fact in facts])
            for split in facts[0]["rationales"]
        },
        "discriminator": means([fact["discriminator"] for fact in facts]),
        "student": means([fact["student"] for fact in facts]),
        "negatives": means(
            [
                {k: v for k, v in fact["negatives"].items() if isinstance(v, (int, float))}
                for fact in facts
            ]
        ),
    }
