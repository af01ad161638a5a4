"""Answers and samples of several models to the same questions, by a pool of Ray actors.

Starting an actor takes seconds (mostly imports), so the pool is started once, and an actor loads
the weights of the next model into its engine. An actor holds nothing that it cannot build again:
Ray may restart one that died, and repeat its job.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray.util import ActorPool

from qcrd_ray.cluster.resources import wait_for_resources
from qcrd_ray.data.records import Question
from qcrd_ray.inference import Engine, load_engine
from qcrd_ray.inference.evidence import EvidenceReader
from qcrd_ray.inference.heads import Head, HeadAnswer, answer_questions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.inference.voting import Samples, ballot_of, load_reader, sample
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks import build_task

RETRIES = 3  # of an actor that died

Wanted = Head | Literal["samples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """Questions for one model: the greedy answers of a head, or its `samples` with the evidence.

    ``key`` is the caller's number for them. ``base`` is the model that ``model`` was trained from,
    for samples of which the judge asks how likely they are under it.
    """

    key: int
    model: str
    wanted: Wanted
    questions: tuple[Question, ...]
    base: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswers:
    """The result of ``job``, in the order of its questions: ``answers`` of a head, or ``samples``.

    ``seconds`` is what it took, without loading weights.
    """

    job: AnswerJob
    answers: tuple[HeadAnswer, ...] = ()
    samples: tuple[Samples, ...] = ()
    seconds: float = 0.0


class Answerer:
    """One actor of the pool: an engine, and the name of the model whose weights it holds."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        torch.set_num_threads(recipe.evaluate.worker.cores)
        self.recipe, self.task = recipe, build_task(recipe.task)
        self.engine: Engine | None = None
        self.readers: dict[str | None, EvidenceReader] = {}  # by the base that they load
        self.model = ""

    @ray.method
    def answer(self, job: AnswerJob) -> JobAnswers:
        """Answer the questions of ``job``, after loading its model if another one is loaded."""
        engine = self._engine(job.model)
        if job.wanted == "samples":
            assert isinstance(engine, TransformersEngine), "whose model reads its own samples"
            # it reads on the engine's own model, whose weights are swapped in place
            if job.base not in self.readers:
                self.readers[job.base] = load_reader(self.recipe, self.task, engine, base=job.base)
            reader = self.readers[job.base]
            began = time.monotonic()
            samples = sample(engine, reader, job.questions, ballot=ballot_of(self.recipe))
            return JobAnswers(job=job, samples=tuple(samples), seconds=time.monotonic() - began)
        began = time.monotonic()
        answers = answer_questions(
            engine,
            self.task,
            job.questions,
            head=job.wanted,
            max_tokens=self.recipe.student.max_target_tokens,
        )
        return JobAnswers(job=job, answers=tuple(answers), seconds=time.monotonic() - began)

    def _engine(self, model: str) -> Engine:
        student = self.recipe.student
        if self.engine is None:
            self.engine = load_engine(
                model,
                batch_size=self.recipe.evaluate.batch_size,
                max_input_tokens=student.max_input_tokens,
                trust_remote_code=student.trust_remote_code,
            )
        elif model != self.model:
            self.engine.load_weights(model)
        self.model = model
        return self.engine


def run_pool(recipe: Recipe, jobs: Sequence[AnswerJob]) -> Iterator[JobAnswers]:
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
        what="answering questions (evaluate.workers)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    actor = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES, **settings.worker.options)(
        Answerer
    )
    actors = [actor.remote(recipe) for _ in range(workers)]
    try:
        # the stub has map_unordered return a list of lists
        answers: Any = ActorPool(actors).map_unordered(
            lambda answerer, job: answerer.answer.remote(job), list(jobs)
        )
        yield from answers
    finally:
        for answerer in actors:
            ray.kill(answerer)  # pyright: ignore[reportArgumentType]  # the stub wants no proxy


def split_jobs(
    key: int,
    model: str | Path,
    wanted: Wanted,
    questions: Sequence[Question],
    *,
    size: int,
    base: str | Path | None = None,
) -> list[AnswerJob]:
    """Jobs of at most ``size`` questions each, in the order of the questions."""
    chunks = (tuple(questions[first : first + size]) for first in range(0, len(questions), size))
    return [
        AnswerJob(
            key=key,
            model=str(model),
            wanted=wanted,
            questions=chunk,
            base=None if base is None else str(base),
        )
        for chunk in chunks
    ]
