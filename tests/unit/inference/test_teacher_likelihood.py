"""The likelihood of texts under the teacher, against a plain forward pass of its prompt."""

from __future__ import annotations

import pytest
import torch
from teacher_tiny import write_llama

from qcrd_ray.data.records import Question
from qcrd_ray.inference.base import EngineOptions
from qcrd_ray.inference.evidence import EvidenceReader
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.teacher_likelihood import TeacherLikelihood
from qcrd_ray.recipe import ServeTeacher, TaskRecipe
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="arithmetic", instruction="", system="the"))
QUESTIONS = [Question(id="a", question="is 5 7 ?"), Question(id="b", question="8 . 9 ?")]
TEXTS = [["So the answer is 7 .", "4"], ["9"]]
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}So {% endif %}"
)


def load(folder, **settings) -> TeacherLikelihood:
    options = EngineOptions(device=torch.device("cpu"), batch_size=2)
    return TeacherLikelihood.load(
        ServeTeacher(source="serve", model=str(folder), **settings), TASK, options
    )


@pytest.mark.parametrize(
    ("template", "chat", "prompts"),
    [
        (None, "auto", ["the Q : is 5 7 ? A :", "the Q : 8 . 9 ? A :"]),
        (CHAT, "never", ["the Q : is 5 7 ? A :", "the Q : 8 . 9 ? A :"]),
        (CHAT, "auto", ["<s> the is 5 7 ? So", "<s> the 8 . 9 ? So"]),
    ],
)
def test_losses_follow_the_prompt_that_the_teacher_was_asked_with(
    tmp_path, template, chat, prompts
):
    # guards against the student's own prompt, and against special tokens between prompt and text
    teacher = load(write_llama(tmp_path, chat_template=template), chat=chat)
    tokenizer, model = teacher.model.tokenizer, teacher.model.model
    found = teacher.token_losses(QUESTIONS, TEXTS)
    for prompt, texts, losses in zip(prompts, TEXTS, found, strict=True):
        before = tokenizer(prompt, add_special_tokens=False).input_ids
        for text, values in zip(texts, losses, strict=True):
            after = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*before, *after]])).logits[0]
            expected = torch.nn.functional.cross_entropy(
                logits[len(before) - 1 : -1], torch.tensor(after), reduction="none"
            )
            assert values == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_judge_can_read_them_alone(tmp_path):
    reader = EvidenceReader(TASK, ["teacher"], teacher=load(write_llama(tmp_path)))
    samples = [[HeadAnswer(text=text) for text in each] for each in TEXTS]
    (first, second), (third,) = reader.read(QUESTIONS, samples)
    assert len(first) == 3 and len({first, second, third}) == 3
