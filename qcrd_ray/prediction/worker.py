"""The Ray Data actor that answers a large file, one part of it a call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from qcrd_ray.data.json_lines import Line
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
from qcrd_ray.prediction.input import FilePart, LineFile
from qcrd_ray.prediction.output import Output
from qcrd_ray.runs.files import write_text
from qcrd_ray.tasks.questions import ASKED, read_row
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

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of what is written about each question, in their order."""
        fields = ("row", "id", "label", "text")
        if self.rationale or self.quality:
            fields += ("rationale", "rationale_answer")
        if self.quality:
            fields += ("quality",)
        if self.samples:
            fields += ("vote", "vote_kind", "vote_rationale", "confidence", "votes", "shares")
        return fields


class Predictor:
    """The callable of a Ray Data actor: answers the parts of ``file`` into the files of ``output``.

    Each file appears whole or not at all. A part that is answered twice gets the same files.
    """

    def __init__(
        self, student: Path, file: LineFile, output: Output, options: PredictOptions, threads: int
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
        for line in self.file.read(part):
            question = read_question(line, self.student.folder, self.options)
            if isinstance(question, Rejected):
                rejected.append(question)
            else:
                questions.append((line.number, question))
        answers = answer(self.student, [question for _, question in questions], self.options)
        rows = [
            {"row": number, "id": question.id, **answer}
            for (number, question), answer in zip(questions, answers, strict=True)
        ]
        write_text(self.output.rejected_of(part.number), _json_lines(map(asdict, rejected)))
        write_text(self.output.answers_of(part.number), _json_lines(rows))
        return {"answered": len(rows), "rejected": len(rejected)}


def read_question(
    line: Line, student: StudentFolder, options: PredictOptions
) -> Question | Rejected:
    """A row as a question for ``student``. An answer or a rationale in the row is not looked at."""
    return read_row(
        line,
        task=student.task,
        columns=options.columns,
        max_chars=student.task_recipe.max_question_chars,
        needs_id=False,
        fields=ASKED,
    )


def answer(
    student: Student, questions: Sequence[Question], options: PredictOptions
) -> list[dict[str, Any]]:
    """The answer to each question, under the endpoint's names, as the options ask."""
    answers: list[dict[str, Any]] = [
        {"label": label.answer, "text": label.text}
        for label in _generate(student, questions, "label")
    ]
    if options.rationale or options.quality:
        _add_rationales(student, questions, answers, quality=options.quality)
    if options.samples and questions:
        judged = student.judge is not None and options.vote != "plain"
        votes = _votes(student, questions, samples=options.samples, judged=judged)
        for each, vote in zip(answers, votes, strict=True):
            each |= vote
    return answers


def _add_rationales(
    student: Student,
    questions: Sequence[Question],
    answers: Sequence[dict[str, Any]],
    *,
    quality: bool,
) -> None:
    rationales = _generate(student, questions, "rationale")
    for each, rationale in zip(answers, rationales, strict=True):
        each["rationale"] = rationale.rationale or rationale.text
        each["rationale_answer"] = rationale.answer
    if quality and questions:
        scores = student.score(
            [
                ScoreRequest(question=question, text=rationale.text)
                for question, rationale in zip(questions, rationales, strict=True)
            ]
        )
        for each, score in zip(answers, scores, strict=True):
            each["quality"] = score


def _votes(
    student: Student, questions: Sequence[Question], *, samples: int, judged: bool
) -> list[dict[str, Any]]:
    """The vote on each question, without its samples."""
    sampling = student.vote_sampling(samples)
    drawn = student.generate(
        [
            AnswerRequest(question=question, head="rationale", sampling=sampling)
            for question in questions
        ]
    )
    if not judged:
        results = [student.vote(samples) for samples in drawn]
    else:
        scores = student.judge_samples(
            [
                JudgeRequest(question=question, samples=tuple(samples))
                for question, samples in zip(questions, drawn, strict=True)
            ]
        )
        results = list(map(student.vote, drawn, scores))
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


def _generate(student: Student, questions: Sequence[Question], head: Head) -> list[HeadAnswer]:
    """The greedy text of a head for each question."""
    sampling = Sampling(max_tokens=student.max_tokens)
    generated = student.generate(
        [AnswerRequest(question=question, head=head, sampling=sampling) for question in questions]
    )
    return [answers[0] for answers in generated]


def _json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
