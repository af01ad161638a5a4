"""The weights that a training keeps: checkpoints, student snapshots, and the best student.

    checkpoints/round-<r>/  both engines' shards, written once a round; training resumes from them
    snapshots/<r>/          the student at the start of round r, a plain Hugging Face folder
    best/                   the best snapshot by validation, with its discriminator

Checkpoints are written where they stay (shared storage), so reporting one to Ray Train copies
nothing. Ray Train keeps the newest two, hands the newest to a restarted worker group, and finds it
again when a later call trains in the same folder. ``train.checkpoint_every_steps`` adds some within
a round, ``round-<r>-step-<s>``.

DeepSpeed's shards are pickles, so nothing is loaded that was not written here: `state.json` has a
digest of each file, and is written last. Training goes on from the newest checkpoint whose files
have their digests; another one is named and left alone.

Shards belong to a number of workers. Where training goes on with another number, rank 0 merges them
first, into DeepSpeed's universal checkpoint, which any number reads.

Snapshot 0 is the start, snapshot r + 1 the student after round r. The negatives of round r are
sampled from snapshot r - lag, so a snapshot may go once the round that is ``lag`` later has its
negatives: at most lag + 1 of them exist at a time. One more stays where the student is compared
with what it was after ``objective.sft_rounds``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
import shutil
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import atomic_folder, write_text
from qcrd_ray.training.process_group import ProcessGroup

CHECKPOINTS = "checkpoints"  # under train/<objective>: Ray Train's folder of this run
CHECKPOINTS_KEPT = 2
_STATE = "state.json"
_DIGESTS = "digests-{rank}.json"

log = logging.getLogger(__name__)


T = TypeVar("T")


class Best(TypedDict):
    """The best validation so far."""

    round: int
    validation: dict[str, float]


def is_better(accuracy: float, *, than: float) -> bool:
    """Whether a later round's validation is better than the best before it.

    Of equals the earlier round stays, but where nothing has been right yet: there the accuracy says
    nothing, and the later one has learnt longer.
    """
    return accuracy > than or accuracy == than == 0.0


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
    path = _unused(folder / CHECKPOINTS / name)
    for engine_name, engine in engines.items():
        engine.save_checkpoint(str(path), tag=engine_name, save_latest=False)
    if process_group.rank == 0:
        # shards that another number of workers left here before it was interrupted
        for merged in map(_merged, engines):
            shutil.rmtree(path / merged, ignore_errors=True)
    process_group.barrier()
    files = [file for engine in engines for file in sorted((path / engine).rglob("*.pt"))]
    digests = {str(file.relative_to(path)): _digest(file) for file in _share(files, process_group)}
    write_text(path / _DIGESTS.format(rank=process_group.rank), json.dumps(digests))
    process_group.barrier()
    if process_group.rank == 0:
        all_digests = {}
        for rank in range(process_group.size):
            all_digests |= json.loads((path / _DIGESTS.format(rank=rank)).read_text())
        written = {"workers": process_group.size, "digests": all_digests}
        write_text(path / _STATE, json.dumps({**state, **written}))
    process_group.barrier()
    checkpoint = ray.train.Checkpoint(str(path)) if process_group.rank == 0 else None
    ray.train.report(
        {"round": state["round"], **metrics},
        checkpoint=checkpoint,
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
    )


def find_checkpoint(folder: Path, process_group: ProcessGroup) -> Checkpoint | None:
    """The newest whole checkpoint of train/<objective>; None: there is none.

    All workers call it, before they build engines. A checkpoint that is not whole (a disk or a host
    was lost) is named in a warning. If another number of workers wrote the one that is found, its
    shards are merged beside them first.
    """
    process_group.barrier()  # rank 0 may be about to write the file that the others look for
    finished = [path.parent for path in (folder / CHECKPOINTS).glob(f"*/{_STATE}")]
    for found in sorted(finished, key=_place, reverse=True):
        state = _read_state(found / _STATE)
        broken = [] if state else [_STATE]
        if state:
            broken = [
                name
                for name in _share(sorted(state["digests"]), process_group)
                if not (found / name).is_file() or _digest(found / name) != state["digests"][name]
            ]
        if not process_group.sum(torch.tensor(len(broken))).item():
            assert state is not None
            return Checkpoint(found, _known(state), _merge(found, state, process_group))
        if broken:
            log.warning(
                "%s is not as it was written (%s): training goes on from an earlier checkpoint",
                found,
                ", ".join(broken),
            )
    return None


def _place(path: Path) -> tuple[int, ...]:
    """A checkpoint's place in training, by its name: round, step, and how often it was written."""
    numbers = dict(re.findall(r"(round|step|again)-(\d+)", path.name))
    return tuple(int(numbers.get(name, 0)) for name in ("round", "step", "again"))


def _read_state(path: Path) -> dict[str, Any] | None:
    """The content of a state.json; None: it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:  # no JSON, or no text
        return None


def _known(state: dict[str, Any]) -> TrainingState:
    return {"round": state["round"], "so_far": state["so_far"], "best": state["best"]}


def _share(files: Sequence[T], process_group: ProcessGroup) -> Sequence[T]:
    """Those of ``files`` that this worker reads."""
    return files[process_group.rank :: process_group.size]


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _unused(path: Path) -> Path:
    """``path``, or beside it a name that no finished checkpoint has.

    One that is not whole may lie at ``path``. Ray Train knows it by its folder and will delete that
    one day.
    """
    again = (path.with_name(f"{path.name}-again-{n}") for n in itertools.count(1))
    return next(name for name in itertools.chain([path], again) if not (name / _STATE).exists())


def _merge(path: Path, state: dict[str, Any], process_group: ProcessGroup) -> frozenset[str]:
    """Merge the shards of a checkpoint that another number of workers wrote.

    Returns the engines whose shards have been merged: where nothing is shared out, every worker
    reads the one file.
    """
    if state["workers"] == process_group.size:
        return frozenset()
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
    return merged


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

    def is_gone(self, snapshot: int) -> bool:
        """Whether a snapshot has been pruned: a later one is there, and it is not."""
        later = any(snapshot < present for present in self._present())
        return later and not self.exists(snapshot)

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
        old = [
            snapshot
            for snapshot in self._present()
            if snapshot <= newest - self.keep and snapshot != self.always
        ]
        for snapshot in old:
            shutil.rmtree(self.path(snapshot))
        return old

    def _present(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())
