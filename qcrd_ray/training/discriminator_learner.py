"""The discriminator's side of training: pretraining, its steps of each round, and the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import global_batch, keyed_seed
from qcrd_ray.method.discriminator import (
    Contrast,
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
    split_contrasts,
)
from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.method.negatives import balancing_negatives, merge_rationales
from qcrd_ray.method.ranking import auc, length_correlation, within_question_auc
from qcrd_ray.method.tokenization import pad_id, tokenize_pairs
from qcrd_ray.recipe import DiscriminatorRecipe, TrainRecipe
from qcrd_ray.tasks.base import Task
from qcrd_ray.training.dataset import RoundQuestion
from qcrd_ray.training.engines import discriminator_config, start_engine
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.synthetic_negatives import balancing_numbers

_SCORE_BATCH = 64


class DiscriminatorLearner:
    """Trains D on rationales of both kinds, and scores them.

    ``start`` is the encoder that it begins with. ``task`` reads the answers of rationales, and
    ``words`` are what word replacement draws from. ``merged``: see
    :func:`qcrd_ray.training.engines.start_engine`.
    """

    def __init__(
        self,
        start: str | Path,
        config: DiscriminatorRecipe,
        train: TrainRecipe,
        *,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        words: Sequence[str],
        seed: int,
        trust_remote_code: bool,
        process_group: ProcessGroup,
        merged: bool = False,
    ):
        self.config, self.task, self.tokenizer, self.words = config, task, tokenizer, words
        self.seed, self.process_group = seed, process_group
        # its linear layers start random
        torch.manual_seed(keyed_seed(seed, "discriminator"))
        discriminator = Discriminator.from_pretrained(
            start,
            hidden=config.hidden,
            dropout=config.dropout,
            layers=config.layers,
            trust_remote_code=trust_remote_code,
        )
        if config.gradient_checkpointing:
            discriminator.encoder.gradient_checkpointing_enable({"use_reentrant": False})
        step = DiscriminatorStep(discriminator, loss=config.loss, smoothing=config.label_smoothing)
        self.engine = start_engine(
            step,
            discriminator_config(config, train),
            process_group=process_group,
            merged=merged,
        )
        self.learning_rate = config.learning_rate
        self.mask = mask_word(tokenizer)

    @property
    def discriminator(self) -> Discriminator:
        """The discriminator itself, without its engine."""
        return self.engine.module.discriminator

    def train(
        self,
        questions: Sequence[RoundQuestion],
        *,
        steps: int,
        phase: str,
        decays: int = 0,
        on_step: Callable[[int], None] | None = None,
    ) -> dict[str, float]:
        """``steps`` optimizer steps on batches of ``questions``. Returns means for the log.

        The learning rate is that after ``decays`` rounds. ``phase`` keys the randomness:
        "pretraining", or the round. ``on_step`` is called with the number of steps done. Questions
        without a positive are left out: they say nothing about what is better.

        Raises:
            UserError: the loss of a step was not finite.
        """
        if self.config.positives == "label":
            questions = [by_label(question, self.task) for question in questions]
        usable = [question for question in questions if question.example.positives]
        if not usable or not steps:
            return {}
        self.learning_rate = self.config.learning_rate * self.config.learning_rate_decay**decays
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.engine.train()
        order = keyed_seed(self.seed, "discriminator batches", phase)
        sums = torch.zeros(len(DiscriminatorStep.sums), device=self.process_group.device)
        for step in range(steps):
            batch = global_batch(
                seed=order, step=step, questions=len(usable), batch_size=self.config.batch_size
            )
            sums += self._step([usable[i] for i in batch], step=step, phase=phase)
            if on_step:
                on_step(step + 1)
        sums = self.process_group.sum(sums)
        if not sums.isfinite().all():
            raise UserError(
                f"the discriminator's loss was not finite in {phase}: lower"
                " discriminator.learning_rate. The checkpoints before it are whole."
            )
        return self.engine.module.metrics(sums)

    def score_texts(self, inputs: Sequence[str], texts: Sequence[str]) -> list[float]:
        """s of each of ``texts``, a rationale of the question at its place in ``inputs``.

        In eval mode, on this worker.
        """
        pairs = tokenize_pairs(self.tokenizer, inputs, texts, max_tokens=self.config.max_tokens)
        return self.discriminator.score(pairs.rows, batch_size=_SCORE_BATCH)

    def score(self, questions: Mapping[int, RoundQuestion]) -> dict[int, RoundQuestion]:
        """The same questions with s on every rationale. All workers call it.

        Each worker scores its share, in eval mode, and gets the scores of all.
        """
        members = [
            (index, rationale)
            for index, q in questions.items()
            for rationale in (*q.example.positives, *q.example.negatives)
        ]
        scores = torch.zeros(len(members))
        mine = range(self.process_group.rank, len(members), self.process_group.size)
        if mine:
            inputs = [questions[members[i][0]].row.input for i in mine]
            texts = [questions[members[i][0]].texts[members[i][1].tokens] for i in mine]
            scores[list(mine)] = torch.tensor(self.score_texts(inputs, texts))
        flat = iter(self.process_group.sum(scores).tolist())

        def scored(rationales: Sequence[Rationale]) -> tuple[Rationale, ...]:
            return tuple(replace(rationale, score=next(flat)) for rationale in rationales)

        return {
            index: replace(
                question,
                example=replace(
                    question.example,
                    positives=scored(question.example.positives),
                    negatives=scored(question.example.negatives),
                ),
            )
            for index, question in questions.items()
        }

    def save(self, folder: Path) -> None:
        """Write D and its tokenizer."""
        self.discriminator.save(folder, max_tokens=self.config.max_tokens)
        self.tokenizer.save_pretrained(folder)

    def _step(self, batch: Sequence[RoundQuestion], *, step: int, phase: str) -> torch.Tensor:
        texts = [self._sides(question, step=step, phase=phase) for question in batch]
        two_sided = sum(bool(negatives) for _, negatives in texts)
        mine = [
            Contrast(
                positives=self._pairs(question, positives),
                negatives=self._pairs(question, negatives),
            )
            for question, (positives, negatives) in zip(
                batch[self.process_group.rank :: self.process_group.size],
                texts[self.process_group.rank :: self.process_group.size],
                strict=True,
            )
        ]
        torch.manual_seed(
            keyed_seed(self.seed, "discriminator dropout", phase, step, self.process_group.rank)
        )
        sums = torch.zeros(len(DiscriminatorStep.sums), device=self.process_group.device)
        for contrasts in split_contrasts(mine, tokens=self.config.micro_batch_tokens):
            inputs = collate_contrasts(contrasts, pad=pad_id(self.tokenizer))
            output = self.engine(inputs.to(self.process_group.device), two_sided)
            self.engine.backward(self.process_group.size * output.loss)
            sums += output.sums
        self.engine.step()
        return sums

    def _sides(
        self, question: RoundQuestion, *, step: int, phase: str
    ) -> tuple[list[str], list[str]]:
        """The texts of a question's positives and of its negatives.

        Altered positives bring the negatives up to the positives in number.
        """
        positives = [question.texts[rationale.tokens] for rationale in question.example.positives]
        negatives = [question.texts[rationale.tokens] for rationale in question.example.negatives]
        return positives, [
            *negatives,
            *self._altered(question, positives, negatives, step=step, phase=phase),
        ]

    def _altered(
        self,
        question: RoundQuestion,
        positives: list[str],
        negatives: list[str],
        *,
        step: int,
        phase: str,
    ) -> list[str]:
        """What `discriminator.augment` adds to the negatives."""
        key = (phase, step, question.row.question.id)
        if self.config.augment == "numbers":
            return balancing_numbers(
                positives,
                negatives,
                task=self.task,
                tokenizer=self.tokenizer,
                row=question.row,
                seed=self.seed,
                key=key,
            )
        if self.config.augment == "words":
            return balancing_negatives(
                positives,
                negatives,
                vocabulary=self.words,
                mask=self.mask,
                mask_share=self.config.mask_share,
                replace_share=self.config.replace_share,
                seed=self.seed,
                key=key,
            )
        return []

    def _pairs(self, question: RoundQuestion, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        inputs = [question.row.input] * len(texts)
        return tuple(
            tokenize_pairs(self.tokenizer, inputs, texts, max_tokens=self.config.max_tokens).rows
        )


def by_label(question: RoundQuestion, task: Task) -> RoundQuestion:
    """The question with its teacher's rationales on the sides that its label puts them on.

    Unchanged where it has none. The student's samples and synthetic negatives stay where they are.
    """
    label = question.row.answer
    if label is None:
        return question
    moved: tuple[list[Rationale], list[Rationale]] = ([], [])
    sides = (question.example.positives, question.example.negatives)
    for side, rationales in enumerate(sides):
        for rationale in rationales:
            to = side
            if rationale.source == Source.TEACHER:
                text = question.texts[rationale.tokens]
                to = int(task.parse(text, question.row.question).answer != label)
            moved[to].append(rationale)
    positives, negatives = merge_rationales(*moved)
    example = replace(question.example, positives=positives, negatives=negatives)
    return replace(question, example=example)


def mask_word(tokenizer: PreTrainedTokenizerBase) -> str:
    """What masks a word: the tokenizer's mask token, T5's first sentinel, or the unknown token."""
    if tokenizer.mask_token is not None:
        return str(tokenizer.mask_token)
    sentinel = "<extra_id_0>"
    return sentinel if sentinel in tokenizer.get_vocab() else str(tokenizer.unk_token or "_")


def score_metrics(questions: Sequence[RoundQuestion]) -> dict[str, float]:
    """In-sample AUCs of a round's scores, over all questions and within each question.

    D has learnt from these questions; :mod:`qcrd_ray.training.discriminator_probe` has others. By
    source, because D can learn the source alone, or how hard the question is (METHOD.md
    section 4).
    """

    def negatives(source: Source) -> list[list[float]]:
        return [_scores(r for r in q.example.negatives if r.source == source) for q in questions]

    def student_samples(*right: bool | None) -> list[list[float]]:
        """The scores of the student's samples that are right, wrong or (None) without an answer."""
        return [
            _scores(
                r
                for r in (*q.example.positives, *q.example.negatives)
                if r.source == Source.STUDENT and q.right.get(r.tokens) in right
            )
            for q in questions
        ]

    positive = [
        _scores(r for r in q.example.positives if r.source == Source.TEACHER) for q in questions
    ]
    compared = {
        "auc_teacher": (positive, negatives(Source.TEACHER)),
        "auc_student": (student_samples(True), student_samples(False)),
        "auc_teacher_against_student": (positive, student_samples(True, False, None)),
        "auc_corrupted": (positive, negatives(Source.CORRUPTED)),
        "auc_evolved": (positive, negatives(Source.EVOLVED)),
    }
    metrics: dict[str, float | None] = {}
    for name, (better, worse) in compared.items():
        metrics[name] = auc(list(chain.from_iterable(better)), list(chain.from_iterable(worse)))
        metrics[f"{name}_within_question"] = within_question_auc(better, worse)
    rationales = [r for q in questions for r in (*q.example.positives, *q.example.negatives)]
    metrics["score_length_correlation"] = length_correlation(
        _scores(rationales), [len(r.tokens) for r in rationales]
    )
    return {name: value for name, value in metrics.items() if value is not None}


def _scores(rationales: Iterable[Rationale]) -> list[float]:
    scores = [rationale.score for rationale in rationales]
    return cast("list[float]", scores)  # a round's rationales are all scored before
