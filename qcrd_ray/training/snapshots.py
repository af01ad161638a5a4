"""The ring of snapshots: the student at the start of each round, as plain Hugging Face folders that samplers read.

Snapshot 0 is the start, snapshot r + 1 the student after round r. The negatives of round r come from snapshot r - lag, so a snapshot may
go once the round that is ``lag`` later has its negatives: at most lag + 1 of them live at a time.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe


def snapshots_kept(recipe: Recipe) -> int:
    """How many snapshots the ring holds.

    Raises:
        UserError: train.keep_snapshots forgets a snapshot before its negatives are made.
    """
    kept, needed = recipe.train.keep_snapshots, recipe.lag + 1
    if kept is not None and kept < needed and recipe.negatives.student:
        raise UserError(
            f"train.keep_snapshots: {kept} are fewer than negatives.lag + 1 = {needed}: the snapshot of {recipe.lag} rounds ago would be "
            f"gone when its negatives are due; leave it out or give at least {needed}"
        )
    return kept or needed


class Ring:
    """Snapshot folders under one folder. A snapshot appears whole: it is written aside and renamed."""

    def __init__(self, folder: Path, *, keep: int):
        self.folder, self.keep = folder, keep

    def path(self, snapshot: int) -> Path:
        return self.folder / f"{snapshot:05d}"

    def exists(self, snapshot: int) -> bool:
        return self.path(snapshot).is_dir()

    def writing(self, snapshot: int) -> Path:
        """Where snapshot ``snapshot`` is written; :meth:`publish` makes it visible."""
        return self.folder / f".{snapshot:05d}.writing"

    def publish(self, snapshot: int) -> Path:
        """Show the snapshot that was written aside. One that an interrupted round published stays: a sampler may be reading it, and it
        holds the same weights, since training is a pure function of (seed, step)."""
        if self.exists(snapshot):
            shutil.rmtree(self.writing(snapshot))
            return self.path(snapshot)
        return self.writing(snapshot).rename(self.path(snapshot))

    def forget(self, newest: int) -> list[int]:
        """Delete the snapshots too old to be asked again, and say which; for when the negatives of round newest - 1 are read."""
        present = sorted(int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit())
        gone = [snapshot for snapshot in present if snapshot <= newest - self.keep]
        for snapshot in gone:
            shutil.rmtree(self.path(snapshot))
        return gone
