"""How likely the teacher finds given texts: what a judge in training may know of a sample.

Reading a text costs a language model one forward pass, where writing it takes one for each token.
transformers reads here, and not the deployment that answered the questions: that is stopped before
training starts. The teacher's weights must therefore fit beside the student where it is sampled
(`evaluate.worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qcrd_ray.data.records import Question
from qcrd_ray.inference.base import EngineOptions
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.method.tokenization import eos_id
from qcrd_ray.models.names import resolve_teacher
from qcrd_ray.recipe import ServeTeacher
from qcrd_ray.tasks.base import Task


class TeacherLikelihood:
    """Reads texts after the prompt that the teacher was asked with.

    ``chat``: it was asked with its chat template.
    """

    def __init__(self, model: Likelihood, task: Task, *, chat: bool) -> None:
        self.model, self.task, self.chat = model, task, chat

    @classmethod
    def load(cls, recipe: ServeTeacher, task: Task, options: EngineOptions) -> TeacherLikelihood:
        """Load the recipe's teacher onto ``options.device``. Raises UserError."""
        options = replace(options, trust_remote_code=recipe.trust_remote_code)
        model = Likelihood.load(resolve_teacher(recipe.model), options)
        chat = recipe.chat != "never" and bool(model.tokenizer.chat_template)
        return cls(model, task, chat=chat)

    def token_losses(
        self, questions: Sequence[Question], texts: Sequence[Sequence[str]]
    ) -> list[list[list[float]]]:
        """The loss in nats of each token of each text, the end token included.

        ``texts[i]`` are those of ``questions[i]``.
        """
        tokenizer, end = self.model.tokenizer, eos_id(self.model.tokenizer)
        prompts = [self._prompt(question) for question in questions]
        if not self.chat:
            texts = [[f" {text}" for text in each] for each in texts]  # as after "A:"
        encoded = tokenizer(prompts, add_special_tokens=not self.chat).input_ids
        targets = [
            [[*ids, end] for ids in tokenizer(list(each), add_special_tokens=False).input_ids]
            for each in texts
        ]
        return self.model.losses_after(encoded, targets)

    def _prompt(self, question: Question) -> str:
        if not self.chat:
            return self.task.teacher_prompt(question)
        prompt = self.model.tokenizer.apply_chat_template(
            self.task.teacher_messages(question), add_generation_prompt=True, tokenize=False
        )
        assert isinstance(prompt, str)
        return prompt
