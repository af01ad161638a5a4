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
from typing import Any, Literal

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.data.records import Question
from qcrd_ray.demo.tokenizer import build_tokenizer
from qcrd_ray.demo.training_loop import IGNORED, Batches, Part, Plan, train
from qcrd_ray.method.collation import pad_rows
from qcrd_ray.method.tokenization import pad_id, tokenize, tokenize_inputs
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

MAX_TOKENS = 192


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
        StoryPlan(steps=800, story_steps=(1, 2), distractors=0.0, labels_every=2),
        StoryPlan(steps=400, distractors=0.0, muon_learning_rate=0.01, learning_rate=2e-3),
    ),
}
# how a decoder-only base shows a question: on a line of its own
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"


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
    model = (_t5 if kind == "t5" else _llama)(tokenizer)
    batches = _teacher_batches if kind == "teacher" else _student_batches
    for phase, plan in enumerate(plans):
        train(model, batches(tokenizer, plan, seed + 1_000 * phase), plan, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A decoder of 0.7 M parameters. vLLM's attention on CPUs needs heads of 32 or more."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        **_special_tokens(tokenizer),
    )
    # the quickest backward on a CPU
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def _t5(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
    """An encoder-decoder of 0.8 M parameters; without dropout, since every story is new."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=384,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportCallIssue]  # PretrainedConfig takes it
        **_special_tokens(tokenizer),
    )
    return T5ForConditionalGeneration(config)


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}


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
        yield [_continued(tokenizer, prompts, [_explanation(task, story) for story in stories])]


def _student_batches(tokenizer: PreTrainedTokenizerFast, plan: StoryPlan, seed: int) -> Batches:
    """The two heads of each story: `predict:` gives the label, `explain:` the closed rationale."""
    task = demo_task()
    pairs = _prompted if tokenizer.chat_template else _encoded
    for stories in _stories(plan, seed):
        labelled = stories[:: plan.labels_every]
        labels = [task.label(story.answer or "") for story in labelled]
        explanations = [_explanation(task, story) for story in stories]
        yield [
            pairs(tokenizer, [PREDICT + task.student_input(story) for story in labelled], labels),
            pairs(
                tokenizer, [EXPLAIN + task.student_input(story) for story in stories], explanations
            ),
        ]


def _explanation(task: Task, story: Question) -> str:
    assert story.rationale is not None and story.answer is not None, "generated stories have both"
    return task.explanation(story.rationale, story.answer)


def _encoded(tokenizer: PreTrainedTokenizerFast, inputs: list[str], targets: list[str]) -> Part:
    """Inputs and targets of an encoder-decoder."""
    batch = tokenizer(inputs, padding=True, return_tensors="pt")
    labels = tokenizer(targets, padding=True, return_tensors="pt")
    return {**batch, "labels": labels.input_ids.masked_fill(labels.attention_mask == 0, IGNORED)}


def _prompted(tokenizer: PreTrainedTokenizerFast, inputs: list[str], targets: list[str]) -> Part:
    """Inputs and targets of a decoder-only student, cut into tokens as its training does later."""
    prompts = tokenize_inputs(tokenizer, inputs, max_tokens=MAX_TOKENS).rows
    return _continued(tokenizer, prompts, targets)


def _continued(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Sequence[int]], answers: list[str]
) -> Part:
    """Each prompt's tokens with its answer's and the end; only the answer is learnt."""
    ends = tokenize(tokenizer, answers, max_tokens=MAX_TOKENS).rows
    rows = [(*prompt, *end) for prompt, end in zip(prompts, ends, strict=True)]
    ids, mask = pad_rows(rows, pad_id(tokenizer))
    labels = ids.masked_fill(mask == 0, IGNORED)
    for row, prompt in enumerate(prompts):
        labels[row, : len(prompt)] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
