"""The Ray Data actor that answers a large file, one part of it a call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from qcrd_ray.data.records import Question
from qcrd_ray.inference import EngineName
from qcrd_ray.inference.answering import (
    AnswerRequest,
    JudgeRequest,
    Sampling,
    ScoreRequest,
    Student,
)
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.inference.vote_result import VoteKind
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.output import FilePart, Output, read_part
from qcrd_ray.run.files import write_text
from qcrd_ray.tasks.questions import read_row
from qcrd_ray.tasks.spool import Rejected


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is written about each question, and how it is generated.

    ``columns`` maps our names (id, question, choices, ...) to the file's. ``batch_size`` counts
    texts that are generated together. ``trust_task``: a task of the student's own is imported.
    ``samples`` of the rationale head vote, None: there is no
    vote; ``vote`` None is a judged vote where the folder holds a judge, else a plain one.
    """

    rationale: bool = False
    quality: bool = False
    samples: int | None = None
    vote: VoteKind | None = None
    columns: dict[str, str] = field(default_factory=dict)
    engine: EngineName | Literal["auto"] = "auto"
    batch_size: int = 64
    trust_task: bool = False


class Predictor:
    """The callable of a Ray Data actor: answers the parts of ``file`` into the files of ``output``.

    Each file appears whole or not at all. A part that is answered twice gets the same files.
    """

    def __init__(
        self, student: Path, file: Path, output: Output, options: PredictOptions, threads: int
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.file, self.output, self.options = file, output, options
        self.student = Student(
            StudentFolder.open(student, trust_task=options.trust_task),
            engine=options.engine,
            batch_size=options.batch_size,
            judged=bool(options.samples) and options.vote != "plain",
        )

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        """``row`` holds the fields of a :class:`FilePart`; returns those of its RowCounts."""
        part = FilePart(**row)
        questions: list[tuple[int, Question]] = []
        rejected: list[Rejected] = []
        for line in read_part(self.file, part):
            question = read_row(
                line,
                task=self.student.task,
                columns=self.options.columns,
                max_chars=self.student.folder.task_recipe.max_question_chars,
                needs_id=False,
            )
            if isinstance(question, Rejected):
                rejected.append(question)
            else:
                questions.append((line.number, question))
        answers = self._answers([question for _, question in questions])
        rows = [
            {"row": number, "id": question.id, **answer}
            for (number, question), answer in zip(questions, answers, strict=True)
        ]
        write_text(self.output.rejected_of(part.number), _json_lines(map(asdict, rejected)))
        write_text(self.output.answers_of(part.number), _json_lines(rows))
        return {"answered": len(rows), "rejected": len(rejected)}

    def _answers(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """The answer to each question, under the endpoint's names, as the options ask."""
        answers: list[dict[str, Any]] = [
            {"label": label.answer, "text": label.text}
            for label in self._generate(questions, "label")
        ]
        if self.options.rationale or self.options.quality:
            self._add_rationales(questions, answers)
        if self.options.samples and questions:
            for answer, vote in zip(answers, self._votes(questions), strict=True):
                answer |= vote
        return answers

    def _add_rationales(
        self, questions: Sequence[Question], answers: Sequence[dict[str, Any]]
    ) -> None:
        rationales = self._generate(questions, "rationale")
        for answer, rationale in zip(answers, rationales, strict=True):
            answer["rationale"] = rationale.rationale or rationale.text
            answer["rationale_answer"] = rationale.answer
        if self.options.quality and questions:
            scores = self.student.score(
                [
                    ScoreRequest(question=question, text=rationale.text)
                    for question, rationale in zip(questions, rationales, strict=True)
                ]
            )
            for answer, score in zip(answers, scores, strict=True):
                answer["quality"] = score

    def _votes(self, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """The vote on each question, without its samples."""
        assert self.options.samples is not None
        sampling = self.student.vote_sampling(self.options.samples)
        drawn = self.student.generate(
            [
                AnswerRequest(question=question, head="rationale", sampling=sampling)
                for question in questions
            ]
        )
        if self.student.judge is None:
            results = [self.student.vote(samples) for samples in drawn]
        else:
            scores = self.student.judge_samples(
                [
                    JudgeRequest(question=question, samples=tuple(samples))
                    for question, samples in zip(questions, drawn, strict=True)
                ]
            )
            results = list(map(self.student.vote, drawn, scores))
        return [
            {
                "vote": result.answer,
                "vote_kind": result.kind,
                "vote_rationale": result.rationale,
                "confidence": result.confidence,
                "votes": result.votes,
                "shares": result.shares,
            }
            for result in results
        ]

    def _generate(self, questions: Sequence[Question], head: Head) -> list[HeadAnswer]:
        """The greedy text of a head for each question."""
        sampling = Sampling(max_tokens=self.student.max_tokens)
        generated = self.student.generate(
            [
                AnswerRequest(question=question, head=head, sampling=sampling)
                for question in questions
            ]
        )
        return [answer for (answer,) in generated]


def _json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
