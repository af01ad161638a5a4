"""A task of a user's own, as the docstring of qcrd_ray/tasks/base.py shows one; tests name it as
`own_task:YesNo`.
"""

from __future__ import annotations

import re
import textwrap

from qcrd_ray.tasks import base
from qcrd_ray.tasks.prompting import PromptedTask

# The very lines that users read; a module of theirs would hold them as they stand.
_CODE = textwrap.dedent(re.search(r"::\n\n(.*?)\n\n``", base.__doc__, re.DOTALL)[1])
exec(compile(_CODE, __file__, "exec"), globals())


class NoParse:
    """Lacks `parse`, and its `label` takes too much."""

    def __init__(self, recipe): ...


class NoCanonical(PromptedTask):
    """Leaves out the one method that `PromptedTask` does not have."""


class TakesNothing(YesNo):  # noqa: F821
    def __init__(self): ...


class TakesMore(YesNo):  # noqa: F821
    def label(self, answer, question, length): ...
