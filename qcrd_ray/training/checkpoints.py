"""The weights that a training keeps: checkpoints, student snapshots, and the best student.

    checkpoints/round-<r>/  both engines' shards, written once a round; training resumes from them
    snapshots/<r>/          the student at the start of round r, a plain Hugging Face folder
    best/                   the best snapshot by validation, with its discriminator

Checkpoints are written where they stay (shared storage), so reporting one to Ray Train copies
nothing. Ray Train keeps the newest two, hands the newest to a restarted worker group, and finds it
again when a later call trains in the same folder.

Snapshot 0 is the start, snapshot r + 1 the student after round r. The negatives of round r are
sampled from snapshot r - lag, so a snapshot may go once the round that is ``lag`` later has its
negatives: at most lag + 1 of them exist at a time. One more stays where the student is compared
with what it was after ``objective.sft_rounds``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import ray.train
from ray.train import CheckpointConfig, CheckpointUploadMode

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_text
from qcrd_ray.training.process_group import ProcessGroup

CHECKPOINTS = "checkpoints"  # under train/<objective>: Ray Train's folder of this run
CHECKPOINT_CONFIG = CheckpointConfig(num_to_keep=2)
_STATE = "state.json"


class Best(TypedDict):
    """The best validation so far."""

    round: int
    validation: dict[str, float]


class TrainingState(TypedDict):
    """The content of a checkpoint's state.json."""

    round: int  # to continue with
    best: Best | None


def save_checkpoint(
    engines: Mapping[str, Any],
    folder: Path,
    *,
    round: int,
    best: Best | None,
    process_group: ProcessGroup,
    metrics: dict[str, float],
) -> None:
    """Write and report the checkpoint that training continues from with round ``round``.

    All workers call it.
    """
    path = folder / CHECKPOINTS / f"round-{round:05d}"
    for name, engine in engines.items():
        engine.save_checkpoint(str(path), tag=name, save_latest=False)
    if process_group.rank == 0:
        write_text(
            path / _STATE, json.dumps({"round": round, "workers": process_group.size, "best": best})
        )
    process_group.barrier()
    checkpoint = ray.train.Checkpoint(str(path)) if process_group.rank == 0 else None
    ray.train.report(
        {"round": round, **metrics},
        checkpoint=checkpoint,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


def load_checkpoint(engines: Mapping[str, Any], *, workers: int) -> TrainingState:
    """Load the newest checkpoint, if there is one, into the engines. Returns its state.

    Raises:
        UserError: it was written by another number of workers.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return {"round": 0, "best": None}
    path = Path(checkpoint.path)
    state = json.loads((path / _STATE).read_text())
    if state["workers"] != workers:
        raise UserError(
            f"train.workers: {path.parent.parent} was begun with {state['workers']} workers and"
            f" cannot go on with {workers}; set train.workers back to {state['workers']}, or delete"
            " that folder to begin again"
        )
    for name, engine in engines.items():
        loaded, _ = engine.load_checkpoint(str(path), tag=name)
        assert loaded is not None, f"no {name} in {path}"
    return {"round": state["round"], "best": state["best"]}


def snapshots_kept(recipe: Recipe) -> int:
    """How many snapshots are kept.

    Raises:
        UserError: train.keep_snapshots deletes a snapshot before its negatives are sampled.
    """
    kept, needed = recipe.train.keep_snapshots, recipe.lag + 1
    if kept is not None and kept < needed and recipe.negatives.student:
        raise UserError(
            f"train.keep_snapshots: {kept} are fewer than negatives.lag + 1 = {needed}: the"
            f" snapshot of {recipe.lag} rounds ago would be gone when its negatives are due; leave"
            f" it out or give at least {needed}"
        )
    return kept or needed


class SnapshotStore:
    """Snapshot folders under one folder, of which the newest ``keep`` are kept.

    Snapshot ``always`` is kept as well, as long as training lasts. A snapshot appears whole: the
    workers write it to :meth:`staging`, and :meth:`publish` renames that.
    """

    def __init__(self, folder: Path, *, keep: int, always: int | None = None):
        self.folder, self.keep, self.always = folder, keep, always

    def path(self, snapshot: int) -> Path:
        """The folder of a snapshot."""
        return self.folder / f"{snapshot:05d}"

    def exists(self, snapshot: int) -> bool:
        """Whether a snapshot has been published."""
        return self.path(snapshot).is_dir()

    def staging(self, snapshot: int) -> Path:
        """Where snapshot ``snapshot`` is written before it is published."""
        return self.folder / f".{snapshot:05d}.writing"

    def publish(self, snapshot: int) -> Path:
        """Make the staged snapshot visible.

        One that an interrupted round published stays: a sampler may be reading it, and it holds the
        same weights, since training is a pure function of (seed, step).
        """
        if self.exists(snapshot):
            shutil.rmtree(self.staging(snapshot))
            return self.path(snapshot)
        return self.staging(snapshot).rename(self.path(snapshot))

    def prune(self, newest: int) -> list[int]:
        """Delete the snapshots that are no longer needed once snapshot ``newest`` exists.

        Call it when the negatives of round newest - 1 have been read. Returns the deleted ones.
        """
        present = sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())
        old = [
            snapshot
            for snapshot in present
            if snapshot <= newest - self.keep and snapshot != self.always
        ]
        for snapshot in old:
            shutil.rmtree(self.path(snapshot))
        return old
