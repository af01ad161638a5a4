"""Checkpoints: DeepSpeed's shards of both engines, written once a round, known to Ray Train.

They are written where they stay (shared storage), so reporting one copies nothing. Ray Train keeps the newest two, hands the newest to a
restarted worker group, and finds it again when a later call trains in the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
from ray.train import CheckpointConfig, CheckpointUploadMode

from qcrd_ray.errors import UserError
from qcrd_ray.run_folder import write_text
from qcrd_ray.training.world import World

CHECKPOINTS = "checkpoints"  # under train/<objective>: Ray Train's folder of this run
KEPT = CheckpointConfig(num_to_keep=2)
_STATE = "state.json"


def save_checkpoint(
    engines: Mapping[str, Any], folder: Path, *, round: int, best: dict[str, Any] | None, world: World, metrics: dict[str, float]
) -> None:
    """Write and report the checkpoint that training goes on from with round ``round``. All workers call it."""
    path = folder / CHECKPOINTS / f"round-{round:05d}"
    for name, engine in engines.items():
        engine.save_checkpoint(str(path), tag=name, save_latest=False)
    if world.rank == 0:
        write_text(path / _STATE, json.dumps({"round": round, "workers": world.size, "best": best}))
    world.barrier()
    checkpoint = ray.train.Checkpoint(str(path)) if world.rank == 0 else None
    ray.train.report({"round": round, **metrics}, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)


def load_checkpoint(engines: Mapping[str, Any], *, workers: int) -> dict[str, Any]:
    """Load the newest checkpoint into the engines. Returns its state: the ``round`` to go on with, and the ``best`` so far.

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
            f"train.workers: {path.parent.parent} was begun with {state['workers']} workers and cannot go on with {workers}; "
            f"set train.workers back to {state['workers']}, or delete that folder to begin again"
        )
    for name, engine in engines.items():
        loaded, _ = engine.load_checkpoint(str(path), tag=name)
        assert loaded is not None, f"no {name} in {path}"
    return state
