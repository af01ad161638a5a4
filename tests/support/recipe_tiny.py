"""The smallest whole recipe of a run: generated questions, the demo's teacher and student."""

from __future__ import annotations

from pathlib import Path

from qcrd_ray.recipe import Recipe


def recipe(run: str | Path, **changes) -> Recipe:
    """A recipe of the run folder or URI ``run``, with other sections."""
    tree = {
        "name": "x",
        "run": str(run),
        "task": {"kind": "word_problems"},
        "data": {
            split: {"generate": 3, "seed": seed}
            for seed, split in enumerate(("train", "validation", "test"))
        },
        "teacher": {"source": "serve", "model": "demo"},
        "student": {"model": "demo"},
    }
    return Recipe.model_validate(tree | changes)
