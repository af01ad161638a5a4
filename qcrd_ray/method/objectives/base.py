"""The interface of an objective: what a training step minimises.

An objective says which candidates a question brings, which are chosen, and what is summed. The
student's step (``student.StudentStep``) and the stages around it know no objective by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from qcrd_ray.method.examples import SOURCES, Counts, Example, MicroBatch, Rationale
from qcrd_ray.method.selection import BY_LOSS, Scheme, Selection, select
from qcrd_ray.method.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """The numbers of equations (3), (7) and (8); the defaults are the paper's.

    A recipe's `objective` section has the same fields with the same defaults.

    ``prediction_mean``: L_pred is a mean over the batch's label tokens (as in Distilling
    Step-by-Step's code) or over its examples.
    ``weights``: what the discriminator's scores do in the loss (:mod:`qcrd_ray.method.weights`);
    "none" is QCRD without a discriminator.
    ``negative_from``: a negative's loss counts all of its tokens ("start"), or only those from the
    first that no positive of its question shares ("difference"). A negative that is word for word a
    positive has no difference: under "difference" it is left out, under "start" it stays.
    ``mi_*``, ``orpo_*``, ``redi_*``, ``dpo_*``: of the objective of that name alone.
    """

    name: str = "qcrd"
    alpha_pred: float = 0.5
    alpha_cl: float = 0.5
    beta: float = 0.2
    delta: float = 3.0
    selection: Scheme = "minmax"
    weights: Weights = "score"
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    mi_weight: float = 0.1
    orpo_lambda: float = 0.1
    redi_alpha: float = 0.8
    dpo_beta: float = 0.1
    dpo_nll: float = 1.0
    dpo_guard: float = 50.0
    negative_from: Literal["start", "difference"] = "start"


# The metrics that say where the chosen negatives come from; their sums: negative_source_sums.
NEGATIVE_SOURCES = {
    f"negative_from_{source}": (f"negative_from_{source}", "negatives") for source in SOURCES
}


class Targets(NamedTuple):
    """Losses of some targets, of any one shape: the sum over each one's tokens, and their number.

    An absent target has 0 tokens. ``peaks`` has one more dimension, the vocabulary
    (:func:`qcrd_ray.method.losses.token_peaks`), where the objective ``needs_token_peaks``.
    """

    nll: Tensor
    tokens: Tensor
    peaks: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """l(f(x), r): the mean over one example's target tokens; 0 for an absent one."""
        return self.nll / self.tokens.clamp(min=1)


class Forward(NamedTuple):
    """The student's losses on a micro-batch.

    Those of its labels and, where the objective explains, of the chosen candidates. ``label`` is
    ``[labels]``; ``positive`` and ``negative`` are ``[questions, chosen]``, in line with
    ``chosen``.
    """

    label: Targets
    chosen: Selection | None = None
    positive: Targets | None = None
    negative: Targets | None = None


class Objective(ABC):
    """Base of all objectives. A new one says which rationales it reads, how it chooses and sums.

    ``predicts``, ``explains``: which heads it trains; where it explains, its batches carry
    candidates.
    ``needs_weights``: it multiplies by weights, so every candidate must have one.
    ``uses_negatives``: it reads negatives, which then have to be sampled.
    ``needs_reference``: it compares with the student at the start, so every candidate must have its
    reference.
    ``needs_token_peaks``: it reads the targets' token peaks.
    ``means``: its metrics, name -> (sum, count); :meth:`loss` returns all of these sums.
    ``sft``: it is that of the rounds of supervised fine-tuning before its own: questions have
    positives alone, and nothing is compared with a reference.
    """

    predicts: ClassVar[bool] = True
    explains: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    uses_negatives: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False
    needs_token_peaks: ClassVar[bool] = False
    means: ClassVar[dict[str, tuple[str, str]]] = {"prediction": ("prediction", "predictions")}

    def __init__(self, config: ObjectiveConfig, *, sft: bool = False) -> None:
        self.config, self.sft = config, sft

    def candidates(self, example: Example) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
        """The (positives, negatives) of a question that enter its loss.

        Both empty: the question has L_pred alone.
        """
        return (), ()

    def negatives(self, example: Example) -> tuple[Rationale, ...]:
        """Its negatives that have a token to penalise (``negative_from``); none in ``sft``."""
        if self.sft:
            return ()
        if self.config.negative_from == "start":
            return example.negatives
        positives = {rationale.tokens for rationale in example.positives}
        return tuple(
            rationale for rationale in example.negatives if rationale.tokens not in positives
        )

    def counts(self, example: Example) -> Counts:
        """What one question adds to the global counts."""
        length = len(example.label or ()) if self.predicts else 0
        return Counts(
            prediction=length if self.config.prediction_mean == "tokens" else int(length > 0),
            contrast=int(any(self.candidates(example))),
        )

    @classmethod
    def heads(cls) -> tuple[Literal["label", "rationale"], ...]:
        """The heads that it trains, which are the ones worth measuring."""
        heads: list[Literal["label", "rationale"]] = []
        if cls.predicts:
            heads.append("label")
        if cls.explains:
            heads.append("rationale")
        return tuple(heads)

    @property
    def chooses_by_loss(self) -> bool:
        """Whether :meth:`select` needs the losses of all candidates."""
        return self.config.selection in BY_LOSS

    def select(self, nll: Tensor | None, batch: MicroBatch) -> Selection:
        """Choose from the candidates; called where the objective ``explains``.

        ``nll``: their mean losses ``[candidates]``, given where it ``chooses_by_loss``.
        """
        return select(
            nll, batch.positives, batch.negatives, scheme=self.config.selection, draws=batch.draws
        )

    @abstractmethod
    def loss(
        self, batch: MicroBatch, forward: Forward, counts: Counts
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's part of the global loss, and its sums for the log by name.

        The loss is a scalar with gradient.
        """

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Means for the log from :meth:`vector` s added over micro-batches, ranks and steps.

        A mean over nothing is left out.
        """
        sum_of = dict(zip(self.sums, sums.tolist(), strict=True))
        return {
            name: sum_of[total] / sum_of[count]
            for name, (total, count) in self.means.items()
            if sum_of[count]
        }

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the sums, in the order of :meth:`vector`."""
        return tuple(dict.fromkeys(name for pair in self.means.values() for name in pair))

    def vector(self, sums: dict[str, Tensor]) -> Tensor:
        """The sums as one float32 vector, so that one reduction adds them all over the workers."""
        return torch.stack([sums[name].detach().float() for name in self.sums])

    def prediction(self, batch: MicroBatch, label: Targets) -> tuple[Tensor, Tensor]:
        """S_pred of METHOD.md 2b, with gradient, and the local count that makes it a mean."""
        if self.config.prediction_mean == "tokens":
            return (label.nll * batch.label_real).sum(), (label.tokens * batch.label_real).sum()
        return (label.mean * batch.label_real).sum(), batch.label_real.sum()


def sum_of_means(values: Tensor, present: Tensor) -> Tensor:
    """Each question's mean of ``values`` over its chosen candidates, summed over questions.

    Both are ``[questions, chosen]``.
    """
    return (values.float().where(present, 0.0).sum(dim=1) / present.sum(dim=1).clamp(min=1)).sum()


def negative_source_sums(batch: MicroBatch, chosen: Tensor) -> dict[str, Tensor]:
    """How much of the ``chosen`` negatives ``[questions, chosen]`` each source gave.

    A question counts 1.
    """
    sources = batch.sources[chosen]
    return {
        name: sum_of_means(sources == place, chosen >= 0)
        for place, name in enumerate(NEGATIVE_SOURCES)
    }


def total_counts(objective: Objective, examples: Iterable[Example]) -> Counts:
    """The counts of a batch.

    They depend on data alone, so they are known before any forward pass.
    """
    total = Counts()
    for example in examples:
        total = total.plus(objective.counts(example))
    return total
