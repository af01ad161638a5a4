"""The training worker: rounds, one after another, in the order of METHOD.md 2b.

negatives of snapshot r - lag -> D's steps -> the round's scores -> the student's steps
-> snapshot r + 1 -> validation -> checkpoint
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from qcrd_ray.method.tokenization import pad_id
from qcrd_ray.models.pretrained import pick_device, read_tokenizer
from qcrd_ray.runs.files import atomic_folder
from qcrd_ray.runs.results import RoundMetrics
from qcrd_ray.tasks import build_task
from qcrd_ray.training.checkpoints import (
    Best,
    Checkpoint,
    RoundSoFar,
    SnapshotStore,
    find_checkpoint,
    is_better,
    save_checkpoint,
    snapshots_kept,
)
from qcrd_ray.training.dataset import RoundQuestion, TrainingSet, read_validation, rounds_of
from qcrd_ray.training.discriminator_probe import probe
from qcrd_ray.training.divergence import FiniteLosses, check_runaway
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import MetricsWriter, Timer
from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds, use_tf32
from qcrd_ray.training.round_questions import Metrics, RoundQuestions
from qcrd_ray.training.student_learner import Reference, StudentLearner
from qcrd_ray.training.validation import Validator


def train_worker(job: TrainingJob) -> None:
    """Train from the last checkpoint, or from the start, to the last round.

    Ray Train runs it on every worker.
    """
    import ray.train.torch  # here, because a training in one process needs no Ray

    torch.set_num_threads(job.recipe.train.worker.threads)
    use_tf32(job.recipe.train.tf32)
    disable_operator_builds()
    process_group = ProcessGroup.current(ray.train.torch.get_device())
    Worker(job, process_group, checkpoint=find_checkpoint(job.folder, process_group)).run()


def train_in_process(job: TrainingJob) -> None:
    """The same training in this process alone.

    There is no Ray Train, no DeepSpeed, no sampler beside it, and nothing to resume from. Without
    dropout it learns what :func:`train_worker` learns, whatever the number of workers there.
    """
    use_tf32(job.recipe.train.tf32)
    Worker(job, ProcessGroup.single(pick_device("auto"))).run()


class Worker:
    """One worker's share of a training, which goes on from ``checkpoint``; None: from the start.

    ``best`` is the best validation so far; it is kept in the checkpoints.
    """

    def __init__(
        self, job: TrainingJob, process_group: ProcessGroup, checkpoint: Checkpoint | None = None
    ):
        merged = checkpoint.merged if checkpoint else frozenset()
        recipe, student = job.recipe, job.recipe.student
        self.job, self.recipe, self.process_group = job, recipe, process_group
        task, training_set = build_task(recipe.task), TrainingSet(job.data)
        self.rounds = rounds_of(recipe, len(training_set))
        tokenizer = read_tokenizer(job.start, trust_remote_code=student.trust_remote_code)
        self.student = StudentLearner(
            job.start,
            student,
            recipe.train,
            objective=job.objective,
            tokenizer=tokenizer,
            total_steps=self.rounds.total_steps,
            seed=recipe.seed,
            process_group=process_group,
            merged="student" in merged,
        )
        self.snapshots = SnapshotStore(
            job.folder / "snapshots",
            keep=snapshots_kept(recipe) if job.samples_negatives else 1,
            always=job.reference_snapshot,
        )
        reference = None
        if job.objective.needs_reference:
            before_pairs = job.reference_snapshot
            reference = Reference(
                self.snapshots.path(before_pairs) if before_pairs else job.start,
                student,
                recipe.train,
                objective=job.objective,
                pad=pad_id(tokenizer),
                process_group=process_group,
            )
        self.questions = RoundQuestions(
            job,
            training_set=training_set,
            rounds=self.rounds,
            task=task,
            tokenizer=tokenizer,
            reference=reference,
            process_group=process_group,
            merged="discriminator" in merged,
            show=self._show,
        )
        self.discriminator = self.questions.discriminator
        self.validator = Validator(
            student,
            read_validation(job.validation, task, limit=recipe.train.validate_.max_questions),
            task=task,
            heads=job.heads,
            process_group=process_group,
        )
        self.first = 0
        self.so_far: RoundSoFar | None = None
        self.best: Best | None = None
        if checkpoint:
            checkpoint.load(self.engines)
            state = checkpoint.state
            self.first, self.so_far, self.best = state["round"], state["so_far"], state["best"]
        self.steps_done = (
            self.so_far["step"] if self.so_far else self.first * self.rounds.steps_per_round
        )
        self.metrics: MetricsWriter | None = None  # of rank 0
        self.saving_s = 0.0  # of the checkpoint that ended the last round

    @property
    def engines(self) -> dict[str, Any]:
        """The engines whose states a checkpoint holds, by name."""
        engines = {"student": self.student.engine}
        return engines | (
            {"discriminator": self.discriminator.engine} if self.discriminator else {}
        )

    def run(self) -> None:
        """Train to the last round."""
        if self.process_group.rank == 0:
            self.metrics = MetricsWriter(
                self.job.folder, first_round=self.first, first_step=self.steps_done
            )
        if self.first == 0 and not self.so_far:
            self._snapshot(0)  # before pretraining: the samplers wait for it
            self.questions.pretrain()
        for round in range(self.first, self.rounds.count):
            self.round(round)
        if self.metrics:
            self.metrics.close()

    def round(self, round: int) -> None:
        """One round, from its negatives, or from where a checkpoint left it, to its checkpoint."""
        so_far, self.so_far = self.so_far, None
        timer = Timer()
        timer.seconds.update(so_far["seconds"] if so_far else {"checkpoint": self.saving_s})
        name = f"round {round + 1}/{self.rounds.count}"
        self.student.objective = self.job.objective_of(round)
        questions, before = self.questions.of_round(
            round, name, timer, before=so_far["before"] if so_far else None
        )
        student, tokens = self._train_student(round, questions, name, timer, before, so_far)
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
            "tokens": tokens,  # of the student's steps alone
        }
        if "negatives" in before:
            row["negatives"] = before["negatives"]
        if "discriminator" in before:
            row["discriminator"] = before["discriminator"]
        if validation:
            row["validation"] = validation
        if self.metrics:
            self.metrics.round(row)
        saved = Timer()
        with saved("checkpoint"):  # after the round's row is written, so the next one's tells it
            self._save(round + 1, validation)
        self.saving_s = saved.seconds["checkpoint"]
        if self.process_group.rank == 0:
            self.snapshots.prune(round + 1)

    def _train_student(
        self,
        round: int,
        questions: dict[int, RoundQuestion],
        name: str,
        timer: Timer,
        before: Metrics,
        so_far: RoundSoFar | None,
    ) -> tuple[dict[str, float], int]:
        """The student's steps of the round, or what is left of them.

        Returns their metrics, and how many tokens they read, over all workers.
        """
        objective, device = self.student.objective, self.process_group.device
        sums = torch.zeros(len(objective.sums), device=device)
        tokens = torch.zeros((), dtype=torch.long, device=device)
        if so_far and self.process_group.rank == 0:
            sums, tokens = sums + torch.tensor(so_far["sums"]).to(device), tokens + so_far["tokens"]
        losses = FiniteLosses(self.process_group)
        total, read = sums, 0
        every = self.recipe.train.checkpoint_every_steps
        for steps in self.rounds.stretches(round, every, first=so_far["step"] if so_far else None):
            with timer("student"):
                for step in steps:
                    batch = [questions[index].example for index in self.rounds.batch(step)]
                    step_sums, step_tokens = self.student.step(step, batch)
                    sums, tokens = sums + step_sums, tokens + step_tokens
                    losses.see(step, step_sums)
                    self.steps_done = step + 1
                    self._show(name)
                # reading them waits for the steps, which a GPU may still be at
                losses.check()
                total, read = self.process_group.sum(sums), int(self.process_group.sum(tokens))
            if steps.stop < self.rounds.steps(round).stop:
                self._save(
                    round,
                    {},
                    so_far={
                        "step": steps.stop,
                        "before": before,
                        "sums": total.tolist(),
                        "tokens": read,
                        "seconds": timer.seconds,
                    },
                )
        means = objective.metrics(total)
        vocabulary = self.student.student.config.get_text_config().vocab_size
        action = self.recipe.train.runaway
        check_runaway(means, round=round, vocabulary=vocabulary, action=action)
        return means, read

    def _save(
        self, round: int, metrics: dict[str, float], so_far: RoundSoFar | None = None
    ) -> None:
        """Write the checkpoint that continues with ``round``; one process alone has none."""
        if not self.process_group.alone:
            save_checkpoint(
                self.engines,
                self.job.folder,
                {"round": round, "so_far": so_far, "best": self.best},
                process_group=self.process_group,
                metrics=metrics,
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
        """Keep the snapshot as best/ if it is better than all before."""
        key = self.job.choose_by
        if self.best and not is_better(validation[key], than=self.best["validation"][key]):
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
