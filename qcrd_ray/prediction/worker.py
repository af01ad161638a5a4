"""The actor that answers a large file: one part of it a call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import AnswerRequest, Sampling, ScoreRequest, Student
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.prediction.output import FilePart, Output, read_part
from qcrd_ray.run.files import write_text
from qcrd_ray.tasks.reading import Rejected, read_row


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is written of each question, and how. ``columns`` maps our names (id, question, choices,
    ...) to the file's.
    """

    rationale: bool = False
    quality: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    engine: str = "auto"
    batch_size: int = 64


class Predictor:
    """Leaves a part's files in the output's folder, each whole or not at all; a part that is
    answered twice is written twice the same.
    """

    def __init__(
        self, student: Path, file: Path, output: Output, options: Options, cpus: float
    ) -> None:
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        self.file, self.output, self.options = file, output, options
        self.student = Student(
            StudentFolder.open(student), engine=options.engine, batch_size=options.batch_size
        )

    def __call__(self, row: dict) -> dict:
        """``row``: the fields of a :class:`FilePart`. Returns how many of its rows were answered and
        rejected.
        """
        part = FilePart(**row)
        task, columns = self.student.task, self.options.columns
        longest = task.recipe.max_question_chars
        questions: list[tuple[int, Question]] = []
        rejected: list[Rejected] = []
        for line in read_part(self.file, part):
            read = read_row(line, task=task, columns=columns, max_chars=longest, needs_id=False)
            if isinstance(read, Rejected):
                rejected.append(read)
            else:
                questions.append((line.number, read))
        answers = self._answers([question for _, question in questions])
        rows = [
            {"row": number, "id": question.id, **answer}
            for (number, question), answer in zip(questions, answers, strict=True)
        ]
        write_text(self.output.rejected_of(part.number), _json_lines(map(asdict, rejected)))
        write_text(self.output.answers_of(part.number), _json_lines(rows))
        return {"answered": len(rows), "rejected": len(rejected)}

    def _answers(self, questions: list[Question]) -> list[dict]:
        """What was asked for of each question, under the names that the endpoint uses."""
        labels = self._write(questions, "label")
        answers = [{"label": label.answer, "text": label.text} for label in labels]
        if not (self.options.rationale or self.options.quality):
            return answers
        rationales = self._write(questions, "rationale")
        for answer, rationale in zip(answers, rationales, strict=True):
            answer |= {
                "rationale": rationale.rationale or rationale.text,
                "rationale_answer": rationale.answer,
            }
        if self.options.quality:
            judged = [
                ScoreRequest(question=question, text=rationale.text)
                for question, rationale in zip(questions, rationales, strict=True)
            ]
            for answer, score in zip(
                answers, self.student.score(judged) if judged else [], strict=True
            ):
                answer["quality"] = score
        return answers

    def _write(self, questions: list[Question], head: Head) -> list[HeadAnswer]:
        """The one greedy text of a head for each question."""
        sampling = Sampling(max_tokens=self.student.max_tokens)
        written = self.student.write(
            [
                AnswerRequest(question=question, head=head, sampling=sampling)
                for question in questions
            ]
        )
        return [answer for (answer,) in written]


def _json_lines(rows: Iterable[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
