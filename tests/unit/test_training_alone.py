"""Whole trainings in one process, without Ray: what a recipe asks for reaches the loss and the metrics."""

from __future__ import annotations

from training_tiny import tiny_recipe, write_run

from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import train_alone

ROUNDS = {"train.rounds": 2, "train.round.size": 4, "train.workers": 1, "train.zero_stage": 0, "train.validate.every_rounds": 2}


def trained(root, objective: str, **changes) -> list[dict]:
    """The rows of metrics of a training of ``objective``."""
    job = prepare_job(tiny_recipe(**ROUNDS, **changes), write_run(root), objective)
    job.folder.mkdir()
    train_alone(job)
    return read_metrics(job.folder)


def test_dpo_learns_against_its_start(tmp_path):
    """The reference stays the start: in the second round, on the same questions, the student has moved away from it."""
    rows = trained(tmp_path, "dpo", **{"objective.selection": "sampling"})
    first, last = (row["student"] for row in rows)
    assert all("reference" in row["seconds"] and "discriminator" not in row for row in rows)
    assert last["positive_gain"] > first["positive_gain"] > 0 and last["pair"] < first["pair"] < 0.75
    assert last["positive_gain"] > last["negative_gain"]
    assert last["positive_nll"] < first["positive_nll"]
