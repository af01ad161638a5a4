"""Make the demo's two models from scratch, in plain PyTorch, seeded, on a CPU.

Each takes a quarter of an hour on one core. Both learn from ``pretraining`` stories alone, which no
seed of the recipe's splits can reach (``tasks/word_problems.py``). The teacher learns stories of
one to three steps. The student base stands for a pretrained T5: it learns both heads until its
learning rate is 0, and lacks what the teacher can teach it. It has never seen a story with a
useless number, so it takes every number for a step. The shipped base is a T5; a Llama can be made
from the same stories, to compare methods on a decoder-only student.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedTokenizerFast

from qcrd_ray.data.records import Question
from qcrd_ray.demo.small_models import CHAT_TEMPLATE, MAX_TOKENS, continued, llama, pairs, t5
from qcrd_ray.demo.tokenizer import build_tokenizer
from qcrd_ray.demo.training_loop import Batches, Plan, train
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryPlan(Plan):
    """One phase of training on stories: also which ones."""

    story_steps: tuple[int, ...] = (1, 2, 3)
    distractors: float = word_problems.DISTRACTOR_SHARE
    # the student's label head learns from every n-th story: a label holds little, and its story
    # costs as much to read as a rationale's
    labels_every: int = 1


Kind = Literal["teacher", "t5", "llama"]  # the last two are student bases

PLANS: dict[Kind, tuple[StoryPlan, ...]] = {
    "teacher": (StoryPlan(steps=700),),
    # short stories first: copying and the two heads are learnt on them at half the cost
    "t5": (
        StoryPlan(steps=2_000, story_steps=(1, 2), distractors=0.0, labels_every=2),
        StoryPlan(
            steps=900, distractors=0.0, dropout=0.05, muon_learning_rate=0.01, learning_rate=2e-3
        ),
    ),
    "llama": (
        StoryPlan(steps=1_000, story_steps=(1, 2), distractors=0.0, labels_every=2),
        StoryPlan(
            steps=600,
            distractors=0.0,
            muon_learning_rate=0.01,
            learning_rate=2e-3,
            labels_every=2,
        ),
    ),
}


def demo_task() -> Task:
    """The built-in task as the demo uses it: the teacher's prompt is the bare ``Q: ... A:``."""
    return build_task(TaskRecipe(kind="word_problems", instruction=""))


def make(
    kind: Kind,
    folder: Path,
    *,
    plans: Sequence[StoryPlan],
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Train one of the models by ``plans``, one after another, and save it in ``folder``."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")  # bfloat16 products where the processor has them
    tokenizer = build_tokenizer(ends_input=kind == "t5", max_tokens=MAX_TOKENS)
    if kind == "llama":
        tokenizer.chat_template = CHAT_TEMPLATE
    model = (t5 if kind == "t5" else llama)(tokenizer)
    batches = _teacher_batches if kind == "teacher" else _student_batches
    for phase, plan in enumerate(plans):
        train(model, batches(tokenizer, plan, seed + 1_000 * phase), plan, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _stories(plan: StoryPlan, seed: int) -> Iterator[list[Question]]:
    """Endless batches of fresh stories of about the same length."""
    shuffle = random.Random(seed)
    for chunk in itertools.count():
        stories = word_problems.generate(
            32 * plan.batch_size,
            seed=1_000 * seed + chunk,
            kind="pretraining",
            steps=plan.story_steps,
            distractors=plan.distractors,
        )
        stories.sort(key=lambda story: len(story.question.split()))
        batches = [
            stories[start : start + plan.batch_size]
            for start in range(0, len(stories), plan.batch_size)
        ]
        shuffle.shuffle(batches)
        yield from batches


def _teacher_batches(tokenizer: PreTrainedTokenizerFast, plan: StoryPlan, seed: int) -> Batches:
    """Prompts with their completions."""
    task = demo_task()
    for stories in _stories(plan, seed):
        prompts = tokenizer([task.teacher_prompt(story) for story in stories]).input_ids
        yield [continued(tokenizer, prompts, [_explanation(task, story) for story in stories])]


def _student_batches(tokenizer: PreTrainedTokenizerFast, plan: StoryPlan, seed: int) -> Batches:
    """The two heads of each story: `predict:` gives the label, `explain:` the closed rationale."""
    task = demo_task()
    for stories in _stories(plan, seed):
        labelled = stories[:: plan.labels_every]
        labels = [task.label(story.answer or "", story) for story in labelled]
        explanations = [_explanation(task, story) for story in stories]
        heads = [
            ([PREDICT + task.student_input(story) for story in labelled], labels),
            ([EXPLAIN + task.student_input(story) for story in stories], explanations),
        ]
        if tokenizer.chat_template:
            # One batch, and one mean over its tokens: with a mean for each head, the few tokens of
            # the labels weigh as much as whole rationales, and copying is learnt late.
            inputs, targets = (list(itertools.chain(*part)) for part in zip(*heads, strict=True))
            yield [pairs(tokenizer, inputs, targets)]
        else:
            yield [pairs(tokenizer, *head) for head in heads]


def _explanation(task: Task, story: Question) -> str:
    assert story.rationale is not None and story.answer is not None, "generated stories have both"
    return task.explanation(story.rationale, story.answer, story)
