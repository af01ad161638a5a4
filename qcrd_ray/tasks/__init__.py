"""Tasks: how a kind of question is read, asked, parsed and compared, without torch or Ray.

Imports `runs` to store questions, `data` and `recipe`. Each kind implements
:class:`qcrd_ray.tasks.base.Task`.
"""

from __future__ import annotations

from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks.arithmetic import Arithmetic
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.custom import load_custom_task
from qcrd_ray.tasks.multiple_choice import MultipleChoice
from qcrd_ray.tasks.nli import NaturalLanguageInference
from qcrd_ray.tasks.short_text import ShortText
from qcrd_ray.tasks.slotted_arithmetic import SlottedArithmetic
from qcrd_ray.tasks.yes_no import YesNo

KINDS = {
    "arithmetic": Arithmetic,
    "slotted_arithmetic": SlottedArithmetic,
    "word_problems": Arithmetic,  # the built-in generator makes arithmetic questions
    "multiple_choice": MultipleChoice,
    "nli": NaturalLanguageInference,
    "yes_no": YesNo,
    "short_text": ShortText,
}


def build_task(recipe: TaskRecipe) -> Task:
    """The task that a recipe's ``task`` section describes.

    Raises:
        UserError: it is a task of the user's own that cannot be used.
    """
    return KINDS[recipe.kind](recipe) if recipe.kind in KINDS else load_custom_task(recipe)
