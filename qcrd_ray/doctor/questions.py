"""The questions of a recipe, read once for all checks."""

from __future__ import annotations

from functools import cache

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError, headline, own_place
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks.questions import load_split
from qcrd_ray.tasks.spool import Rejected


class Questions:
    """The splits of a recipe, each read when it is first asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.read = cache(self._read)

    def readable(self, split: str) -> list[Question]:
        """The questions of a split; [] where it cannot be read, which another check says."""
        try:
            return self.read(split)[0]
        except UserError:
            return []

    def _read(self, split: str) -> tuple[list[Question], list[Rejected]]:
        try:
            return load_split(self._recipe, split)
        except UserError:
            raise
        except Exception as error:
            if not own_place(error):
                raise
            # a task of the user's own checks and spells each row
            raise UserError(f"task.kind: {self._recipe.task.kind}: {headline(error)}") from error
