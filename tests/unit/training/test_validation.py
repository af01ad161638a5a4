"""Validation measures what evaluation measures: accuracy does not depend on the stage."""

from __future__ import annotations

import pytest
import torch
from training_tiny import tiny_recipe

from qcrd_ray.data.records import Question
from qcrd_ray.inference import Generated
from qcrd_ray.inference.pool import Answerer, AnswerJob
from qcrd_ray.tasks import build_task
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.validation import Validator

# one token a word; each is right only in full
TEXTS = {"label": "7 0 0 1", "rationale": "I add 3 + 4 = 7. So the answer is 7."}


class WordEngine:
    """Generates the text of a head, cut to ``max_tokens`` words."""

    def generate(self, prompts, *, max_tokens, **sampling):
        texts = [
            TEXTS["label" if prompt.startswith("predict") else "rationale"] for prompt in prompts
        ]
        cut = [" ".join(text.split()[:max_tokens]) for text in texts]
        return [[Generated(text, len(text.split()), "stop")] for text in cut]

    def load_weights(self, folder):
        raise AssertionError("there is one model")


@pytest.fixture
def word_engine(monkeypatch):
    for stage in ("training.validation", "inference.pool"):
        monkeypatch.setattr(f"qcrd_ray.{stage}.load_engine", lambda *_, **__: WordEngine())


@pytest.mark.parametrize("head", ["label", "rationale"])
@pytest.mark.parametrize("limit", [1, 3, 24])
@pytest.mark.parametrize("answer", ["7", "7001"])
def test_validation_and_evaluation_agree_whatever_the_limit(word_engine, head, limit, answer):
    """A label head that writes on is right or wrong in both, by the text up to the recipe's limit.

    Validation once cut labels one token behind the longest label of the training set.
    """
    recipe = tiny_recipe(**{"student.max_target_tokens": limit, "train.workers": 1})
    question = Question(id="a", question="How many are 3 and 4?", answer=answer)
    validator = Validator(
        recipe.student,
        [question],
        task=build_task(recipe.task),
        heads=[head],
        process_group=ProcessGroup.single(torch.device("cpu")),
    )
    validated = validator.measure("snapshot")[head]
    evaluated = Answerer(recipe).answer(
        AnswerJob(key=0, model="snapshot", wanted=head, questions=(question,))
    )
    assert validated == float(evaluated.answers[0].answer == answer)
    if head == "label" and answer == "7":
        assert validated == float(limit == 1), "the cut makes a wrong answer right"
