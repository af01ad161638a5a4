"""A task of your own: yes-or-no questions. A recipe names it where `examples` can be imported from:

    task:
      kind: examples.own_task:YesNo
      options: {"yes": ["true"], "no": ["false"]}  # more words for each answer

docs/extending.md explains it.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.prompting import PromptedTask


@dataclass(frozen=True)
class YesNo(PromptedTask):
    """Questions with the answers "yes" and "no"."""

    INSTRUCTION = 'Answer yes or no. Explain step by step, then answer. End with "{closing}"'

    def describe_answer(self, question: Question) -> str:
        """For the reason of a row that is set aside: 'the answer ... is not yes or no'."""
        return "yes or no"

    def canonical(self, answer: str, question: Question) -> str | None:
        """The first word, if it is one of ours; None: this text is no answer."""
        words = answer.lower().replace(".", " ").replace(",", " ").split()
        for spelling in ("yes", "no"):
            if words and words[0] in (spelling, *self.recipe.options.get(spelling, ())):
                return spelling
        return None
