"""The weights that a training keeps: checkpoints, student snapshots, and the best student.

    checkpoints/round-<r>/  both engines' shards, written once a round; training resumes from them
    snapshots/<r>/          the student at the start of round r, a plain Hugging Face folder
    best/                   the best snapshot by validation, with its discriminator

Checkpoints are written where they stay (shared storage), so reporting one to Ray Train copies
nothing. Ray Train keeps the newest two, hands the newest to a restarted worker group, and finds it
again when a later call trains in the same folder. ``train.checkpoint_every_steps`` adds some within
a round, ``round-<r>-step-<s>``.

Shards belong to a number of workers. Where training goes on with another number, rank 0 merges them
first, into DeepSpeed's universal checkpoint, which any number reads.

Snapshot 0 is the start, snapshot r + 1 the student after round r. The negatives of round r are
sampled from snapshot r - lag, so a snapshot may go once the round that is ``lag`` later has its
negatives: at most lag + 1 of them exist at a time. One more stays where the student is compared
with what it was after ``objective.sft_rounds``.
"""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypedDict

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import atomic_folder, write_text
from qcrd_ray.training.process_group import ProcessGroup

CHECKPOINTS = "checkpoints"  # under train/<objective>: Ray Train's folder of this run
CHECKPOINTS_KEPT = 2
_STATE = "state.json"


class Best(TypedDict):
    """The best validation so far."""

    round: int
    validation: dict[str, float]


class RoundSoFar(TypedDict):
    """What is left of a round that a checkpoint interrupts, besides the weights."""

    step: int  # to continue with
    before: dict[str, dict[str, Any]]  # the entries of its row of metrics on negatives and D
    sums: list[float]  # of its steps, over all workers
    tokens: int  # that they read
    seconds: dict[str, float]


class TrainingState(TypedDict):
    """The content of a checkpoint's state.json, besides how it was written."""

    round: int  # to continue with
    so_far: RoundSoFar | None  # of that round; None: at its start
    best: Best | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to continue from.

    ``merged``: the engines whose shards have been merged, by name; they must be built for it
    (:func:`qcrd_ray.training.engines.start_engine`).
    """

    path: Path
    state: TrainingState
    merged: frozenset[str]

    def load(self, engines: Mapping[str, Any]) -> None:
        """Load each engine's state into it. All workers call it."""
        for name, engine in engines.items():
            tag = _merged(name) if name in self.merged else name
            loaded, _ = engine.load_checkpoint(str(self.path), tag=tag)
            assert loaded is not None, f"no {tag} in {self.path}"


def save_checkpoint(
    engines: Mapping[str, Any],
    folder: Path,
    state: TrainingState,
    *,
    process_group: ProcessGroup,
    metrics: dict[str, float],
) -> None:
    """Write and report the checkpoint that training continues from with ``state``.

    All workers call it.
    """
    import ray.train  # here, because a training in one process needs no Ray

    name = f"round-{state['round']:05d}"
    if state["so_far"]:
        name += f"-step-{state['so_far']['step']:07d}"
    path = folder / CHECKPOINTS / name
    for engine_name, engine in engines.items():
        engine.save_checkpoint(str(path), tag=engine_name, save_latest=False)
    if process_group.rank == 0:
        # shards that another number of workers left here before it was interrupted
        for merged in map(_merged, engines):
            shutil.rmtree(path / merged, ignore_errors=True)
        write_text(path / _STATE, json.dumps({**state, "workers": process_group.size}))
    process_group.barrier()
    checkpoint = ray.train.Checkpoint(str(path)) if process_group.rank == 0 else None
    ray.train.report(
        {"round": state["round"], **metrics},
        checkpoint=checkpoint,
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
    )


def find_checkpoint(process_group: ProcessGroup) -> Checkpoint | None:
    """The newest checkpoint; None: there is none. All workers call it, before they build engines.

    If another number of workers wrote it, its shards are merged beside them first.
    """
    import ray.train

    found = ray.train.get_checkpoint()
    if found is None:
        return None
    path = Path(found.path)
    state = json.loads((path / _STATE).read_text())
    merged: frozenset[str] = frozenset()
    if state["workers"] != process_group.size:
        # where nothing is shared out, every worker reads the one file
        merged = frozenset(
            folder.name
            for folder in path.iterdir()
            # neither merged shards nor such as are being merged
            if not folder.name.endswith(_merged("")) and not folder.name.startswith(".")
            if any(folder.glob("*_optim_states.pt"))
        )
        if process_group.rank == 0:
            for name in merged:
                _merge_shards(path / name, path / _merged(name))
        process_group.barrier()
    known: TrainingState = {
        "round": state["round"],
        "so_far": state["so_far"],
        "best": state["best"],
    }
    return Checkpoint(path, known, merged)


def _merged(name: str) -> str:
    """The folder beside an engine's own that holds its merged shards."""
    return f"{name}-merged"


def _merge_shards(shards: Path, merged: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    if merged.exists():
        return
    with atomic_folder(merged) as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        ds_to_universal.main(
            Namespace(
                input_folder=str(shards),
                output_folder=str(folder),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
        )


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
