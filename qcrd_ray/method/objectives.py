"""What a training step minimises, behind one small interface: which candidates a question brings, which are chosen, what is summed.

The student's step (``student.StudentStep``) and the stages around it know no objective by name. A new one says which rationales it reads
(:meth:`Objective.candidates`), picks from their losses (:meth:`Objective.select`) and turns the chosen ones' losses, now with a
gradient, into one number (:meth:`Objective.loss`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from qcrd_ray.method.collation import MicroBatch
from qcrd_ray.method.examples import Counts, Example, Rationale
from qcrd_ray.method.losses import contrastive_term, negative_term, positive_term, weighted_loss
from qcrd_ray.method.selection import Scheme, Selection, select


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """The numbers of equations (3), (7) and (8); the defaults are the paper's.

    ``prediction_mean``: L_pred is a mean over the batch's label tokens (as in Distilling Step-by-Step's code) or over its examples.
    ``negative_without_positive``: a question that has negatives only gets the negative term too, instead of L_pred alone.
    """

    name: Literal["qcrd", "finetune"] = "qcrd"
    alpha_pred: float = 0.5
    alpha_cl: float = 0.5
    beta: float = 0.2
    delta: float = 3.0
    selection: Scheme = "minmax"
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    negative_without_positive: bool = False


class Targets(NamedTuple):
    """Losses of some targets: the sum over each one's tokens, and how many there are. ``[rows]`` each; a dummy row has 0 tokens."""

    nll: Tensor
    tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """l(f(x), r): the mean over one example's target tokens."""
        return self.nll / self.tokens.clamp(min=1)


class Objective(Protocol):
    """One way to train the student. ``sums`` names what :meth:`loss` adds up, in the order of the vector it returns."""

    explains: bool  # trains the `explain:` head: its batches carry candidates
    weighs: bool  # multiplies by the discriminator's scores: every candidate must have one
    sums: tuple[str, ...]

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        """The (positives, negatives) of a question that enter its loss; both empty: the question has L_pred alone."""
        ...

    def counts(self, example: Example) -> Counts:
        """What one question adds to the global counts."""
        ...

    def select(self, nll: Tensor, batch: MicroBatch) -> Selection:
        """Choose from the candidates' mean losses ``[candidates]``, taken without gradient."""
        ...

    def loss(
        self, batch: MicroBatch, counts: Counts, label: Targets, positive: Targets | None, negative: Targets | None, chosen: Selection | None
    ) -> tuple[Tensor, Tensor]:
        """The micro-batch's part of the global loss (a scalar with gradient), and its ``sums`` as a vector without one."""
        ...

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Means for the log from ``sums`` added over micro-batches, ranks and steps. A mean over nothing is left out."""
        ...


def build_objective(config: ObjectiveConfig) -> Objective:
    """The objective that the configuration names."""
    return {"qcrd": Qcrd, "finetune": Finetune}[config.name](config)


def total_counts(objective: Objective, examples: list[Example]) -> Counts:
    """The counts of a batch. They depend on data alone, so they are known before any forward pass."""
    total = Counts()
    for example in examples:
        total = total.plus(objective.counts(example))
    return total


class Finetune:
    """The baseline: question to label, nothing else. L = L_pred, with weight 1."""

    explains = False
    weighs = False
    sums: tuple[str, ...] = ("prediction", "predictions")
    _means = {"prediction": ("prediction", "predictions")}

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        return (), ()

    def counts(self, example: Example) -> Counts:
        if example.label is None:
            return Counts()
        return Counts(prediction=len(example.label) if self.config.prediction_mean == "tokens" else 1)

    def select(self, nll: Tensor, batch: MicroBatch) -> Selection:
        return select(nll, batch.positives, batch.negatives)

    def loss(
        self, batch: MicroBatch, counts: Counts, label: Targets, positive: Targets | None, negative: Targets | None, chosen: Selection | None
    ) -> tuple[Tensor, Tensor]:
        total, number = self._prediction(batch, label)
        return total / max(1, counts.prediction), torch.stack([total.detach(), number])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        named = dict(zip(self.sums, sums.tolist(), strict=True))
        return {name: named[top] / named[bottom] for name, (top, bottom) in self._means.items() if named[bottom]}

    def _prediction(self, batch: MicroBatch, label: Targets) -> tuple[Tensor, Tensor]:
        """S_pred of METHOD.md 2b, and the count that makes it a mean."""
        if self.config.prediction_mean == "tokens":
            return (label.nll * batch.label_real).sum(), (label.tokens * batch.label_real).sum().float()
        return (label.mean * batch.label_real).sum(), batch.label_real.sum().float()


class Qcrd(Finetune):
    """The paper's method: equations (3), (6), (7) and (8), with one positive and one negative a question chosen by MinMax."""

    explains = True
    weighs = True
    sums = (
        *Finetune.sums,
        "contrast",
        "contrasted",  # questions in the contrastive term
        "l_pos",
        "positives",  # questions with a chosen positive
        "positive_nll",
        "l_neg",
        "negatives",  # questions with a chosen negative
        "negative_nll",
        "active",  # chosen negatives below delta: their hinge has a gradient
        "negative_from_student",
        "two_sided",
        "positive_score",
        "positive_candidates",
        "teacher_negative_score",
        "teacher_negative_candidates",
        "student_negative_score",
        "student_negative_candidates",
    )
    _means = {
        **Finetune._means,
        "contrast": ("contrast", "contrasted"),
        "l_pos": ("l_pos", "positives"),
        "l_neg": ("l_neg", "negatives"),
        "positive_nll": ("positive_nll", "positives"),
        "negative_nll": ("negative_nll", "negatives"),
        "active_fraction": ("active", "negatives"),
        "negative_from_student": ("negative_from_student", "negatives"),
        "two_sided": ("two_sided", "contrasted"),
        "score_positive": ("positive_score", "positive_candidates"),
        "score_teacher_negative": ("teacher_negative_score", "teacher_negative_candidates"),
        "score_student_negative": ("student_negative_score", "student_negative_candidates"),
    }

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        if example.positives or self.config.negative_without_positive:
            return example.positives, example.negatives
        return (), ()

    def counts(self, example: Example) -> Counts:
        return super().counts(example)._replace(contrast=int(any(self.candidates(example))))

    def select(self, nll: Tensor, batch: MicroBatch) -> Selection:
        return select(nll, batch.positives, batch.negatives, scheme=self.config.selection)

    def loss(
        self, batch: MicroBatch, counts: Counts, label: Targets, positive: Targets | None, negative: Targets | None, chosen: Selection | None
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        prediction, predictions = self._prediction(batch, label)
        has_positive, has_negative = chosen.positive >= 0, chosen.negative >= 0
        l_pos = positive_term(positive.mean, batch.scores[chosen.positive]) * has_positive
        l_neg = negative_term(negative.mean, batch.scores[chosen.negative], delta=config.delta) * has_negative
        contrast = contrastive_term(l_pos, l_neg, beta=config.beta).sum()
        loss = weighted_loss(
            prediction / max(1, counts.prediction), contrast / max(1, counts.contrast), alphas=(config.alpha_pred, config.alpha_cl, 0.0)
        )
        sums = {
            "prediction": prediction,
            "predictions": predictions,
            "contrast": contrast,
            "contrasted": (has_positive | has_negative).sum(),
            "l_pos": l_pos.sum(),
            "positives": has_positive.sum(),
            "positive_nll": (positive.mean * has_positive).sum(),
            "l_neg": l_neg.sum(),
            "negatives": has_negative.sum(),
            "negative_nll": (negative.mean * has_negative).sum(),
            "active": (has_negative & (negative.mean < config.delta)).sum(),
            "negative_from_student": (has_negative & batch.from_student[chosen.negative]).sum(),
            "two_sided": (has_positive & has_negative).sum(),
            **_score_sums(batch),
        }
        return loss, torch.stack([sums[name].detach().float() for name in self.sums])


def _score_sums(batch: MicroBatch) -> dict[str, Tensor]:
    """Sums and counts of the scores of all candidates, by what and whose they are."""
    positive, negative = batch.positives[batch.positives >= 0], batch.negatives[batch.negatives >= 0]
    student = batch.from_student[negative]
    groups = {"positive": positive, "teacher_negative": negative[~student], "student_negative": negative[student]}
    sums = {f"{name}_score": batch.scores[members].sum() for name, members in groups.items()}
    return sums | {f"{name}_candidates": batch.scores.new_tensor(len(members)) for name, members in groups.items()}
