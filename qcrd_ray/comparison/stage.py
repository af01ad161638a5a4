"""The comparison stage: run the missing trials in parallel, and make the table of all trials."""

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
from qcrd_ray.comparison.baselines import control_table, measure_baselines
from qcrd_ray.comparison.files import data_key, folder_of, questions_key, write_tables
from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.notes import budget_notes, code_notes, data_notes
from qcrd_ray.comparison.statistics import summarise
from qcrd_ray.comparison.trials import SecondTraining, Trial, TrialRunner, make_trial
from qcrd_ray.comparison.votes import GREEDY, check_pairs, judge_means, vote_results
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA
from qcrd_ray.evaluation.stage import read_test_questions
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.provenance import describe_call
from qcrd_ray.tasks.splits import load_split, store_split
from qcrd_ray.training.judges import check_heads
from qcrd_ray.training.trainer import prepare_job

log = logging.getLogger(__name__)

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
    """Train every method with every seed and compare them. Needs a connected Ray.

    Finished trials are not run again, unless rationales or questions have changed since.

    Args:
        folder: holds the rationales.
        fraction: the share of the rationales that is trained on, chosen by the recipe's seed.

    Returns:
        The content of the table's JSON file; see :mod:`qcrd_ray.comparison.files`.

    Raises:
        UserError: no rationales, or a method cannot be trained on them; nothing has been started
            then.
        MissingResource: the cluster cannot hold one trial.
    """
    call, root = describe_call(recipe.seed), folder_of(folder, fraction)
    tables = {"train": _share(folder.read_rationales("train"), fraction, seed=recipe.seed)}
    if any(method.control for method in methods):
        tables["compare.control"] = control_table(recipe)
    questions, _ = read_test_questions(recipe, folder)
    validation, _ = load_split(recipe, "validation")
    unlabelled = (
        tuple(store_split(recipe, folder, "unlabelled")[0]) if recipe.data.unlabelled else ()
    )
    asked = {
        split: questions_key(each)
        for split, each in {
            "validation": validation,
            "unlabelled": unlabelled,
            **questions,
        }.items()
        if each
    }
    check_pairs(recipe, methods)
    trials = []
    for method in methods:
        if (
            method.recipe.judge.samples
            and "rationale" in OBJECTIVES[method.recipe.objective.name].heads()
        ):
            check_heads(method.recipe, method.recipe.objective.name)
        home = root / f"{'control' if method.control else 'data'}-{data_key(method)}"
        table = tables["compare.control" if method.control else "train"]
        job = prepare_job(
            method.recipe, folder, method.recipe.objective.name, home=home, rationales=table
        )
        second = None
        if method.recipe.self_training.vote != "none":
            second = SecondTraining(run=folder, rationales=table, unlabelled=unlabelled)
        trials += [
            make_trial(
                method, job, root, seed=seed, questions=questions, asked=asked, second=second
            )
            for seed in range(seeds)
        ]
    missing = [trial for trial in trials if not trial.finished]
    if stale := sum(trial.result.exists() for trial in missing):
        log.warning(
            "%d of %d trials were made from other rationales or questions than there are now: they"
            " are run again",
            stale,
            len(trials),
        )
    report(
        0, len(missing), f"{len(trials) - len(missing)} of {len(trials)} trials are there already"
    )
    for done, trial in enumerate(_run(recipe, missing), 1):
        report(done, len(missing), f"{trial.method}, seed {trial.seed}")
    baselines = measure_baselines(recipe, folder, trials[0].job.start, questions, root)
    facts = [json.loads(trial.result.read_text()) for trial in trials]
    jobs = {trial.method: trial.job for trial in trials}
    measured = _results(
        recipe,
        methods,
        trials,
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
    results = {
        "call": call,
        **measured,
        "chosen_by": chosen,
        "notes": notes,
        "baselines": baselines,
    }
    write_tables(results, folder, methods)
    return results


def _share(table: pa.Table, fraction: float, *, seed: int) -> pa.Table:
    """The rows whose question is in the fraction. A smaller fraction is part of a larger one."""
    if not table.num_rows:
        raise UserError("there are no rationales to train on: run `qcrd generate` first")
    ids = table.column("question_id").to_pylist()
    ranked = sorted(range(len(ids)), key=lambda i: keyed_seed(seed, "data fraction", ids[i]))
    kept = sorted(ranked[: max(1, round(fraction * len(ids)))])
    return table.take(kept)


def _run(recipe: Recipe, trials: Sequence[Trial]) -> Iterator[Trial]:
    """Run trials and yield each when it has finished.

    They are run seed after seed, so that an interrupted comparison has whole seeds of all methods.
    """
    if not trials:
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
    )(TrialRunner)
    actors = [actor.remote(threads) for _ in range(min(room, len(trials)))]
    try:
        ordered = sorted(trials, key=lambda trial: trial.seed)
        # its type says that it yields lists
        yield from ActorPool(actors).map_unordered(  # pyright: ignore[reportReturnType]
            lambda runner, trial: runner.run.remote(trial), ordered
        )
    finally:
        for each in actors:
            ray.kill(each)  # pyright: ignore[reportArgumentType]  # its type lacks ActorProxy


def _cores() -> float:
    """The number of real cores.

    A local Ray declares more logical CPUs than a small machine has; that many trials at a time
    would slow each other down.
    """
    total = ray.cluster_resources().get("CPU", 1.0)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return min(total, os.cpu_count() or 1) if len(nodes) == 1 else total


def _results(
    recipe: Recipe,
    methods: Sequence[Method],
    trials: Sequence[Trial],
    facts: Sequence[dict[str, Any]],
    *,
    seeds: int,
    fraction: float,
    rationales: int,
) -> dict[str, Any]:
    """The numbers of each method, from the trials' files; ``facts`` are their trial.json."""
    scores = _scores(trials)
    measured = []
    for split, head in sorted({(split, head) for split, head, _ in scores if head in GREEDY}):
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
        "votes": vote_results(recipe, [method.name for method in methods], scores, trials),
        "cost": {
            method.name: _cost([fact for fact in facts if fact["method"] == method.name])
            for method in methods
        },
    }


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The parts of a method's recipe in which methods differ."""
    settings = recipe.model_dump(mode="json", by_alias=True)
    return {
        part: settings[part]
        for part in ("objective", "negatives", "discriminator", "train", "judge")
    }


def _scores(trials: Sequence[Trial]) -> dict[tuple[str, str, str], np.ndarray]:
    """(split, head, method) -> ``[seeds, questions]``, questions in one order for all."""
    rows: dict[tuple[str, str, str], list[list[bool]]] = {}
    for trial in trials:
        right: dict[tuple[str, str, str], dict[str, bool]] = {}
        for row in pq.read_table(trial.predictions, schema=PREDICTION_SCHEMA).to_pylist():
            right.setdefault((row["split"], row["head"], trial.method), {})[row["question_id"]] = (
                row["right"]
            )
        for key, by_question in right.items():
            rows.setdefault(key, []).append([by_question[id] for id in sorted(by_question)])
    return {key: np.array(each) for key, each in rows.items()}


def _cost(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over a method's seeds of its cost, rationales, discriminator and negatives."""

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
        "judges": judge_means([fact.get("judges", {}) for fact in facts]),
        "student": means([fact["student"] for fact in facts]),
        "negatives": means(
            [
                {k: v for k, v in fact["negatives"].items() if isinstance(v, (int, float))}
                for fact in facts
            ]
        ),
    }
