"""The rationales stage: ask the teacher each question that is not finished, and sum up.

    questions ─▶ requests, in shards ─▶ pending blocks ─BlockAnswerer actors─▶ rows/

A shard is some ten thousand questions. Shards are prepared and settled one by one in Ray tasks, and
one Ray Data job asks the pending blocks of all splits. What the driver holds grows with the number
of blocks and shards, not of questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qcrd_ray.cluster.resources import Bundle, check_feasible, colocate
from qcrd_ray.cluster.tasks import map_tasks
from qcrd_ray.data.overlap import same_in_files
from qcrd_ray.rationales.job import Pending, ask_blocks, asking_bundles, outcomes_text
from qcrd_ray.rationales.manifest import write_manifest
from qcrd_ray.rationales.requests import parts_of, shard_count, write_requests
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.rationales.verdict import (
    check_failed_share,
    check_not_stopped,
    check_unchanged,
    check_usable,
)
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.manifests import AskedCounts, Overlap, RationaleManifest
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.tasks.splits import write_split
from qcrd_ray.teacher import Deployable, Teacher, teacher_for
from qcrd_ray.teacher import bundles as teacher_bundles

FILES_CPUS = 1.0  # what a task on files keeps busy; with less, a small machine is full of workers
MAX_BLOCKS = 4_096  # of one job: Ray Data and the file system handle each by itself
DEMANDS = "the teacher and those who ask it (teacher.*, generation.actors)"


def generate(
    recipe: Recipe,
    folder: RunFolder,
    split: str = "train",
    *,
    report: Report = no_progress,
    teacher: Teacher | None = None,
) -> RationaleManifest:
    """:func:`generate_splits` for one split."""
    return generate_splits(recipe, folder, [split], report=report, teacher=teacher)[0]


def generate_splits(
    recipe: Recipe,
    folder: RunFolder,
    splits: Sequence[str],
    *,
    report: Report = no_progress,
    teacher: Teacher | None = None,
) -> list[RationaleManifest]:
    """Generate and vote on the rationales of ``splits``, each in ``folder.rationales(split)``.

    Called again, whatever ended the last call, it asks for the missing and the failed questions
    only; with nothing to ask the teacher is not even started. Once a training on them has begun,
    nothing is asked any more. Ray must be connected.

    Args:
        teacher: one to share between calls; None starts and stops the recipe's own.

    Raises:
        UserError: the questions cannot be read; the teacher cannot be started, stopped before it
            had been asked everything, failed on too many questions, or gave no usable answer to
            any.
        MissingResource: the cluster cannot hold the teacher and those who ask it side by side.
    """
    if teacher is None:
        with teacher_for(recipe) as own:
            return generate_splits(recipe, folder, splits, report=report, teacher=own)
    if any(_nothing_asked(folder, split) for split in splits):  # so all of it will be
        _deploy(recipe, teacher, report)  # it starts while the questions are read
    report(0, 0, "reading the questions")
    works = [_Split(recipe, folder, split, teacher) for split in splits]
    asked: dict[str, AskedCounts] = {}
    if pending := [work.pending() for work in works if work.counts.pending]:
        _deploy(recipe, teacher, report)
        asked = ask_blocks(recipe, teacher, pending, report=report)
    manifests = [work.finish(asked.get(work.split)) for work in works]
    questions = sum(work.read.questions for work in works)
    outcomes = sum((Counter(manifest.outcomes) for manifest in manifests), Counter())
    report(questions, questions, outcomes_text(outcomes))
    for work, manifest in zip(works, manifests, strict=True):
        work.check(manifest)
    return manifests


class _Split:
    """The work on one split: its questions are read here, and those to be asked are written."""

    def __init__(self, recipe: Recipe, folder: RunFolder, split: str, teacher: Teacher):
        self.recipe, self.folder, self.split = recipe, folder, split
        self.store = store = RationaleStore(folder.rationales(split))
        self.begun = _begun(folder, split)
        self.read = write_split(recipe, folder, split)
        questions = folder.questions(split)
        teacher.check(iter_questions(questions))
        self.shards = store.shards or shard_count(self.read.questions)
        self.block_rows = max(recipe.generation.rows_per_block, self.read.questions // MAX_BLOCKS)
        store.begin(self.shards)
        parts = partial(
            write_requests,
            questions=questions,
            folder=store.requests,
            shards=self.shards,
            recipe=recipe,
            teacher=teacher,
            identity=teacher.identity(),
        )
        for _ in map_tasks(parts, parts_of(questions), **_file_options(recipe.generation)):
            pass
        self.settled = self._settle(ask_failed=self.begun is None)
        if self.begun is not None:
            check_unchanged(self.counts, self.begun)

    @property
    def counts(self) -> ShardCounts:
        """Of all shards together."""
        counts = ShardCounts()
        for shard in sorted(self.settled):
            counts += self.settled[shard]
        return counts

    def pending(self) -> Pending:
        """What is to be asked."""
        blocks = [
            {"shard": shard, "block": block}
            for shard in sorted(self.settled)
            for block in range(-(-self.settled[shard].pending // self.block_rows))
        ]
        return Pending(
            split=self.split,
            store=self.store,
            counts=self.counts,
            block_rows=self.block_rows,
            blocks=blocks,
        )

    def finish(self, asked: AskedCounts | None) -> RationaleManifest:
        """Merge what was ``asked``, and write the manifest."""
        if asked is not None:
            self.settled = self._settle(ask_failed=False)
        return write_manifest(
            self.recipe,
            self.store,
            self.counts,
            split=self.split,
            rejected=self.read.rejected,
            overlap=_overlap(self.recipe, self.folder) if self.split == "train" else {},
            asked=asked,
        )

    def check(self, manifest: RationaleManifest) -> None:
        """Raise UserError where nobody could train on this."""
        if self.begun is None:
            check_not_stopped(self.counts, manifest)
            check_usable(self.recipe, self.counts, manifest)
            check_failed_share(self.recipe, self.counts)

    def _settle(self, *, ask_failed: bool) -> dict[int, ShardCounts]:
        one = partial(
            self.store.settle,
            shards=self.shards,
            ask_failed=ask_failed,
            block_rows=self.block_rows,
        )
        options = _file_options(self.recipe.generation)
        return dict(map_tasks(one, range(self.shards), **options))


def _nothing_asked(folder: RunFolder, split: str) -> bool:
    return _begun(folder, split) is None and RationaleStore(folder.rationales(split)).shards is None


def _begun(folder: RunFolder, split: str) -> Path | None:
    """The training that has begun on the split, after which nothing is asked any more."""
    return folder.training_begun() if split == "train" else None


def _deploy(recipe: Recipe, teacher: Teacher, report: Report) -> None:
    """Have the teacher start, where that takes long and goes on by itself.

    Raises:
        MissingResource: the cluster cannot hold it beside those who ask.
    """
    check_feasible(bundles(recipe), what=DEMANDS)  # a started teacher would hold their share
    if isinstance(teacher, Deployable):
        teacher.deploy(report)


def bundles(recipe: Recipe) -> list[Bundle]:
    """The resources that the stage takes side by side: the teacher, and those who ask it."""
    return [*teacher_bundles(recipe.teacher), *asking_bundles(recipe.generation)]


def _file_options(generation: GenerationRecipe) -> dict[str, object]:
    return {"num_cpus": FILES_CPUS, "resources": colocate(generation.actor.resources)}


def _overlap(recipe: Recipe, folder: RunFolder) -> dict[str, Overlap]:
    """The questions of each measured split that are among the training questions."""
    found: dict[str, Overlap] = {}
    for name in ("validation", "test", "held_out"):
        if getattr(recipe.data, name) is not None:
            read = write_split(recipe, folder, name)
            if ids := same_in_files(folder.questions(name), folder.questions("train")):
                found[name] = {"ids": ids, "of": read.questions}
    return found
