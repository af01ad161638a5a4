"""Answers of several models to the same questions, by a pool of Ray actors.

Starting an actor takes seconds (mostly imports), so the pool is started once, and an actor loads
the weights of the next model into its engine. An actor holds nothing that it cannot build again:
Ray may restart one that died, and repeat its job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util import ActorPool

from qcrd_ray.cluster.resources import wait_for_resources
from qcrd_ray.data.records import Question
from qcrd_ray.inference import Engine, load_engine
from qcrd_ray.inference.heads import Head, HeadAnswer, answer_questions
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks import build_task

RETRIES = 3  # of an actor that died


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationJob:
    """Questions for one head of one model. ``key`` is the caller's number for them."""

    key: int
    model: str
    head: Head
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswers:
    """The answers to the questions of ``job``, in their order."""

    job: EvaluationJob
    answers: tuple[HeadAnswer, ...]


class Evaluator:
    """One actor of the pool: an engine, and the name of the model whose weights it holds."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        torch.set_num_threads(recipe.evaluate.worker.cores)
        self.recipe, self.task = recipe, build_task(recipe.task)
        self.engine: Engine | None = None
        self.model = ""

    @ray.method
    def answer(self, job: EvaluationJob) -> JobAnswers:
        """Answer the questions of ``job``, after loading its model if another one is loaded."""
        student = self.recipe.student
        if self.engine is None:
            self.engine = load_engine(
                job.model,
                batch_size=self.recipe.evaluate.batch_size,
                max_input_tokens=student.max_input_tokens,
                trust_remote_code=student.trust_remote_code,
            )
        elif job.model != self.model:
            self.engine.load_weights(job.model)
        self.model = job.model
        answers = answer_questions(
            self.engine,
            self.task,
            job.questions,
            head=job.head,
            max_tokens=student.max_target_tokens,
        )
        return JobAnswers(job=job, answers=tuple(answers))


def run_pool(recipe: Recipe, jobs: Sequence[EvaluationJob]) -> Iterator[JobAnswers]:
    """Answer all ``jobs``; each is yielded as soon as it is finished, in any order.

    Raises:
        MissingResource: the cluster cannot give the pool what `evaluate` asks for.
    """
    if not jobs:
        return
    settings = recipe.evaluate
    workers = min(settings.workers, len(jobs))
    wait_for_resources(
        [settings.worker.bundle] * workers,
        what="evaluation (evaluate.workers)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    actor = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES, **settings.worker.options)(
        Evaluator
    )
    actors = [actor.remote(recipe) for _ in range(workers)]
    try:
        # the stub has map_unordered return a list of lists
        answers: Any = ActorPool(actors).map_unordered(
            lambda evaluator, job: evaluator.answer.remote(job), list(jobs)
        )
        yield from answers
    finally:
        for evaluator in actors:
            ray.kill(evaluator)  # pyright: ignore[reportArgumentType]  # the stub wants no proxy


def split_jobs(
    key: int, model: str | Path, head: Head, questions: Sequence[Question], *, size: int
) -> list[EvaluationJob]:
    """Jobs of at most ``size`` questions each, in the order of the questions."""
    chunks = (tuple(questions[first : first + size]) for first in range(0, len(questions), size))
    return [
        EvaluationJob(key=key, model=str(model), head=head, questions=chunk) for chunk in chunks
    ]
