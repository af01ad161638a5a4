"""The recipe: typed, immutable sections that say what a run does, and their YAML file.

Imports nothing else of the package but `errors`. Every number that the paper leaves open is a key,
with the paper's value as its default, or ours where the paper gives none. This module holds the
whole recipe and what its sections must agree on; ``recipe.file`` reads and writes it.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Section
from qcrd_ray.recipe.data import DataRecipe, Split
from qcrd_ray.recipe.evaluation import CompareRecipe, EvaluateRecipe
from qcrd_ray.recipe.judge import JudgeRecipe, SelfTrainingRecipe
from qcrd_ray.recipe.objective import (
    DiscriminatorRecipe,
    NegativesRecipe,
    ObjectiveName,
    ObjectiveRecipe,
)
from qcrd_ray.recipe.runtime import QuestionToTry, RayRecipe, ServingRecipe, TrackingRecipe
from qcrd_ray.recipe.student import LoraRecipe, ScratchRecipe, StudentRecipe
from qcrd_ray.recipe.task import FewShotExample, TaskRecipe
from qcrd_ray.recipe.teacher import (
    AdaptiveRecipe,
    GenerationRecipe,
    OpenAITeacher,
    RecordedTeacher,
    SamplingRecipe,
    ServeTeacher,
    TeacherRecipe,
    VoteRecipe,
)
from qcrd_ray.recipe.training import TrainRecipe

__all__ = [
    "AdaptiveRecipe",
    "CompareRecipe",
    "DataRecipe",
    "DiscriminatorRecipe",
    "EvaluateRecipe",
    "FewShotExample",
    "GenerationRecipe",
    "JudgeRecipe",
    "LoraRecipe",
    "NegativesRecipe",
    "ObjectiveName",
    "ObjectiveRecipe",
    "OpenAITeacher",
    "QuestionToTry",
    "RayRecipe",
    "Recipe",
    "RecordedTeacher",
    "SamplingRecipe",
    "ScratchRecipe",
    "Section",
    "SelfTrainingRecipe",
    "ServeTeacher",
    "ServingRecipe",
    "Split",
    "StudentRecipe",
    "TaskRecipe",
    "TeacherRecipe",
    "TrackingRecipe",
    "TrainRecipe",
    "VoteRecipe",
]


class Recipe(Section):
    """One run. Sections that a run does not touch may be left out."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The run's name in reports."""
    run: str
    """The run folder: an absolute path or URI, or a path relative to where `qcrd` is called."""
    seed: int = 0
    """Seed of everything random in the run."""
    task: TaskRecipe
    data: DataRecipe
    teacher: TeacherRecipe
    sampling: SamplingRecipe = SamplingRecipe()
    generation: GenerationRecipe = GenerationRecipe()
    vote: VoteRecipe = VoteRecipe()
    student: StudentRecipe
    discriminator: DiscriminatorRecipe = DiscriminatorRecipe()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    negatives: NegativesRecipe = NegativesRecipe()
    train: TrainRecipe = TrainRecipe()
    judge: JudgeRecipe = JudgeRecipe()
    self_training: SelfTrainingRecipe = SelfTrainingRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    serve: ServingRecipe = ServingRecipe()
    tracking: TrackingRecipe = TrackingRecipe()
    compare: CompareRecipe = CompareRecipe()
    ray: RayRecipe = RayRecipe()

    @model_validator(mode="after")
    def _sections_agree(self):
        if self.sampling.temperature == 0.0 and self.sampling.k > 1:
            raise ValueError(
                "sampling.k > 1 at sampling.temperature 0 asks for the same text k times: raise the"
                " temperature or set k to 1"
            )
        if self.teacher.source == "openai" and self.generation.questions_per_request > 1:
            raise ValueError(
                "generation.questions_per_request: an openai teacher takes one question a request,"
                " so leave it at 1"
            )
        if (
            self.sampling.adaptive
            and self.teacher.source == "openai"
            and "seed" in self.teacher.extra_body
        ):
            raise ValueError(
                "teacher.extra_body.seed with sampling.adaptive would give the same samples in"
                " every wave: leave one of them out"
            )
        if self.objective.sft_rounds >= self.train.rounds:
            raise ValueError(
                f"objective.sft_rounds: {self.objective.sft_rounds} leave none of the"
                f" {self.train.rounds} train.rounds to learn from wrong rationales; give fewer"
            )
        if self.data.train.generate and self.task.kind != "word_problems":
            raise ValueError(
                "data.train.generate: only the word_problems task makes its own questions, not"
                f" {self.task.kind}"
            )
        if self.self_training.vote != "none" and not (self.judge.samples and self.data.unlabelled):
            raise ValueError(
                "self_training.vote: the student answers questions for itself, so give it some"
                " (data.unlabelled) and a number of samples (judge.samples)"
            )
        if self.self_training.judge not in self.judge.all_inputs:
            raise ValueError(
                f"self_training.judge: there is no judge {self.self_training.judge!r}; expected one"
                f" of {', '.join(self.judge.all_inputs)} (judge.others adds some)"
            )
        if "teacher" in self.judge.evidence and self.teacher.source != "serve":
            raise ValueError(
                "judge.others: the likelihood under the teacher is read with its weights, and a"
                f" teacher of source {self.teacher.source} gives none; leave out `teacher`, or host"
                " it (teacher.source: serve)"
            )
        return self

    @property
    def lag(self) -> int:
        """Rounds between the snapshot that samples negatives and the round that trains on them."""
        return (
            self.negatives.lag
            if self.negatives.lag != "auto"
            else max(1, min(5, self.train.rounds // 5))
        )
