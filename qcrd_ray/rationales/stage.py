"""The rationales stage: ask the teacher each question that is not finished, and sum up.

    questions ─▶ requests, in shards ─▶ pending blocks ─BlockAnswerer actors─▶ rows/

A shard is some ten thousand questions. Shards are prepared and settled one by one in Ray tasks, and
a Ray Data job asks the pending blocks of all of them. What the driver holds grows with the number
of blocks and shards, not of questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from qcrd_ray.cluster.resources import Bundle, check_feasible, colocate
from qcrd_ray.cluster.tasks import map_tasks
from qcrd_ray.data.overlap import same_in_files
from qcrd_ray.rationales.job import ask_blocks, asking_bundles, outcomes_text
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
from qcrd_ray.runs.manifests import Overlap, RationaleManifest
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.tasks.splits import write_split
from qcrd_ray.teacher import Deployable, Teacher, teacher_for
from qcrd_ray.teacher import bundles as teacher_bundles

FILES_CPUS = 1.0  # what a task on files keeps busy; with less, a small machine is full of workers
MAX_BLOCKS = 4_096  # of one job: Ray Data and the file system handle each by itself
DEMANDS = "the teacher and those who ask it (teacher.*, generation.actors)"


def generate_splits(
    recipe: Recipe, folder: RunFolder, splits: Sequence[str], *, report: Report = no_progress
) -> list[RationaleManifest]:
    """:func:`generate` for several splits with one start of the teacher."""
    with teacher_for(recipe) as teacher:
        return [generate(recipe, folder, split, report=report, teacher=teacher) for split in splits]


def generate(
    recipe: Recipe,
    folder: RunFolder,
    split: str = "train",
    *,
    report: Report = no_progress,
    teacher: Teacher | None = None,
) -> RationaleManifest:
    """Generate and vote on the rationales of ``split``, in ``folder.rationales(split)``.

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
        with teacher_for(recipe) as recipe_teacher:
            return generate(recipe, folder, split, report=report, teacher=recipe_teacher)
    store = RationaleStore(folder.rationales(split))
    begun = folder.training_begun() if split == "train" else None
    if begun is None and store.shards is None:  # nothing was asked before, so all of it will be
        _deploy(recipe, teacher, report)  # it starts while the questions are read
    report(0, 0, "reading the questions")
    read = write_split(recipe, folder, split)
    questions = folder.questions(split)
    teacher.check(iter_questions(questions))
    shards = store.shards or shard_count(read.questions)
    store.begin(shards)
    parts = partial(
        write_requests,
        questions=questions,
        folder=store.requests,
        shards=shards,
        recipe=recipe,
        teacher=teacher,
        identity=teacher.identity(),
    )
    for _ in map_tasks(parts, parts_of(questions), **_file_options(recipe.generation)):
        pass
    block_rows = max(recipe.generation.rows_per_block, read.questions // MAX_BLOCKS)

    def settle(*, ask_failed: bool) -> dict[int, ShardCounts]:
        one = partial(store.settle, shards=shards, ask_failed=ask_failed, block_rows=block_rows)
        return dict(map_tasks(one, range(shards), **_file_options(recipe.generation)))

    before = settle(ask_failed=begun is None)
    asked = None
    if begun is not None:
        check_unchanged(_sum(before), begun)
    elif blocks := _blocks(before, block_rows):
        _deploy(recipe, teacher, report)
        asked = ask_blocks(
            recipe,
            teacher,
            store,
            blocks,
            block_rows=block_rows,
            counts=_sum(before),
            report=report,
        )
    counts = _sum(settle(ask_failed=False)) if asked else _sum(before)
    manifest = write_manifest(
        recipe,
        store,
        counts,
        split=split,
        rejected=read.rejected,
        overlap=_overlap(recipe, folder) if split == "train" else {},
        asked=asked,
    )
    report(read.questions, read.questions, outcomes_text(Counter(manifest.outcomes)))
    if begun is None:
        check_not_stopped(counts, manifest)
        check_usable(recipe, counts, manifest)
        check_failed_share(recipe, counts)
    return manifest


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


def _blocks(shards: dict[int, ShardCounts], block_rows: int) -> list[dict[str, int]]:
    """The blocks of pending requests, by shard."""
    return [
        {"shard": shard, "block": block}
        for shard in sorted(shards)
        for block in range(-(-shards[shard].pending // block_rows))
    ]


def _sum(shards: dict[int, ShardCounts]) -> ShardCounts:
    counts = ShardCounts()
    for shard in sorted(shards):
        counts += shards[shard]
    return counts


def _overlap(recipe: Recipe, folder: RunFolder) -> dict[str, Overlap]:
    """The questions of each measured split that are among the training questions."""
    found: dict[str, Overlap] = {}
    for name in ("validation", "test", "held_out"):
        if getattr(recipe.data, name) is not None:
            read = write_split(recipe, folder, name)
            if ids := same_in_files(folder.questions(name), folder.questions("train")):
                found[name] = {"ids": ids, "of": read.questions}
    return found
