"""A training that goes wrong is stopped before its weights are kept."""

from __future__ import annotations

import math

import pytest
import torch
from training_tiny import tiny_recipe, write_run

from qcrd_ray.errors import UserError
from qcrd_ray.training.divergence import FiniteLosses, check_runaway
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import train_in_process

ALONE = {"train.rounds": 2, "train.workers": 1, "train.zero_stage": 0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_step_is_named(bad):
    """Guards a sum over a round that only says that something in it was no number."""
    losses = FiniteLosses(ProcessGroup.single(torch.device("cpu")))
    for step, value in enumerate([1.0, 2.0, bad, 3.0, bad]):
        losses.see(step, torch.tensor([0.5, value]))
    with pytest.raises(UserError, match="not finite at step 3"):
        losses.check()


def test_finite_losses_pass():
    losses = FiniteLosses(ProcessGroup.single(torch.device("cpu")))
    losses.see(7, torch.tensor([1e30, -1e30]))
    losses.check()


@pytest.mark.parametrize("name", ["prediction", "explanation", "positive_nll"])
def test_a_loss_above_twice_that_of_guessing_has_run_away(name, caplog):
    """ln 1,000 is 6.9: 13.8 nats a token are the bound."""
    check_runaway({name: 13.7}, round=3, vocabulary=1_000, action="stop")
    with pytest.raises(UserError, match=r"13.9 nats a token in round 4.*costs 6.9"):
        check_runaway({name: 13.9}, round=3, vocabulary=1_000, action="stop")
    check_runaway({name: 13.9}, round=3, vocabulary=1_000, action="warn")
    assert "has run away" in caplog.text


def test_random_weights_may_begin_above_it():
    check_runaway({"explanation": 40.0}, round=0, vocabulary=1_000, action="stop")


@pytest.mark.parametrize(("rate", "message"), [(1e30, "not finite at step"), (3.0, "has run away")])
def test_a_training_is_stopped_before_its_weights_are_kept(tmp_path, rate, message):
    """Guards a night of training on weights that were lost in its first minutes."""
    changes = {**ALONE, "train.learning_rate": rate, "train.rounds": 6, "negatives.student": False}
    job = prepare_job(tiny_recipe(**changes), write_run(tmp_path), "dss")
    job.folder.mkdir()
    with pytest.raises(UserError, match=message):
        train_in_process(job)
    assert not (job.folder / "snapshots" / "00006").exists()
