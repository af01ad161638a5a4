"""The judge of a student folder in memory: scores for the samples of a vote."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.data.records import Question
from qcrd_ray.inference.base import Engine, EngineOptions
from qcrd_ray.inference.evidence import EvidenceReader
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.method.judge import Judge
from qcrd_ray.models.student_folder import StudentFolder

ASKS_STUDENT = {"student", "label"}  # the inputs that are likelihoods under the student


class SampleJudge:
    """``judge`` with what reads its evidence.

    ``uses_engine``: the student's likelihood is read on the engine's own model, so the engine may
    not be at work meanwhile.
    """

    def __init__(self, judge: Judge, reader: EvidenceReader, *, uses_engine: bool) -> None:
        self.judge, self.reader, self.uses_engine = judge, reader, uses_engine

    @classmethod
    def load(cls, folder: StudentFolder, engine: Engine, options: EngineOptions) -> SampleJudge:
        """Load the judge of ``folder``, which must hold one.

        The student is loaded once more where ``engine`` (vLLM) keeps no model of transformers.
        """
        assert folder.judge is not None
        student, uses_engine = None, False
        if ASKS_STUDENT & set(folder.judge.inputs):
            # ctranslate2's engine samples on transformers, by an engine within it
            inner = getattr(engine, "sampler", engine)
            uses_engine = isinstance(inner, TransformersEngine)
            student = (
                Likelihood(inner.model, inner.tokenizer, options)
                if isinstance(inner, TransformersEngine)
                else Likelihood.load(folder.path, options)
            )
        base = folder.judge.base
        reader = EvidenceReader(
            folder.task,
            folder.judge.inputs,
            student=student,
            base=Likelihood.load(base, options) if base is not None else None,
        )
        return cls(Judge.load(folder.judge.path), reader, uses_engine=uses_engine)

    def score(
        self, questions: Sequence[Question], samples: Sequence[Sequence[HeadAnswer]]
    ) -> list[list[float]]:
        """The chance in [0, 1] that each sample of each question ends in the right answer.

        One pass reads the samples of all questions.
        """
        return self.judge.score(self.reader.read(questions, samples))
