"""What every training worker runs: rounds, one after another, in the order of METHOD.md 2b.

negatives of snapshot r - lag -> D's steps -> the round's scores -> the student's steps -> snapshot
r + 1 -> validation -> checkpoint
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import torch
from transformers import AutoTokenizer

from qcrd_ray.data.records import StudentNegative
from qcrd_ray.method.batching import Rounds, global_batch, keyed_seed
from qcrd_ray.method.weights import assign_weights
from qcrd_ray.models.pretrained import pick_device, resolve
from qcrd_ray.tasks import build_task
from qcrd_ray.training.checkpoints import (
    SnapshotStore,
    load_checkpoint,
    save_checkpoint,
    snapshots_kept,
)
from qcrd_ray.training.dataset import (
    RoundQuestion,
    TrainingSet,
    assemble,
    candidates,
    read_validation,
    round_questions,
    rounds_of,
    step_batch,
)
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner, score_metrics
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import MetricsWriter, Timer, keep_scores, round_s
from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds
from qcrd_ray.training.student_learner import Reference, StudentLearner
from qcrd_ray.training.student_negatives import NegativeSampler, NegativesFolder, round_snapshot
from qcrd_ray.training.synthetic_negatives import PRETRAINING, synthesize_negatives
from qcrd_ray.training.validation import Validator

_PROGRESS_EVERY_S = 0.5


def train_worker(job: TrainingJob) -> None:
    """Train from the last checkpoint, or from the start, to the last round. Runs on every worker of
    Ray Train.
    """
    torch.set_num_threads(job.recipe.train.worker.threads)
    disable_operator_builds()
    worker = Worker(job, ProcessGroup.current(ray.train.torch.get_device()))
    first = worker.resume()
    worker.open_metrics(first)
    if first == 0:
        worker.begin()
    for round in range(first, worker.rounds.count):
        worker.round(round)
    worker.close()


def train_in_process(job: TrainingJob) -> None:
    """The same training in this process alone: no Ray Train, no DeepSpeed, no samplers beside it,
    and nothing to resume from.

    Without dropout it learns what :func:`train_worker` learns, whatever the number of workers
    there.
    """
    worker = Worker(job, ProcessGroup.single(torch.device(pick_device("auto"))))
    worker.open_metrics(0)
    worker.begin()
    for round in range(worker.rounds.count):
        worker.round(round)
    worker.close()


class Worker:
    """One worker's share of a training. ``best`` is the best validation so far; it travels in the
    checkpoints.
    """

    def __init__(self, job: TrainingJob, process_group: ProcessGroup):
        recipe = job.recipe
        self.job, self.recipe, self.process_group = job, recipe, process_group
        self.task = build_task(recipe.task)
        self.training_set = TrainingSet(job.data)
        self.rounds: Rounds = rounds_of(recipe, len(self.training_set))
        self.tokenizer = AutoTokenizer.from_pretrained(job.start)
        self.student = StudentLearner(
            recipe,
            job.objective,
            job.start,
            tokenizer=self.tokenizer,
            total_steps=self.rounds.total_steps,
            process_group=process_group,
        )
        self.reference = None
        if job.objective.needs_reference:
            self.reference = Reference(
                recipe,
                job.objective,
                job.start,
                pad=self.tokenizer.pad_token_id,
                process_group=process_group,
            )
        self.discriminator = None
        if job.uses_discriminator:
            start = resolve(recipe.discriminator.model) if recipe.discriminator.model else job.start
            tokenizer = AutoTokenizer.from_pretrained(start)
            self.discriminator = DiscriminatorLearner(
                recipe,
                start,
                tokenizer=tokenizer,
                words=self.training_set.words,
                process_group=process_group,
            )
        self.ring = SnapshotStore(
            job.folder / "snapshots", keep=snapshots_kept(recipe) if job.samples_negatives else 1
        )
        self.negatives = NegativesFolder(job.folder / "negatives", parts=recipe.negatives.samplers)
        self.sampler = (
            NegativeSampler(recipe=recipe, folder=job.folder, data=job.data)
            if process_group.alone
            else None
        )
        limit = recipe.train.validate_.max_questions
        self.validator = Validator(
            recipe,
            read_validation(job.validation, self.task, limit=limit),
            task=self.task,
            heads=job.heads,
            longest=job.longest,
            process_group=process_group,
        )
        self.best: dict[str, Any] | None = None
        self.pretraining: dict[str, float] = {}
        self.metrics: MetricsWriter | None = None
        self._progress_due = 0.0

    def resume(self) -> int:
        """Load the last checkpoint, if there is one. Returns the round to go on with."""
        state = load_checkpoint(self.engines, workers=self.process_group.size)
        self.best = state["best"]
        return state["round"]

    def open_metrics(self, first: int) -> None:
        if self.process_group.rank == 0:
            self.metrics = MetricsWriter(
                self.job.folder, first_round=first, first_step=first * self.rounds.steps_per_round
            )
            self.metrics.progress(
                first * self.rounds.steps_per_round, f"round {first + 1}/{self.rounds.count}"
            )

    @property
    def engines(self) -> dict[str, Any]:
        engines = {"student": self.student.engine}
        return engines | (
            {"discriminator": self.discriminator.engine} if self.discriminator else {}
        )

    def begin(self) -> None:
        """Before the first round: snapshot 0, which samplers wait for, and the discriminator's
        pretraining.
        """
        self._snapshot(0)
        if self.discriminator:
            self._pretrain()

    def _pretrain(self) -> None:
        """D's first steps, on the teacher's rationales of as many questions as they can read."""
        steps, total = self.recipe.discriminator.pretrain_steps, len(self.training_set)
        if steps:
            size = min(total, steps * self.recipe.discriminator.batch_size)
            order = keyed_seed(self.recipe.seed, "pretraining questions")
            indices = global_batch(seed=order, step=0, questions=total, batch_size=size)
            questions = list(self._assemble(sorted(indices), [], round=PRETRAINING).values())
            self.pretraining = self.discriminator.train(questions, steps=steps, phase="pretraining")

    def round(self, round: int) -> None:
        """One round, from its negatives to its checkpoint."""
        timer = Timer()
        row: dict[str, Any] = {"round": round, "step": self.rounds.steps(round)[-1] + 1}
        questions = self._questions(round, timer, row)
        sums, tokens = torch.zeros(len(self.job.objective.sums)), torch.zeros((), dtype=torch.long)
        with timer("student"):
            for step in self.rounds.steps(round):
                batch = [
                    questions[index].example
                    for index in step_batch(self.recipe, len(self.training_set), step)
                ]
                step_sums, step_tokens = self.student.step(step, batch)
                sums += step_sums
                tokens += step_tokens
                self._show(step + 1, round)
        row["learning_rate"] = self.student.learning_rate
        row["student"] = self.job.objective.metrics(self.process_group.sum(sums))
        with timer("snapshot"):
            snapshot = self._snapshot(round + 1)
        if self._validates(round):
            with timer("validation"):
                row["validation"] = self.validator.measure(snapshot)
            self._keep_best(round, row["validation"], snapshot)
        # of the student's steps alone
        row |= {"seconds": timer.seconds, "tokens": int(self.process_group.sum(tokens))}
        if self.metrics:
            self.metrics.round(row)
        if not self.process_group.alone:
            measured = row.get("validation", {})
            save_checkpoint(
                self.engines,
                self.job.folder,
                round=round + 1,
                best=self.best,
                process_group=self.process_group,
                metrics=measured,
            )
        if self.process_group.rank == 0:
            self.ring.forget(round + 1)

    def close(self) -> None:
        if self.metrics:
            self.metrics.close()

    def _questions(self, round: int, timer: Timer, row: dict[str, Any]) -> dict[int, RoundQuestion]:
        """The round's questions with all that it trains on: student negatives, weights from the
        scores after D's steps, references.
        """
        indices = round_questions(self.recipe, self.rounds, round)
        with timer("negatives"):
            negatives = self._student_negatives(round, row) if self.job.samples_negatives else []
            questions = self._assemble(indices, negatives, round=round)
        if self.job.objective.uses_negatives:
            row["negatives"] = row.get("negatives", {}) | candidates(questions.values())
        if self.discriminator:
            questions = self._judge(questions, negatives, round, timer, row)
        if self.job.objective.needs_weights:
            weighed = assign_weights(
                {index: q.example for index, q in questions.items()},
                weights=self.recipe.objective.weights,
            )
            questions = {
                index: replace(question, example=weighed[index])
                for index, question in questions.items()
            }
        if self.reference:
            with timer("reference"):
                questions = self.reference.score(questions)
        return questions

    def _judge(
        self,
        questions: dict[int, RoundQuestion],
        negatives: list[StudentNegative],
        round: int,
        timer: Timer,
        row: dict[str, Any],
    ) -> dict[int, RoundQuestion]:
        """D's steps of the round, with the student samples of older rounds where they are replayed;
        then its scores on every rationale.
        """
        with timer("discriminator"):
            read = questions
            if older := self._replayed(round):
                read = self._assemble(list(questions), [*negatives, *older], round=round)
            steps = self.recipe.discriminator.steps_per_round
            trained = self.discriminator.train(
                list(read.values()), steps=steps, phase=f"round {round}", decays=round
            )
        with timer("scoring"):
            questions = self.discriminator.score(questions)
            if self.process_group.rank == 0:
                keep_scores(self.job.folder, round, list(questions.values()), seed=self.recipe.seed)
        row["discriminator"] = {
            **trained,
            **score_metrics(list(questions.values())),
            "learning_rate": self.discriminator.learning_rate,
        }
        if round == 0:
            row["discriminator"] |= {
                f"pretraining_{name}": value for name, value in self.pretraining.items()
            }
        return questions

    def _assemble(
        self, indices: list[int], negatives: list[StudentNegative], *, round: int
    ) -> dict[int, RoundQuestion]:
        rows = self.training_set.read(indices)
        made = {}
        if self.job.objective.uses_negatives:
            made = {
                index: synthesize_negatives(self.recipe, self.task, row, round=round)
                for index, row in rows.items()
            }
        limit = self.recipe.student.max_target_tokens
        return assemble(
            rows,
            negatives,
            made=made,
            right=self.recipe.negatives.right,
            tokenizer=self.tokenizer,
            max_tokens=limit,
        )

    def _student_negatives(self, round: int, row: dict[str, Any]) -> list[StudentNegative]:
        snapshot = round_snapshot(self.recipe, round)
        if snapshot is None:
            return []
        if self.sampler:
            for part in range(self.recipe.negatives.samplers):
                self.sampler.round(round, part)
        waited = self.negatives.wait(
            round, snapshot=snapshot, timeout_s=self.recipe.negatives.wait_timeout_s
        )
        written = self.negatives.read(round)
        judged = [negative.right for negative in written if negative.right is not None]
        row["negatives"] = {
            "snapshot": snapshot,
            "sampled": len(written),
            "right_share": sum(judged) / len(written) if written else 0.0,
            "unparsed_share": (
                sum(negative.answer is None for negative in written) / len(written)
                if written
                else 0.0
            ),
            "waited_s": round_s(waited),
        }
        return written

    def _replayed(self, round: int) -> list[StudentNegative]:
        """The student negatives of the `discriminator.replay` rounds before this one."""
        rounds = (
            range(max(0, round - self.recipe.discriminator.replay), round)
            if self.job.samples_negatives
            else ()
        )
        return [
            negative
            for past in rounds
            if round_snapshot(self.recipe, past) is not None
            for negative in self.negatives.read(past)
        ]

    def _snapshot(self, snapshot: int) -> Path:
        self.student.save(self.ring.writing(snapshot))
        if self.process_group.rank == 0:
            self.ring.publish(snapshot)
        self.process_group.barrier()
        return self.ring.path(snapshot)

    def _validates(self, round: int) -> bool:
        return (
            round + 1
        ) % self.recipe.train.validate_.every_rounds == 0 or round + 1 == self.rounds.count

    def _keep_best(self, round: int, validation: dict[str, float], snapshot: Path) -> None:
        """Keep the snapshot as best/ where it is better than all before; the earlier of equals
        stays.
        """
        if (
            self.best is not None
            and validation[self.job.choose_by] <= self.best["validation"][self.job.choose_by]
        ):
            return
        self.best = {"round": round, "validation": validation}
        if self.process_group.rank == 0:
            best, writing = self.job.folder / "best", self.job.folder / ".best.writing"
            shutil.rmtree(writing, ignore_errors=True)
            shutil.copytree(snapshot, writing)
            if self.discriminator:
                folder = writing / "discriminator"
                self.discriminator.discriminator.save(
                    folder, max_tokens=self.recipe.discriminator.max_tokens
                )
                self.discriminator.tokenizer.save_pretrained(folder)
            shutil.rmtree(best, ignore_errors=True)
            writing.rename(best)

    def _show(self, step: int, round: int) -> None:
        if self.metrics and time.monotonic() >= self._progress_due:
            self._progress_due = time.monotonic() + _PROGRESS_EVERY_S
            self.metrics.progress(step, f"round {round + 1}/{self.rounds.count}")
