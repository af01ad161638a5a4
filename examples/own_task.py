"""A task of your own: yes-or-no questions. A recipe names it where `examples` can be imported from:

    task:
      kind: examples.own_task:YesNo
      options: {"yes": ["true"], "no": ["false"]}  # more words for each answer

docs/extending.md explains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from qcrd_ray.tasks.labels import LabelledTask


@dataclass(frozen=True)
class YesNo(LabelledTask):
    """Questions with the answers "yes" and "no", and the recipe's words for them."""

    INSTRUCTION = 'Answer yes or no. Explain step by step, then answer. End with "{closing}"'
    LABELS = {"yes": "yes", "no": "no"}  # noqa: RUF012

    def labels(self) -> Mapping[str, str]:
        """Each label with a regular expression of its wordings."""
        more = self.recipe.options
        return {
            label: "|".join([words, *map(re.escape, more.get(label, ()))])
            for label, words in self.LABELS.items()
        }
