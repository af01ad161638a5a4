"""What comes before a round's student steps: the questions that they learn from.

negatives of snapshot r - lag -> D's steps -> scores -> weights -> references
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from qcrd_ray.data.records import StudentNegative
from qcrd_ray.method.batching import Rounds, global_batch, keyed_seed
from qcrd_ray.method.weights import assign_weights
from qcrd_ray.models.pretrained import read_tokenizer
from qcrd_ray.tasks.base import Task
from qcrd_ray.training.dataset import RoundQuestion, TrainingSet, assemble, count_sources
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner, score_metrics
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import Timer, keep_scores
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.student_learner import Reference
from qcrd_ray.training.student_negatives import RoundNegatives, round_snapshot
from qcrd_ray.training.synthetic_negatives import PRETRAINING, synthesize_all

Metrics = dict[str, dict[str, Any]]


class RoundQuestions:
    """Makes the questions of each round, with all that the objective needs of their rationales.

    ``show`` is called with a phase and how far it is. ``merged``: see
    :func:`qcrd_ray.training.engines.start_engine`, of the discriminator.
    """

    def __init__(
        self,
        job: TrainingJob,
        *,
        training_set: TrainingSet,
        rounds: Rounds,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        reference: Reference | None,
        process_group: ProcessGroup,
        merged: bool,
        show: Callable[..., None],
    ):
        self.job, self.recipe, self.process_group = job, job.recipe, process_group
        self.training_set, self.rounds, self.task = training_set, rounds, task
        self.tokenizer, self.reference, self._show = tokenizer, reference, show
        self.discriminator = self._build_discriminator(merged) if job.uses_discriminator else None
        self.negatives = None
        if job.samples_negatives:
            self.negatives = RoundNegatives(
                self.recipe, job.folder, job.data, alone=process_group.alone
            )
        self.pretraining_metrics: dict[str, float] = {}

    def _build_discriminator(self, merged: bool) -> DiscriminatorLearner:
        """On the student's start, or on a model of its own, whose code is never trusted."""
        config, start = self.recipe.discriminator, self.job.discriminator_start
        trust = self.recipe.student.trust_remote_code and config.model is None
        return DiscriminatorLearner(
            start,
            config,
            self.recipe.train,
            task=self.task,
            tokenizer=read_tokenizer(start, trust_remote_code=trust),
            words=self.training_set.words,
            seed=self.recipe.seed,
            trust_remote_code=trust,
            process_group=self.process_group,
            merged=merged,
        )

    def pretrain(self) -> None:
        """D's first steps, on the teacher's rationales of as many questions as they can read."""
        steps, total = self.recipe.discriminator.pretrain_steps, len(self.training_set)
        if self.discriminator and steps:
            phase = "pretraining the discriminator"
            self._show(phase, f"0/{steps}")
            size = min(total, steps * self.recipe.discriminator.batch_size)
            order = keyed_seed(self.recipe.seed, "pretraining questions")
            indices = global_batch(seed=order, step=0, questions=total, batch_size=size)
            questions = list(self._assemble(sorted(indices), [], round=PRETRAINING).values())
            self.pretraining_metrics = self.discriminator.train(
                questions,
                steps=steps,
                phase="pretraining",
                on_step=lambda done: self._show(phase, f"{done}/{steps}"),
            )

    def of_round(
        self, round: int, name: str, timer: Timer, *, before: Metrics | None
    ) -> tuple[dict[int, RoundQuestion], Metrics]:
        """The round's questions with student negatives, and weights and references if needed.

        Returns them with the "negatives" and "discriminator" entries of the round's row of metrics.
        ``before`` are these entries of a round that goes on: D has made its steps, and only scores.
        """
        metrics: Metrics = {}
        with timer("negatives"):
            negatives, sampled = [], {}
            if self.negatives and round_snapshot(self.recipe, round) is not None:
                self._show(f"{name}, student negatives")
                negatives, sampled = self.negatives.read(round)
            indices = self.rounds.question_indices(round)
            questions = self._assemble(indices, negatives, round=round)
        if self.job.objective.uses_negatives:
            metrics["negatives"] = sampled | count_sources(questions.values())
        if self.discriminator:
            trained = {}
            if before is None:
                trained = self._train(self.discriminator, questions, negatives, round, name, timer)
            questions, scored = self._score(self.discriminator, questions, round, name, timer)
            metrics["discriminator"] = trained | scored
        if self.job.objective.needs_weights:
            weighted = assign_weights(
                {index: question.example for index, question in questions.items()},
                weights=self.recipe.objective.weights,
            )
            questions = {
                index: replace(question, example=weighted[index])
                for index, question in questions.items()
            }
        if self.reference and not self.job.objective_of(round).sft:
            self._show(f"{name}, scoring under the reference")
            with timer("reference"):
                questions = self.reference.score(questions)
        return questions, metrics if before is None else before

    def _train(
        self,
        discriminator: DiscriminatorLearner,
        questions: dict[int, RoundQuestion],
        negatives: list[StudentNegative],
        round: int,
        name: str,
        timer: Timer,
    ) -> dict[str, float]:
        """D's steps of the round, and their metrics.

        They also read the student samples of older rounds where these are replayed.
        """
        with timer("discriminator"):
            steps, phase = self.recipe.discriminator.steps_per_round, f"{name}, discriminator"
            seen = questions
            if self.negatives and (older := self.negatives.replayed(round)):
                seen = self._assemble(list(questions), [*negatives, *older], round=round)
            return discriminator.train(
                list(seen.values()),
                steps=steps,
                phase=f"round {round}",
                decays=round,
                on_step=lambda done: self._show(phase, f"{done}/{steps}"),
            )

    def _score(
        self,
        discriminator: DiscriminatorLearner,
        questions: dict[int, RoundQuestion],
        round: int,
        name: str,
        timer: Timer,
    ) -> tuple[dict[int, RoundQuestion], dict[str, float]]:
        """The questions with D's scores on every rationale, and the metrics of these."""
        self._show(f"{name}, scoring rationales")
        with timer("scoring"):
            questions = discriminator.score(questions)
            if self.process_group.rank == 0:
                keep_scores(self.job.folder, round, list(questions.values()), seed=self.recipe.seed)
        metrics = {
            **score_metrics(list(questions.values())),
            "learning_rate": discriminator.learning_rate,
        }
        if round == 0:
            pretraining = self.pretraining_metrics
            metrics |= {f"pretraining_{key}": value for key, value in pretraining.items()}
        return questions, metrics

    def _assemble(
        self, indices: list[int], negatives: list[StudentNegative], *, round: int
    ) -> dict[int, RoundQuestion]:
        rows = self.training_set.read(indices)
        synthetic = {}
        if self.job.objective.uses_negatives:
            synthetic = synthesize_all(self.recipe, self.task, self.tokenizer, rows, round=round)
        return assemble(
            rows,
            negatives,
            synthetic=synthetic,
            right=self.recipe.negatives.right,
            tokenizer=self.tokenizer,
            max_tokens=self.recipe.student.max_target_tokens,
        )
