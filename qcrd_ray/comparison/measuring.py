"""Measure one trained student in this process: greedy answers, its judges, and their votes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from qcrd_ray.data.records import Question
from qcrd_ray.evaluation.predictions import Prediction, student_predictions
from qcrd_ray.evaluation.votes import vote_predictions
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.evidence import EvidenceReader
from qcrd_ray.inference.heads import answer_questions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.inference.voting import Judges, Samples, ballot_of, load_reader, sample
from qcrd_ray.method.ranking import JudgeQuality
from qcrd_ray.tasks import build_task
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.judges import fit_judges, judge_questions

Questions = Mapping[str, Sequence[Question]]  # by split
Quality = dict[str, dict[str, JudgeQuality]]  # by split and judge


class MeasuredStudent:
    """The best student of a finished ``job``.

    ``first`` is the job whose start and judge questions count: that of the first training, where
    there are two.
    """

    def __init__(self, name: str, job: TrainingJob, *, first: TrainingJob) -> None:
        self.name, self.job, self.first, self.recipe = name, job, first, job.recipe
        self.task = build_task(self.recipe.task)
        engine = load_engine(
            job.folder / "best",
            batch_size=self.recipe.evaluate.batch_size,
            max_input_tokens=self.recipe.student.max_input_tokens,
            trust_remote_code=self.recipe.student.trust_remote_code,
        )
        assert isinstance(engine, TransformersEngine)
        self.engine = engine

    @property
    def votes(self) -> bool:
        """Whether its samples are measured."""
        return bool(self.recipe.judge.samples) and "rationale" in self.job.heads

    @cached_property
    def _reader(self) -> EvidenceReader:
        return load_reader(self.recipe, self.task, self.engine, base=self.first.start)

    def samples(self, questions: Sequence[Question]) -> list[Samples]:
        """Its samples for ``questions``, in their order."""
        return sample(self.engine, self._reader, questions, ballot=ballot_of(self.recipe))

    def train_judges(self, folder: Path) -> tuple[Judges, dict[str, JudgeQuality]]:
        """Its judges, written to ``folder``, with their quality on questions of their own."""
        asked = judge_questions(self.recipe, self.first.home, self.first.validation)
        training = fit_judges(self.recipe, asked, self.samples(asked), folder)
        return Judges.load(folder, self.recipe.judge), training["judges"]

    def greedy(self, questions: Questions) -> Iterator[Prediction]:
        """Its greedy answers by each head that it has learnt, on every split."""
        for split, asked in questions.items():
            for head in self.job.heads:
                began = time.monotonic()
                answers = answer_questions(
                    self.engine,
                    self.task,
                    asked,
                    head=head,
                    max_tokens=self.recipe.student.max_target_tokens,
                )
                yield from student_predictions(
                    name=self.name,
                    head=head,
                    split=split,
                    questions=asked,
                    answers=answers,
                    milliseconds=_milliseconds(began, asked),
                )

    def voted(self, questions: Questions, judges: Judges) -> tuple[list[Prediction], Quality]:
        """The votes of its samples on every split, and how well the judges judge them."""
        predictions: list[Prediction] = []
        quality: Quality = {}
        for split, asked in questions.items():
            began = time.monotonic()
            samples = self.samples(asked)
            voted, quality[split] = vote_predictions(
                judges,
                asked,
                samples,
                name=self.name,
                split=split,
                milliseconds=_milliseconds(began, asked),
            )
            predictions += voted
        return predictions, quality


def _milliseconds(began: float, questions: Sequence[Question]) -> float:
    return 1_000 * (time.monotonic() - began) / len(questions)
