"""The discriminator under DeepSpeed: pretraining, its steps of each round, and the scores that a
round is trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from qcrd_ray.method.batching import global_batch, keyed_seed
from qcrd_ray.method.discriminator import (
    Contrast,
    Discriminator,
    DiscriminatorStep,
    collate_contrasts,
)
from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.method.negatives import balancing_negatives
from qcrd_ray.method.ranking import auc, length_correlation, within_question_auc
from qcrd_ray.method.tokenization import tokenise_pairs
from qcrd_ray.recipe import Recipe
from qcrd_ray.training.dataset import RoundQuestion
from qcrd_ray.training.engines import discriminator_config, start_engine
from qcrd_ray.training.process_group import ProcessGroup

_SCORE_BATCH = 64


class DiscriminatorLearner:
    """Trains D on rationales of both kinds and scores them. ``words`` are what word replacement
    draws from.
    """

    def __init__(
        self,
        recipe: Recipe,
        start: str | Path,
        *,
        tokenizer: PreTrainedTokenizerBase,
        words: Sequence[str],
        process_group: ProcessGroup,
    ):
        self.recipe, self.config, self.tokenizer, self.words, self.process_group = (
            recipe,
            recipe.discriminator,
            tokenizer,
            words,
            process_group,
        )
        # its linear layers start random
        torch.manual_seed(keyed_seed(recipe.seed, "discriminator"))
        discriminator = Discriminator.from_pretrained(
            start, hidden=self.config.hidden, dropout=self.config.dropout
        )
        step = DiscriminatorStep(
            discriminator, loss=self.config.loss, smoothing=self.config.label_smoothing
        )
        self.engine = start_engine(
            step, discriminator_config(self.config, recipe.train), process_group=process_group
        )
        self.learning_rate = self.config.learning_rate
        self.mask = mask_word(tokenizer)

    @property
    def discriminator(self) -> Discriminator:
        return self.engine.module.discriminator

    def train(
        self, questions: Sequence[RoundQuestion], *, steps: int, phase: str, decays: int = 0
    ) -> dict[str, float]:
        """``steps`` optimizer steps on batches of ``questions``, at the learning rate after
        ``decays`` rounds. Returns means for the log.

        ``phase`` keys the randomness: "pretraining", or the round. Questions without a positive say
        nothing about what is better.
        """
        usable = [question for question in questions if question.example.positives]
        if not usable or not steps:
            return {}
        self.learning_rate = self.config.learning_rate * self.config.learning_rate_decay**decays
        for group in self.engine.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.engine.train()
        order = keyed_seed(self.recipe.seed, "discriminator batches", phase)
        sums = torch.zeros(len(DiscriminatorStep.sums))
        for step in range(steps):
            batch = global_batch(
                seed=order, step=step, questions=len(usable), batch_size=self.config.batch_size
            )
            sums += self._step([usable[i] for i in batch], step=step, phase=phase)
        return self.engine.module.metrics(self.process_group.sum(sums))

    def score(self, questions: Mapping[int, RoundQuestion]) -> dict[int, RoundQuestion]:
        """The same questions with s on every rationale. Each worker scores its share, in eval mode,
        and all get all scores.
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
            pairs = tokenise_pairs(
                self.tokenizer, inputs, texts, max_tokens=self.config.max_tokens
            ).rows
            scores[list(mine)] = torch.tensor(
                self.discriminator.score(pairs, batch_size=_SCORE_BATCH)
            )
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
            keyed_seed(
                self.recipe.seed, "discriminator dropout", phase, step, self.process_group.rank
            )
        )
        output = self.engine(
            collate_contrasts(mine, pad=self.tokenizer.pad_token_id or 0).to(
                self.process_group.device
            ),
            two_sided,
        )
        self.engine.backward(self.process_group.size * output.loss)
        self.engine.step()
        return output.sums.cpu()

    def _sides(
        self, question: RoundQuestion, *, step: int, phase: str
    ) -> tuple[list[str], list[str]]:
        """The positives and negatives of a question, the latter brought up in number by corrupted
        positives.
        """
        positives = [question.texts[rationale.tokens] for rationale in question.example.positives]
        negatives = [question.texts[rationale.tokens] for rationale in question.example.negatives]
        corrupted = balancing_negatives(
            positives,
            negatives,
            vocabulary=self.words,
            mask=self.mask,
            mask_share=self.config.mask_share,
            replace_share=self.config.replace_share,
            seed=self.recipe.seed,
            key=(phase, step, question.row.question.id),
        )
        return positives, [*negatives, *corrupted]

    def _pairs(self, question: RoundQuestion, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        inputs = [question.row.input] * len(texts)
        return tuple(
            tokenise_pairs(self.tokenizer, inputs, texts, max_tokens=self.config.max_tokens).rows
        )


def mask_word(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands for a masked word: the tokenizer's mask, T5's first blank, or the unknown
    token.
    """
    if tokenizer.mask_token is not None:
        return tokenizer.mask_token
    blank = "<extra_id_0>"
    return blank if blank in tokenizer.get_vocab() else (tokenizer.unk_token or "_")


def score_metrics(questions: Sequence[RoundQuestion]) -> dict[str, float]:
    """How well the scores of a round tell right from wrong, within a source and within a question
    as well: D can learn the source alone, or how hard the question is (METHOD.md section 4).
    """

    def negatives(source: Source) -> list[list[float]]:
        return [[r.score for r in q.example.negatives if r.source == source] for q in questions]

    def own(*truths: bool | None) -> list[list[float]]:
        """The scores of the student's samples, of those that are right, wrong or without an
        answer.
        """
        both = ((q, (*q.example.positives, *q.example.negatives)) for q in questions)
        return [
            [
                r.score
                for r in sides
                if r.source == Source.STUDENT and q.right.get(r.tokens) in truths
            ]
            for q, sides in both
        ]

    positive = [
        [r.score for r in q.example.positives if r.source == Source.TEACHER] for q in questions
    ]
    compared = {
        "auc_teacher": (positive, negatives(Source.TEACHER)),
        "auc_student": (own(True), own(False)),
        "auc_teacher_against_student": (positive, own(True, False, None)),
        "auc_corrupted": (positive, negatives(Source.CORRUPTED)),
        "auc_evolved": (positive, negatives(Source.EVOLVED)),
    }
    found = {}
    for name, (better, worse) in compared.items():
        found[name] = auc(list(chain.from_iterable(better)), list(chain.from_iterable(worse)))
        found[f"{name}_within_question"] = within_question_auc(better, worse)
    everything = [
        (r.score, len(r.tokens))
        for q in questions
        for r in (*q.example.positives, *q.example.negatives)
    ]
    if everything:
        found["score_length_correlation"] = length_correlation(
            *(list(column) for column in zip(*everything, strict=True))
        )
    return {name: value for name, value in found.items() if value is not None}
