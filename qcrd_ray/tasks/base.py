"""The task protocol: how a question is asked, free text is read, and answers are compared.

Everything that differs between kinds of question lies behind :class:`Task`; the stages know no kind
by name. A task works on text alone: it imports neither torch nor Ray, never executes what a model
wrote, and returns a reason instead of raising when a model's text is unusable.

A task of your own is a class in a module of your own, named by the recipe as `task.kind:
my_package.tasks:YesNo`. It is made from the recipe's `task` section and has the methods of
:class:`Task`. Most of them are the same for every kind of question and come with
:class:`~qcrd_ray.tasks.prompting.PromptedTask`; what is left to say is what an answer is, here
which labels there are and how they are worded::

    from dataclasses import dataclass

    from qcrd_ray.tasks.labels import LabelledTask


    @dataclass(frozen=True)
    class YesNo(LabelledTask):
        INSTRUCTION = 'Answer yes or no. Explain step by step, then answer. End with "{closing}"'
        LABELS = {"yes": "yes|true|correct", "no": "no|false|incorrect"}

``LabelledTask`` reads labels as the built-in kinds do. Where answers are no few labels, derive from
``PromptedTask`` and write ``canonical(answer, question)``.

``canonical`` decides most: two answers are the same if it spells them the same, and a text is no
answer if it returns None. It reads the gold answers of the data, the text of the student's label
head, and what a rationale announces as its answer. It must return its own spelling unchanged.
Settings of your own stand under `task.options`; the task finds them in ``self.recipe.options``.

The module must be importable wherever Ray runs a worker: it lies in the folder that `qcrd` is
called from (with `ray job submit`, in the --working-dir), or is installed. A student folder names
it in its task.json, and needs it to be served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from qcrd_ray.data.records import Question

# the prefix under which the student gives the label (Distilling Step-by-Step's, kept by the paper)
PREDICT = "predict: "
EXPLAIN = "explain: "  # the prefix under which it gives the rationale


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A completion as a task has read it.

    ``rationale`` is the reasoning without its closing answer phrase, ``answer`` the canonical
    answer. ``answer`` is None when no answer could be read; ``reason`` then says why, in words for
    the run folder. ``source`` are the words of the text that the answer was read from.
    """

    rationale: str = ""
    answer: str | None = None
    reason: str = ""
    source: str = field(default="", compare=False)


# {"role": "system" | "user" | "assistant", "content": ...}, as chat templates take them
Message = dict[str, str]


@runtime_checkable
class Task(Protocol):
    """One kind of question.

    Implementations are plain frozen objects made from the recipe's ``task`` section.
    """

    def check(self, question: Question) -> str:
        """Why this question cannot be used; "" when it can.

        An empty text, fewer than two choices, a gold answer that is no choice...
        """
        ...

    def student_input(self, question: Question) -> str:
        """The question as the student reads it, without the `predict:` or `explain:` prefix.

        Choices are part of it.
        """
        ...

    def teacher_messages(self, question: Question) -> list[Message]:
        """What the teacher is asked, few-shot examples included, as chat messages."""
        ...

    def teacher_prompt(self, question: Question) -> str:
        """The same as one plain text, for a teacher without a chat template.

        It ends where the completion starts.
        """
        ...

    def parse(self, text: str, question: Question) -> Parsed:
        """Read a model's free text, be it the teacher's or the student's.

        It is cut where it runs on into invented questions, and split into rationale and answer.
        """
        ...

    def canonical(self, answer: str, question: Question) -> str | None:
        """The one spelling of an answer that votes and comparisons use ("32", "wooded area").

        None: it is no answer.
        """
        ...

    def label(self, answer: str, question: Question) -> str:
        """The target text of the student's `predict:` head for a canonical answer.

        `canonical` reads it back.
        """
        ...

    def explanation(self, rationale: str, answer: str, question: Question) -> str:
        """The target text of the student's `explain:` head.

        It is the rationale closed by its own answer, so that `parse` reads it back.
        """
        ...

    def describe(self) -> dict:
        """What a reader of the student folder must know to use it; JSON-serialisable.

        The kind, the prompts and the closing phrase are part of it.
        """
        ...
