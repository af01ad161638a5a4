"""``judge``: a vote over the student's own samples, each weighed by a judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegativeCount, Positive, Section

EvidenceName = Literal["student", "base", "label", "steps", "teacher"]


class SelfTrainingRecipe(Section):
    """A second training on the student's own samples, chosen by their vote (beyond the paper).

    The trained student samples the questions of `data.unlabelled`. The samples that agree with the
    vote become rationales as the teacher's do, and training goes on with both. What a vote costs at
    inference is so paid once, and kept in the greedy answers.
    """

    vote: Literal["none", "plain", "judged"] = "none"
    """What chooses among the samples: nothing (no self-training), how many agree, or a judge."""
    judge: str = "judge"
    """Which judge it is: `judge`, or one of `judge.others`, which may see what no served student
    has beside it, as the teacher.
    """
    least_confidence: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Questions whose vote is less certain are left out."""
    rounds: Count | None = None
    """Rounds of the second training; null: as many as `train.rounds`."""
    start: Literal["student", "base"] = "student"
    """What the second training starts from: the trained student, or the student's own start."""


class JudgeRecipe(Section):
    """A vote of the student's own samples at inference, weighed by a judge (beyond the paper).

    After training, the student answers questions that it was not trained on several times. From its
    right and wrong samples the judge learns to tell one from the other by a few numbers on each.
    """

    samples: NotNegativeCount = 0
    """Samples of the rationale head that vote on a question; 0: no judge is trained."""
    temperature: Positive = 1.0
    """Sampling temperature of the student for a vote."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: share of the probability that is sampled from."""
    inputs: tuple[EvidenceName, ...] = ("student", "label")
    """What the judge sees of a sample: its likelihood under the `student`, or the `base` that the
    student was trained from (served beside it then); the likelihood of its answer under the `label`
    head; and whether its arithmetic `steps` hold, which is a calculator.
    """
    others: dict[str, tuple[EvidenceName, ...]] = Field(default={})
    """Judges with other inputs, measured beside it and not exported: {calculator: [steps]}. They
    may see the likelihood of a sample under the `teacher`, whose weights each of `evaluate.workers`
    then loads.
    """
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the training questions that the student is not trained on and the judge learns from;
    0: it learns from the validation questions.
    """
    labels: Literal["gold", "vote"] = "gold"
    """What a right sample ends in: the data's answer, or the teacher's vote (with `share` only).
    """
    hidden: Count = 16
    """Width of its one hidden layer."""
    batch_size: Count = 256
    """Samples that are generated, or read, together."""

    @model_validator(mode="after")
    def _can_learn(self):
        if self.samples == 1:
            raise ValueError("samples: one sample is no vote; give 2 or more, or 0 for no judge")
        if self.labels == "vote" and not self.share:
            raise ValueError(
                "labels: the teacher has voted on training questions alone, so `vote` needs a"
                " share of them (share: 0.25)"
            )
        if empty := [name for name, inputs in self.all_inputs.items() if not inputs]:
            raise ValueError(f"{empty[0]}: a judge without inputs sees nothing; name at least one")
        if "teacher" in self.inputs:
            raise ValueError(
                "inputs: a student is served without its teacher; give `teacher` to a judge of"
                " judge.others (others: {teacher: [student, label, teacher]}), which"
                " self_training.judge may name"
            )
        if "judge" in self.others:
            raise ValueError(
                "others.judge: that is the name of the judge itself; name it otherwise"
            )
        return self

    @property
    def all_inputs(self) -> dict[str, tuple[EvidenceName, ...]]:
        """The inputs of the judge and of the others, by name."""
        return {"judge": self.inputs, **self.others}

    @property
    def evidence(self) -> tuple[EvidenceName, ...]:
        """What any of the judges sees, each once."""
        return tuple(dict.fromkeys(name for each in self.all_inputs.values() for name in each))
