"""A training that goes on with another number of workers: its shards are merged, and learn on.

Real processes and DeepSpeed's real shards; Ray Train's part is a list of folders.
"""

from __future__ import annotations

import dataclasses

import pytest
from safetensors.torch import load_file
from training_tiny import tiny_recipe, write_run
from worker_group import run_workers

from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import prepare_job

pytestmark = pytest.mark.integration
CASES = [(1, "fp32"), (3, "fp32"), (1, "bf16")]
SETTINGS = {
    "discriminator.pretrain_steps": 2,
    "negatives.student": False,
    "train.rounds": 2,
    "train.round.size": 3,
    "train.schedule": "linear",
    "train.warmup_steps": 2,
    "train.validate.every_rounds": 2,
}


def trained_jobs(root, *, cases=CASES):
    """A job a case, in folders of their own."""
    jobs = []
    for stage, precision in cases:
        changes = {
            "train.zero_stage": stage,
            "train.precision": precision,
            "discriminator.precision": precision,
        }
        recipe = tiny_recipe(**{**SETTINGS, **changes})
        job = prepare_job(recipe, write_run(root / f"{stage}-{precision}"), "qcrd")
        job.folder.mkdir()
        jobs.append(job)
    return jobs


def with_workers(jobs, workers: int):
    """The same jobs as a later call would have them, whose recipe names another number."""
    train = [job.recipe.train.model_copy(update={"workers": workers}) for job in jobs]
    return [
        dataclasses.replace(job, recipe=job.recipe.model_copy(update={"train": each}))
        for job, each in zip(jobs, train, strict=True)
    ]


def weights(job):
    return load_file(job.folder / "snapshots" / "00002" / "model.safetensors")


@pytest.mark.parametrize(
    ("first", "second", "cases"),
    [
        (2, 1, CASES[:1]),
        pytest.param(2, 1, CASES[1:], marks=pytest.mark.long),
        pytest.param(1, 3, CASES, marks=pytest.mark.long),
    ],
    ids=["2-1", "2-1, every stage", "1-3"],
)
def test_another_number_of_workers_goes_on_as_the_same_would_have(tmp_path, first, second, cases):
    """Weights, moments, the place in the schedule and D's own state: whatever the ZeRO stage. Bug
    guarded: a lost node ends a training, since its shards fit one number of workers.
    """
    pytest.importorskip("deepspeed")
    whole = trained_jobs(tmp_path / "whole", cases=cases)
    moved = trained_jobs(tmp_path / "moved", cases=cases)
    begun = with_workers(moved, first)
    run_workers(begun, workers=first, store=tmp_path / "a", killed_after="round-00001")
    going_on = with_workers(moved, second)
    run_workers([*going_on, *with_workers(whole, second)], workers=second, store=tmp_path / "b")
    for job, same, (_, precision) in zip(going_on, whole, cases, strict=True):
        rows, expected = read_metrics(job.folder), read_metrics(same.folder)
        assert [row["round"] for row in rows] == [0, 1]
        # AdamW divides by the gradient's own size: rounding near zero is magnified
        tolerance = 1e-4 if precision == "fp32" else 0.02
        ours, theirs = weights(job), weights(same)
        distance = max((ours[n].float() - theirs[n].float()).abs().max().item() for n in ours)
        assert distance < tolerance, (job.recipe.train.zero_stage, precision)
        assert rows[1]["tokens"] == expected[1]["tokens"]
        assert rows[1]["learning_rate"] == pytest.approx(expected[1]["learning_rate"])
        assert rows[1]["student"]["loss"] == pytest.approx(
            expected[1]["student"]["loss"], abs=1e-4 if precision == "fp32" else 0.05
        )
