"""A training that resumes through DeepSpeed's checkpoints, in one process and without Ray.

tests/integration/test_training.py kills real workers, without dropout and at a constant learning
rate; these have what a resume can lose beside the weights.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.train
import torch
from safetensors.torch import load_file
from training_tiny import tiny_recipe, write_run

from qcrd_ray.training.checkpoints import find_checkpoint
from qcrd_ray.training.metrics import read_metrics
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import Worker

ROUNDS = 4
# student negatives need samplers beside training, in processes of their own
SETTINGS = {
    "student.dropout": 0.1,
    "discriminator.dropout": 0.1,
    "negatives.student": False,
    "objective.selection": "sampling",
    "train.rounds": ROUNDS,
    "train.round.size": 3,
    "train.workers": 1,
    "train.micro_batch_size": 2,
    "train.schedule": "linear",
    "train.warmup_steps": 5,
    "train.validate.every_rounds": ROUNDS,
}


class Killed(Exception):
    """The worker died."""


@pytest.fixture
def kept(monkeypatch):
    """Ray Train's part in a checkpoint: it may kill the worker after one."""
    kept = SimpleNamespace(killed_after=None)

    def report(metrics, *, checkpoint, checkpoint_upload_mode):
        if Path(checkpoint.path).name == kept.killed_after:
            kept.killed_after = None
            raise Killed

    monkeypatch.setattr(ray.train, "report", report)
    return kept


def trained(
    root,
    objective,
    process_group,
    kept,
    *,
    killed_after=None,
    damage=None,
    goes_on_from=None,
    **changes,
):
    """The last snapshot's weights and the rows of metrics, of a training that is killed after a
    checkpoint (``killed_after`` is its name) and goes on from it, or, where ``damage`` is done to
    it, from another.
    """
    job = prepare_job(tiny_recipe(**{**SETTINGS, **changes}), write_run(root), objective)
    job.folder.mkdir()
    kept.killed_after = killed_after
    if killed_after is not None:
        with pytest.raises(Killed):
            Worker(job, process_group, find_checkpoint(job.folder, process_group)).run()
    if damage:
        damage(job.folder / "checkpoints" / killed_after)
    checkpoint = find_checkpoint(job.folder, process_group)
    assert (checkpoint and checkpoint.path.name) == (goes_on_from or killed_after)
    Worker(job, process_group, checkpoint).run()
    weights = load_file(job.folder / "snapshots" / f"{ROUNDS:05d}" / "model.safetensors")
    return weights, [{**row, "seconds": 0} for row in read_metrics(job.folder)]


@pytest.mark.parametrize(
    ("objective", "changes", "killed_after"),
    [
        ("qcrd", {"train.zero_stage": 0}, ["round-00001", "round-00003"]),
        (
            "qcrd",
            {
                "train.zero_stage": 1,
                "objective.sft_rounds": 2,
                "train.checkpoint_every_steps": 2,
            },
            ["round-00000-step-0000002", "round-00002-step-0000008"],
        ),
        (
            "dpo",
            {"train.zero_stage": 1, "objective.sft_rounds": 1},
            ["round-00001", "round-00003"],
        ),
    ],
)
def test_a_resumed_training_learns_the_same(
    tmp_path, process_group, kept, objective, changes, killed_after
):
    """Guards what a resume can lose: the optimizer's moments, the place in the warm-up and in the
    linear decay, the draws of dropout, the phase of a round, and the reference of its pairs, which
    is a snapshot that stays; within a round, the steps that D has made and what the round's row of
    metrics has summed up.
    """
    whole, rows = trained(tmp_path / "whole", objective, process_group, kept, **changes)
    for name in killed_after:
        resumed, again = trained(
            tmp_path / name, objective, process_group, kept, killed_after=name, **changes
        )
        assert all(torch.equal(resumed[name], whole[name]) for name in whole), name
        assert again == rows


def cut_state(checkpoint):
    """As a disk leaves a file that was not written out before the power went."""
    state = checkpoint / "state.json"
    state.write_bytes(state.read_bytes()[:10])


def flip_a_byte(checkpoint):
    """The size of the file is as it was."""
    shards = max((checkpoint / "student").glob("*.pt"), key=lambda file: file.stat().st_size)
    content = bytearray(shards.read_bytes())
    content[len(content) // 2] ^= 1
    shards.write_bytes(content)


def lose_a_file(checkpoint):
    next((checkpoint / "discriminator").glob("*.pt")).unlink()


def test_a_broken_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path, process_group, kept, caplog
):
    """Guards the newest checkpoint as the only one that is tried: what a lost disk left of it was
    believed, and no later call could train in that folder.
    """
    whole, rows = trained(tmp_path / "whole", "qcrd", process_group, kept)
    for damage in (cut_state, flip_a_byte, lose_a_file):
        caplog.clear()
        resumed, again = trained(
            tmp_path / damage.__name__,
            "qcrd",
            process_group,
            kept,
            killed_after="round-00002",
            damage=damage,
            goes_on_from="round-00001",
        )
        assert "round-00002 is not as it was written" in caplog.text
        assert all(torch.equal(resumed[name], whole[name]) for name in whole), damage
        assert again == rows


def test_no_name_is_written_twice(tmp_path, process_group, kept):
    """Guards a checkpoint that is written anew where a broken one of its name lies: Ray Train knows
    both by the folder, and would delete the new one with the old.
    """
    trained(
        tmp_path,
        "qcrd",
        process_group,
        kept,
        killed_after="round-00002",
        damage=flip_a_byte,
        goes_on_from="round-00001",
    )
    checkpoints = tmp_path / "train" / "qcrd" / "checkpoints"
    names = {path.name for path in checkpoints.iterdir()}
    assert {"round-00002", "round-00002-again-1", "round-00003"} <= names
    found = find_checkpoint(tmp_path / "train" / "qcrd", process_group)
    assert found.path.name == f"round-{ROUNDS:05d}"
