"""The evidence on a sampled rationale: a few numbers from which a judge tells right from wrong.

    student  how likely the student finds its own text: the mean loss of its tokens, the two worst
             ones, and its length
    base     the same, but the length, under the model that it was trained from
    label    the loss of the sample's answer under the label head, summed over its tokens
    steps    the share of the "a op b = c" in it that hold, and whether all do
    teacher  the same as `base`, under the teacher that was asked for rationales

Losses and lengths enter as logarithms: between 0.01 and 0.1 nats lies as much as between 0.5 and 5.
All but `steps` hold for any task. `steps` is a calculator: it knows what the answer should follow
from, and nothing of what was asked. `teacher` is for training: a student is served without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from qcrd_ray.data.records import Question
from qcrd_ray.inference.heads import HeadAnswer, head_prompt
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.inference.teacher_likelihood import TeacherLikelihood
from qcrd_ray.recipe.judge import EvidenceName
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.steps import check_steps

FEATURES: dict[EvidenceName, tuple[str, ...]] = {
    "student": ("student_mean", "student_worst", "student_second", "student_length"),
    "base": ("base_mean", "base_worst", "base_second"),
    "label": ("label",),
    "steps": ("steps_right", "steps_all_right"),
    "teacher": ("teacher_mean", "teacher_worst", "teacher_second"),
}
Evidence = tuple[float, ...]
_FLOOR = 0.01  # nats, under which losses do not differ


def feature_names(inputs: Sequence[EvidenceName]) -> tuple[str, ...]:
    """The names of the numbers that ``inputs`` give, in their order."""
    return tuple(name for each in inputs for name in FEATURES[each])


class EvidenceReader:
    """Reads the evidence on samples of one student.

    ``student`` is needed for the inputs `student` and `label`, ``base` for `base`, ``teacher``
    for `teacher`. A sample
    without an answer has evidence too: it cannot vote, but others are compared with it.
    """

    def __init__(
        self,
        task: Task,
        inputs: Sequence[EvidenceName],
        *,
        student: Likelihood | None = None,
        base: Likelihood | None = None,
        teacher: TeacherLikelihood | None = None,
    ) -> None:
        self.task, self.inputs = task, tuple(inputs)
        self.student, self.base, self.teacher = student, base, teacher

    def read(
        self, questions: Sequence[Question], samples: Sequence[Sequence[HeadAnswer]]
    ) -> list[list[Evidence]]:
        """The numbers of :func:`feature_names` for each sample of each question."""
        columns: list[list[list[tuple[float, ...]]]] = []
        for name in self.inputs:
            if name == "student":
                assert self.student is not None
                columns.append(
                    [
                        [(*_summary(losses), log(1 + len(losses))) for losses in each]
                        for each in self._rationale_losses(self.student, questions, samples)
                    ]
                )
            elif name == "base":
                assert self.base is not None
                columns.append(
                    [
                        [_summary(losses) for losses in each]
                        for each in self._rationale_losses(self.base, questions, samples)
                    ]
                )
            elif name == "teacher":
                assert self.teacher is not None
                texts = [[sample.text for sample in each] for each in samples]
                losses = self.teacher.token_losses(questions, texts)
                columns.append([[_summary(values) for values in each] for each in losses])
            elif name == "label":
                columns.append(self._label_losses(questions, samples))
            else:
                columns.append([[_steps(sample.text) for sample in each] for each in samples])
        return [
            [tuple(value for part in parts for value in part) for parts in zip(*each, strict=True)]
            for each in zip(*columns, strict=True)
        ]

    def _rationale_losses(
        self,
        model: Likelihood,
        questions: Sequence[Question],
        samples: Sequence[Sequence[HeadAnswer]],
    ) -> list[list[list[float]]]:
        return model.token_losses(
            [head_prompt(self.task, question, head="rationale") for question in questions],
            [[sample.text for sample in each] for each in samples],
        )

    def _label_losses(
        self, questions: Sequence[Question], samples: Sequence[Sequence[HeadAnswer]]
    ) -> list[list[tuple[float, ...]]]:
        """Summed over the answer's tokens; a sample without an answer has the question's mean."""
        assert self.student is not None
        answers = [
            list(dict.fromkeys(sample.answer for sample in each if sample.answer is not None))
            for each in samples
        ]
        losses = self.student.token_losses(
            [head_prompt(self.task, question, head="label") for question in questions],
            [
                [self.task.label(answer, question) for answer in each]
                for question, each in zip(questions, answers, strict=True)
            ],
        )
        columns = []
        for each, distinct, found in zip(samples, answers, losses, strict=True):
            of_answer = {
                answer: sum(values) for answer, values in zip(distinct, found, strict=True)
            }
            mean = sum(of_answer.values()) / len(of_answer) if of_answer else 0.0
            columns.append([(_log(of_answer.get(sample.answer or "", mean)),) for sample in each])
        return columns


def _log(loss: float) -> float:
    return log(loss + _FLOOR)


def _summary(losses: Sequence[float]) -> tuple[float, float, float]:
    """Of a text's token losses the mean, the worst and the second worst; 0 where there is none."""
    first, second, *_ = [*sorted(losses, reverse=True), 0.0, 0.0]
    mean = sum(losses) / len(losses) if losses else 0.0
    return _log(mean), _log(first), _log(second)


def _steps(text: str) -> tuple[float, float]:
    steps = check_steps(text)
    if not steps.total:
        return 0.5, 0.5  # nothing to check says nothing
    return steps.right / steps.total, float(steps.right == steps.total)
