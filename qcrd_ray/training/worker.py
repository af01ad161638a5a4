"""The training worker: rounds, one after another, in the order of METHOD.md 2b.

negatives of snapshot r - lag -> D's steps -> the round's scores -> the student's steps
-> snapshot r + 1 -> validation -> checkpoint
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from qcrd_ray.data.records import StudentNegative
from qcrd_ray.method.batching import global_batch, keyed_seed
from qcrd_ray.method.tokenization import pad_id
from qcrd_ray.method.weights import assign_weights
from qcrd_ray.models.pretrained import pick_device, read_tokenizer, resolve
from qcrd_ray.run.files import atomic_folder
from qcrd_ray.run.results import RoundMetrics
from qcrd_ray.tasks import build_task
from qcrd_ray.training.checkpoints import (
    Best,
    SnapshotStore,
    load_checkpoint,
    save_checkpoint,
    snapshots_kept,
)
from qcrd_ray.training.dataset import (
    RoundQuestion,
    TrainingSet,
    assemble,
    count_sources,
    read_validation,
    rounds_of,
)
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner, score_metrics
from qcrd_ray.training.discriminator_probe import probe
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import MetricsWriter, Timer, keep_scores
from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds
from qcrd_ray.training.student_learner import Reference, StudentLearner
from qcrd_ray.training.student_negatives import (
    RoundNegatives,
    round_snapshot,
)
from qcrd_ray.training.synthetic_negatives import PRETRAINING, synthesize_all
from qcrd_ray.training.validation import Validator


def train_worker(job: TrainingJob) -> None:
    """Train from the last checkpoint, or from the start, to the last round.

    Ray Train runs it on every worker.
    """
    torch.set_num_threads(job.recipe.train.worker.threads)
    disable_operator_builds()
    worker = Worker(job, ProcessGroup.current(ray.train.torch.get_device()))
    worker.run(first=worker.resume())


def train_in_process(job: TrainingJob) -> None:
    """The same training in this process alone.

    There is no Ray Train, no DeepSpeed, no sampler beside it, and nothing to resume from. Without
    dropout it learns what :func:`train_worker` learns, whatever the number of workers there.
    """
    Worker(job, ProcessGroup.single(pick_device("auto"))).run()


class Worker:
    """One worker's share of a training.

    ``best`` is the best validation so far; it is kept in the checkpoints.
    """

    def __init__(self, job: TrainingJob, process_group: ProcessGroup):
        recipe, student = job.recipe, job.recipe.student
        self.job, self.recipe, self.process_group = job, recipe, process_group
        self.task = build_task(recipe.task)
        self.training_set = TrainingSet(job.data)
        self.rounds = rounds_of(recipe, len(self.training_set))
        self.tokenizer = read_tokenizer(job.start, trust_remote_code=student.trust_remote_code)
        self.student = StudentLearner(
            job.start,
            student,
            recipe.train,
            objective=job.objective,
            tokenizer=self.tokenizer,
            total_steps=self.rounds.total_steps,
            seed=recipe.seed,
            process_group=process_group,
        )
        self.snapshots = SnapshotStore(
            job.folder / "snapshots",
            keep=snapshots_kept(recipe) if job.samples_negatives else 1,
            always=job.reference_snapshot,
        )
        self.reference = None
        if job.objective.needs_reference:
            before_pairs = job.reference_snapshot
            self.reference = Reference(
                self.snapshots.path(before_pairs) if before_pairs else job.start,
                student,
                recipe.train,
                objective=job.objective,
                pad=pad_id(self.tokenizer),
                process_group=process_group,
            )
        self.discriminator = self._build_discriminator() if job.uses_discriminator else None
        self.negatives = None
        if job.samples_negatives:
            self.negatives = RoundNegatives(recipe, job.folder, job.data, alone=process_group.alone)
        self.validator = Validator(
            student,
            read_validation(job.validation, self.task, limit=recipe.train.validate_.max_questions),
            task=self.task,
            heads=job.heads,
            process_group=process_group,
        )
        self.best: Best | None = None
        self.steps_done = 0
        self.pretraining_metrics: dict[str, float] = {}
        self.metrics: MetricsWriter | None = None  # of rank 0

    def _build_discriminator(self) -> DiscriminatorLearner:
        """On the student's start, or on a model of its own, whose code is never trusted."""
        config = self.recipe.discriminator
        start = resolve(config.model) if config.model else self.job.start
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
        )

    @property
    def engines(self) -> dict[str, Any]:
        """The engines whose states a checkpoint holds, by name."""
        engines = {"student": self.student.engine}
        return engines | (
            {"discriminator": self.discriminator.engine} if self.discriminator else {}
        )

    def resume(self) -> int:
        """Load the last checkpoint, if there is one. Returns the round to continue with."""
        state = load_checkpoint(self.engines, workers=self.process_group.size)
        self.best = state["best"]
        return state["round"]

    def run(self, first: int = 0) -> None:
        """Train from round ``first`` to the last one."""
        self.steps_done = first * self.rounds.steps_per_round
        if self.process_group.rank == 0:
            self.metrics = MetricsWriter(
                self.job.folder, first_round=first, first_step=self.steps_done
            )
        if first == 0:
            self._snapshot(0)  # before pretraining: the samplers wait for it
            if self.discriminator:
                self._pretrain(self.discriminator)
        for round in range(first, self.rounds.count):
            self.round(round)
        if self.metrics:
            self.metrics.close()

    def _pretrain(self, discriminator: DiscriminatorLearner) -> None:
        """D's first steps, on the teacher's rationales of as many questions as they can read."""
        steps, total = self.recipe.discriminator.pretrain_steps, len(self.training_set)
        if steps:
            phase = "pretraining the discriminator"
            self._show(phase, f"0/{steps}")
            size = min(total, steps * self.recipe.discriminator.batch_size)
            order = keyed_seed(self.recipe.seed, "pretraining questions")
            indices = global_batch(seed=order, step=0, questions=total, batch_size=size)
            questions = list(self._assemble(sorted(indices), [], round=PRETRAINING).values())
            self.pretraining_metrics = discriminator.train(
                questions,
                steps=steps,
                phase="pretraining",
                on_step=lambda done: self._show(phase, f"{done}/{steps}"),
            )

    def round(self, round: int) -> None:
        """One round, from its negatives to its checkpoint."""
        timer = Timer()
        name = f"round {round + 1}/{self.rounds.count}"
        self.student.objective = objective = self.job.objective_of(round)
        questions, before = self._round_questions(round, name, timer)
        sums, tokens = torch.zeros(len(objective.sums)), torch.zeros((), dtype=torch.long)
        with timer("student"):
            for step in self.rounds.steps(round):
                batch = [questions[index].example for index in self.rounds.batch(step)]
                step_sums, step_tokens = self.student.step(step, batch)
                sums += step_sums
                tokens += step_tokens
                self.steps_done = step + 1
                self._show(name)
        student = objective.metrics(self.process_group.sum(sums))
        with timer("snapshot"):
            snapshot = self._snapshot(round + 1)
        validation: dict[str, float] = {}
        if self._validates(round):
            self._show(f"{name}, validating")
            with timer("validation"):
                validation = self.validator.measure(snapshot)
            if self.discriminator:
                with timer("probe"):
                    before["discriminator"] |= probe(
                        self.discriminator, self.validator, snapshot, seed=self.recipe.seed
                    )
            self._keep_best(round, validation, snapshot)
        row: RoundMetrics = {
            "round": round,
            "step": self.steps_done,
            "learning_rate": self.student.learning_rate,
            "student": student,
            "seconds": timer.seconds,
            "tokens": int(self.process_group.sum(tokens)),  # of the student's steps alone
        }
        if "negatives" in before:
            row["negatives"] = before["negatives"]
        if "discriminator" in before:
            row["discriminator"] = before["discriminator"]
        if validation:
            row["validation"] = validation
        if self.metrics:
            self.metrics.round(row)
        if not self.process_group.alone:
            save_checkpoint(
                self.engines,
                self.job.folder,
                round=round + 1,
                best=self.best,
                process_group=self.process_group,
                metrics=validation,
            )
        if self.process_group.rank == 0:
            self.snapshots.prune(round + 1)

    def _round_questions(
        self, round: int, name: str, timer: Timer
    ) -> tuple[dict[int, RoundQuestion], dict[str, dict[str, Any]]]:
        """The round's questions with student negatives, and weights and references if needed.

        Returns them with the "negatives" and "discriminator" entries of the round's row of metrics.
        """
        metrics: dict[str, dict[str, Any]] = {}
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
            questions, metrics["discriminator"] = self._score(
                self.discriminator, questions, negatives, round, name, timer
            )
        if self.job.objective.needs_weights:
            weighted = assign_weights(
                {index: question.example for index, question in questions.items()},
                weights=self.recipe.objective.weights,
            )
            questions = {
                index: replace(question, example=weighted[index])
                for index, question in questions.items()
            }
        if self.reference and not self.student.objective.sft:
            self._show(f"{name}, scoring under the reference")
            with timer("reference"):
                questions = self.reference.score(questions)
        return questions, metrics

    def _score(
        self,
        discriminator: DiscriminatorLearner,
        questions: dict[int, RoundQuestion],
        negatives: list[StudentNegative],
        round: int,
        name: str,
        timer: Timer,
    ) -> tuple[dict[int, RoundQuestion], dict[str, float]]:
        """D's steps of the round, then its scores on every rationale, and its metrics.

        Its steps also read the student samples of older rounds where they are replayed.
        """
        with timer("discriminator"):
            steps, phase = self.recipe.discriminator.steps_per_round, f"{name}, discriminator"
            seen = questions
            if self.negatives and (older := self.negatives.replayed(round)):
                seen = self._assemble(list(questions), [*negatives, *older], round=round)
            trained = discriminator.train(
                list(seen.values()),
                steps=steps,
                phase=f"round {round}",
                decays=round,
                on_step=lambda done: self._show(phase, f"{done}/{steps}"),
            )
        self._show(f"{name}, scoring rationales")
        with timer("scoring"):
            questions = discriminator.score(questions)
            if self.process_group.rank == 0:
                keep_scores(self.job.folder, round, list(questions.values()), seed=self.recipe.seed)
        metrics = {
            **trained,
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

    def _snapshot(self, snapshot: int) -> Path:
        self.student.save(self.snapshots.staging(snapshot))
        if self.process_group.rank == 0:
            self.snapshots.publish(snapshot)
        self.process_group.barrier()
        return self.snapshots.path(snapshot)

    def _validates(self, round: int) -> bool:
        last = round + 1 == self.rounds.count
        return last or (round + 1) % self.recipe.train.validate_.every_rounds == 0

    def _keep_best(self, round: int, validation: dict[str, float], snapshot: Path) -> None:
        """Keep the snapshot as best/ if it is better than all before; of equals the earliest."""
        key = self.job.choose_by
        if self.best is not None and validation[key] <= self.best["validation"][key]:
            return
        self.best = {"round": round, "validation": validation}
        if self.process_group.rank == 0:
            with atomic_folder(self.job.folder / "best") as folder:
                shutil.copytree(snapshot, folder, dirs_exist_ok=True)
                if self.discriminator:
                    self.discriminator.save(folder / "discriminator")

    def _show(self, phase: str, count: str = "") -> None:
        """Report the student's steps done, and what is being done now, to the driver."""
        if self.metrics:
            self.metrics.progress(self.steps_done, phase, count)
