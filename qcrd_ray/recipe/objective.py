"""``objective``: the loss that the student is trained with, and its weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from qcrd_ray.recipe.sections import NotNegative, Positive, Section

ObjectiveName = Literal["qcrd", "finetune", "single_task", "dss", "mi", "orpo_distill", "redi", "dpo"]


class ObjectiveRecipe(Section):
    """Equations (2)-(8). `qcrd` is the paper's method, the others are what it is compared with: `finetune` (question -> label),
    `single_task` (one target: rationale, then label), `dss` (Distilling Step-by-Step), `mi` (dss and mutual information);
    `orpo_distill`, `redi` and `dpo` learn from pairs of a right and a wrong rationale."""

    name: ObjectiveName = "qcrd"
    alpha_pred: NotNegative = 0.5
    alpha_cl: NotNegative = 0.5
    beta: NotNegative = 0.2
    delta: Positive = 3.0
    selection: Literal["minmax", "maxmin", "sampling", "mean", "weighted_mean"] = Field(
        "minmax", description="which positive and negative of a question are trained on; the last two take all"
    )
    weights: Literal["score", "normalised", "none"] = Field(
        "score",
        description="score: D's s and 1 - s; normalised: these with mean 1 over all candidates, chosen or not; none: no discriminator",
    )
    labels: Literal["gold", "vote"] = Field("gold", description="what L_pred is trained on; gold falls back on nothing")
    positives: Literal["vote", "label"] = Field(
        "vote", description="vote: samples that agree with the vote, the paper's; label: those that agree with `labels`, where there is one"
    )
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    mi_weight: NotNegative = Field(0.1, description="mi: weight of the cross-entropy between the heads")
    mi_double_softmax: bool = Field(False, description="mi: take the softmax twice, as its public code does")
    orpo_lambda: NotNegative = Field(0.1, description="orpo_distill: weight of the odds-ratio term")
    redi_alpha: NotNegative = Field(0.8, description="redi: weight of the negative's likelihood")
    dpo_beta: Positive = Field(0.1, description="dpo: how much a log-likelihood ratio counts")
    dpo_nll: NotNegative = Field(1.0, description="dpo: weight of the positive's own loss")
    dpo_guard: NotNegative = Field(50.0, description="dpo: DPO-Positive's lambda, against a positive below its start; 0: off")
    negative_from: Literal["start", "difference"] = Field(
        "start",
        description="difference: a negative is penalised from the first token that no positive shares; one equal to a positive is none",
    )
