"""The Ray Data actor that answers a large file, one part of it a call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from qcrd_ray.data.records import Question
from qcrd_ray.inference import EngineName
from qcrd_ray.inference.answering import AnswerRequest, Sampling, ScoreRequest, Student
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.output import FilePart, Output, read_part
from qcrd_ray.run.files import write_text
from qcrd_ray.tasks.questions import Rejected, read_row


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is written about each question, and how it is generated.

    ``columns`` maps our names (id, question, choices, ...) to the file's. ``batch_size`` counts
    texts that are generated together.
    """

    rationale: bool = False
    quality: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    engine: EngineName | Literal["auto"] = "auto"
    batch_size: int = 64


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
            StudentFolder.open(student), engine=options.engine, batch_size=options.batch_size
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
        if not (self.options.rationale or self.options.quality):
            return answers
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
        return answers

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
