"""Answers of several models to the same questions, by a pool of Ray actors.

Starting an actor costs seconds (imports, mostly), so the pool is started once: an actor takes the
weights of the next model into the
engine that it has. What an actor knows it can build again, so Ray may restart one that died and
repeat what it had in hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.util import ActorPool

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.data.records import Question
from qcrd_ray.inference import Engine, load_engine
from qcrd_ray.inference.heads import Head, HeadAnswer, ask
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks import build_task

RETRIES = 3  # of an actor that died


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationJob:
    """Questions for one head of one model. ``key`` is the caller's name for it."""

    key: int
    model: str
    head: Head
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The answers to ``work``, in the order of its questions."""

    work: EvaluationJob
    answers: tuple[HeadAnswer, ...]


class Evaluator:
    """One actor of the pool: an engine, and the model whose weights it holds."""

    def __init__(self, recipe: Recipe) -> None:
        import torch

        torch.set_num_threads(recipe.evaluate.worker.cores)
        self.recipe, self.task = recipe, build_task(recipe.task)
        self.engine: Engine | None = None
        self.model = ""

    def answer(self, work: EvaluationJob) -> Done:
        student = self.recipe.student
        if self.engine is None:
            self.engine = load_engine(
                work.model,
                batch_size=self.recipe.evaluate.batch_size,
                max_input_tokens=student.max_input_tokens,
                trust_remote_code=student.trust_remote_code,
            )
        elif work.model != self.model:
            self.engine.load_weights(work.model)
        self.model = work.model
        answers = ask(
            self.engine,
            self.task,
            work.questions,
            head=work.head,
            max_tokens=student.max_target_tokens,
        )
        return Done(work=work, answers=tuple(answers))


def run_pool(recipe: Recipe, work: Sequence[EvaluationJob]) -> Iterator[Done]:
    """Answer all ``work``; what is finished is yielded at once, in any order.

    Raises:
        MissingResource: the cluster cannot give the pool what `evaluate` asks for.
    """
    if not work:
        return
    wanted = recipe.evaluate
    workers = min(wanted.workers, len(work))
    cluster.wait_for_resources(
        [wanted.worker.bundle] * workers,
        what="evaluation (evaluate.workers)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    actor = ray.remote(max_restarts=RETRIES, max_task_retries=RETRIES, **wanted.worker.options)(
        Evaluator
    )
    actors = [actor.remote(recipe) for _ in range(workers)]
    try:
        yield from ActorPool(actors).map_unordered(
            lambda evaluator, item: evaluator.answer.remote(item), work
        )
    finally:
        for each in actors:
            ray.kill(each)


def share_out(
    key: int, model: str | Path, head: Head, questions: Sequence[Question], *, size: int
) -> list[EvaluationJob]:
    """The questions in pieces of at most ``size``."""
    pieces = (tuple(questions[first : first + size]) for first in range(0, len(questions), size))
    return [
        EvaluationJob(key=key, model=str(model), head=head, questions=piece) for piece in pieces
    ]
