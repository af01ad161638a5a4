"""Make the demo's two models from scratch, in plain PyTorch, seeded, on a CPU.

Each takes a quarter of an hour on one core. Both learn from ``pretraining`` stories alone, which no
seed of the recipe's splits can reach (``tasks/word_problems.py``). The teacher learns stories of
one to three steps. The student base stands for a pretrained T5: it learns both heads until its
learning rate is 0, and lacks what the teacher can teach it. It has never seen a story with a
useless number, so it takes every number for a step.
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
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.data.records import Question
from qcrd_ray.demo.tokenizer import build_tokenizer
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task, word_problems
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

Batches = Iterator[list[dict[str, torch.Tensor]]]
IGNORED = -100  # the label that transformers' losses leave out
MAX_TOKENS = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One phase of training: how long, and on what."""

    steps: int
    batch_size: int = 48
    learning_rate: float = 4e-3
    muon_learning_rate: float = 0.02
    warmup: int = 30
    story_steps: tuple[int, ...] = (1, 2, 3)
    distractors: float = word_problems.DISTRACTOR_SHARE
    dropout: float = 0.0
    # the student's label head learns from every n-th story: a label holds little, and its story
    # costs as much to read as a rationale's
    labels_every: int = 1


PLANS = {
    "teacher": (Plan(steps=700),),
    # short stories first: copying and the two heads are learnt on them at half the cost
    "student": (
        Plan(steps=2_000, story_steps=(1, 2), distractors=0.0, labels_every=2),
        Plan(steps=900, distractors=0.0, dropout=0.05, muon_learning_rate=0.01, learning_rate=2e-3),
    ),
}


def demo_task() -> Task:
    """The built-in task as the demo uses it: the teacher's prompt is the bare ``Q: ... A:``."""
    return build_task(TaskRecipe(kind="word_problems", instruction=""))


def make(
    name: Literal["teacher", "student"],
    folder: Path,
    *,
    plans: Sequence[Plan],
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Train one of the models by ``plans``, one after another, and save it in ``folder``."""
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")  # bfloat16 products where the processor has them
    tokenizer = build_tokenizer(ends_input=name == "student", max_tokens=MAX_TOKENS)
    build, batches = (
        (_teacher, _teacher_batches) if name == "teacher" else (_student, _student_batches)
    )
    model = build(tokenizer)
    for phase, plan in enumerate(plans):
        _set_dropout(model, plan.dropout)
        _train(model, batches(tokenizer, plan, seed + 1_000 * phase), plan, report)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _teacher(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A decoder of 0.6 M parameters. vLLM's attention on CPUs needs heads of 32 or more."""
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


def _student(tokenizer: PreTrainedTokenizerFast) -> T5ForConditionalGeneration:
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


def _set_dropout(model: PreTrainedModel, share: float) -> None:
    """Set every dropout of the model, and its configuration's."""
    if hasattr(model.config, "dropout_rate"):
        model.config.dropout_rate = share
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout", None), float):  # on the attention's weights
            module.dropout = share  # pyright: ignore[reportArgumentType]  # a module of transformers


def _train(
    model: PreTrainedModel, batches: Batches, plan: Plan, report: Callable[[str], None]
) -> None:
    """Train with a warmup and a linear decay to 0.

    A batch is a list of parts, whose losses are added.
    """
    optimizers = _optimizers(model, plan)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: min(
                (step + 1) / plan.warmup, (plan.steps - step) / max(1, plan.steps - plan.warmup)
            ),
        )
        for optimizer in optimizers
    ]
    model.train()
    for step, parts in enumerate(itertools.islice(batches, plan.steps), start=1):
        losses = [model(**part).loss for part in parts]
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for moving in (*optimizers, *schedules):
            moving.step()
        model.zero_grad()
        if step % 25 == 0 or step == plan.steps:
            report(
                f"step {step}/{plan.steps}  loss "
                + " ".join(f"{loss.item():.4f}" for loss in losses)
            )


def _optimizers(model: PreTrainedModel, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms.

    Muon needs a third of AdamW's steps here. T5 does not scale its attention logits by
    ``d_kv ** -0.5`` but starts with queries that much smaller; they must move that much slower too,
    or the softmax saturates and nothing is learnt.
    """
    tables = ("embed_tokens", "shared", "relative_attention_bias")
    queries, matrices, rest = [], [], []
    for name, weight in model.named_parameters():
        is_matrix = weight.ndim == 2 and not any(table in name for table in tables)
        (queries if name.endswith(".q.weight") else matrices if is_matrix else rest).append(weight)
    groups = [{"params": matrices, "lr": plan.muon_learning_rate}]
    if queries:
        groups.append({"params": queries, "lr": plan.muon_learning_rate * model.config.d_kv**-0.5})
    return [
        torch.optim.Muon(groups, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _stories(plan: Plan, seed: int) -> Iterator[list[Question]]:
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


def _teacher_batches(tokenizer: PreTrainedTokenizerFast, plan: Plan, seed: int) -> Batches:
    """Prompts with their completions; only the completion is learnt."""
    task = demo_task()
    for stories in _stories(plan, seed):
        prompts = [task.teacher_prompt(story) for story in stories]
        answers = [_explanation(task, story) for story in stories]
        texts = [
            f"{prompt} {answer}{tokenizer.eos_token}"
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = batch.input_ids.masked_fill(batch.attention_mask == 0, IGNORED)
        for row, prompt in enumerate(tokenizer(prompts).input_ids):
            labels[row, : len(prompt)] = IGNORED
        yield [{**batch, "labels": labels}]


def _student_batches(tokenizer: PreTrainedTokenizerFast, plan: Plan, seed: int) -> Batches:
    """The two heads of each story: `predict:` gives the label, `explain:` the closed rationale."""
    task = demo_task()
    for stories in _stories(plan, seed):
        labelled = stories[:: plan.labels_every]
        labels = [task.label(story.answer or "") for story in labelled]
        explanations = [_explanation(task, story) for story in stories]
        yield [
            _pairs(tokenizer, [PREDICT + task.student_input(story) for story in labelled], labels),
            _pairs(
                tokenizer, [EXPLAIN + task.student_input(story) for story in stories], explanations
            ),
        ]


def _explanation(task: Task, story: Question) -> str:
    assert story.rationale is not None and story.answer is not None, "generated stories have both"
    return task.explanation(story.rationale, story.answer)


def _pairs(
    tokenizer: PreTrainedTokenizerFast, inputs: list[str], targets: list[str]
) -> dict[str, torch.Tensor]:
    batch = tokenizer(inputs, padding=True, return_tensors="pt")
    labels = tokenizer(targets, padding=True, return_tensors="pt")
    return {**batch, "labels": labels.input_ids.masked_fill(labels.attention_mask == 0, IGNORED)}
