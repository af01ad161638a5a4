"""Two small runs of a recipe on its own cluster, whose seconds tell what the whole will take.

They lie beside the run folder, in `<run>.plan/`, and are made once: their figures are kept. Both do
all that the run does, with the recipe's own batches, workers and replicas, on a few questions and a
few steps. The teacher is paid for these questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcrd_ray import pipeline
from qcrd_ray.plan.figures import Figures, Size
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder, resolve
from qcrd_ray.runs.progress import Stages
from qcrd_ray.tasks.splits import write_split
from qcrd_ray.tasks.spool import Written

ROUNDS = (1, 3)  # of the two runs
TIMES = (1, 6)  # as many questions: what a question takes shows once many are in flight
STEPS = 4  # of a round
SPLITS = ("train", "validation", "test", "held_out", "unlabelled")


def plan_folder(recipe: Recipe) -> Path:
    """Where the small runs and their figures lie."""
    run = resolve(recipe.run)
    return run.with_name(f"{run.name}.plan")


def write_splits(recipe: Recipe, folder: RunFolder) -> dict[str, Written]:
    """Read every split that the recipe has into ``folder``, one block at a time.

    Raises:
        UserError: a split cannot be read.
    """
    present = [split for split in SPLITS if getattr(recipe.data, split) is not None]
    return {split: write_split(recipe, folder, split) for split in present}


def size_of(splits: Mapping[str, Written]) -> Size:
    """The size of a run on these splits."""
    return Size(questions={split: written.questions for split, written in splits.items()})


def count_questions(recipe: Recipe) -> Size:
    """How many questions each split of the recipe has; see :func:`write_splits`."""
    return size_of(write_splits(recipe, RunFolder(plan_folder(recipe) / "size")))


def calibrate(recipe: Recipe, size: Size, *, questions: int, stages: Stages) -> Figures:
    """Make the two small runs, unless their figures are there, and return these.

    The first run starts Ray, where the whole one would: its start is part of what is measured.

    Args:
        questions: that the smaller run asks the teacher; the other one asks six times as many.

    Raises:
        UserError: as :func:`qcrd_ray.pipeline.run`.
    """
    root = plan_folder(recipe)
    kept = root / "figures.json"
    if kept.exists():
        return Figures.read(kept)
    runs = []
    for rounds, times in zip(ROUNDS, TIMES, strict=True):
        run = root / str(rounds)
        made = small_recipe(recipe, size, run=run, questions=times * questions, rounds=rounds)
        own = Stages()
        with stages.stage(f"small run {len(runs) + 1} of {len(ROUNDS)}") as report:
            report(0, 0, f"{times * questions} questions")
            pipeline.run(made, own)
        runs.append((RunFolder(run), count_questions(made)))
    figures = Figures.measured(recipe, runs)
    write_text(kept, figures.dump())
    return figures


def small_recipe(recipe: Recipe, size: Size, *, run: Path, questions: int, rounds: int) -> Recipe:
    """The recipe on the first ``questions`` questions of each split, for a few short rounds."""
    tree: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    least = {"train": recipe.train.batch_size}  # a batch holds no question twice
    for split, count in size.questions.items():
        _shorten(tree["data"][split], min(count, max(questions, least.get(split, 1))))
    tree["run"] = str(run)
    tree["train"] |= {"rounds": rounds, "round": {"unit": "steps", "size": STEPS}}
    tree["train"]["validate"] |= {"every_rounds": 1, "max_questions": questions}
    tree["discriminator"] |= {
        "pretrain_steps": min(recipe.discriminator.pretrain_steps, rounds),
        "steps_per_round": min(recipe.discriminator.steps_per_round, 2),
    }
    return Recipe.model_validate(tree)


def _shorten(split: dict[str, Any], count: int) -> None:
    """Let a split of the recipe hold its first ``count`` questions alone."""
    if split["generate"] is not None and split["rows"] is None:
        split["generate"] = count
    else:
        first = split["rows"][0] if split["rows"] else 0
        split["rows"] = [first, first + count]
