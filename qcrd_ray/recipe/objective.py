"""``objective``: the loss that the student is trained with, and its weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import (
    Count,
    NotNegative,
    NotNegativeCount,
    Positive,
    Resources,
    Section,
    Share,
)

ObjectiveName = Literal[
    "qcrd", "finetune", "single_task", "dss", "mi", "orpo_distill", "redi", "dpo"
]


class ObjectiveRecipe(Section):
    """Equations (2)-(8). `qcrd` is the paper's method, the others are what it is compared with:
    `finetune` (question -> label), `single_task` (one target: rationale, then label), `dss`
    (Distilling Step-by-Step), `mi` (dss and mutual information);
    `orpo_distill`, `redi` and `dpo` learn from pairs of a right and a wrong rationale.
    """

    name: ObjectiveName = "qcrd"
    alpha_pred: NotNegative = 0.5
    alpha_cl: NotNegative = 0.5
    beta: NotNegative = 0.2
    delta: Positive = 3.0
    selection: Literal["minmax", "maxmin", "sampling", "mean", "weighted_mean"] = Field(
        "minmax",
        description=(
            "which positive and negative of a question are trained on; the last two take all"
        ),
    )
    weights: Literal["score", "normalised", "none"] = Field(
        "score",
        description=(
            "score: D's s and 1 - s; normalised: these with mean 1 over all candidates, chosen or"
            " not; none: no discriminator"
        ),
    )
    labels: Literal["gold", "vote"] = Field(
        "gold", description="what L_pred is trained on; gold falls back on nothing"
    )
    positives: Literal["vote", "label"] = Field(
        "vote",
        description=(
            "vote: samples that agree with the vote, the paper's; label: those that agree with"
            " `labels`, where there is one"
        ),
    )
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    mi_weight: NotNegative = Field(
        0.1, description="mi: weight of the cross-entropy between the heads"
    )
    mi_double_softmax: bool = Field(
        False, description="mi: take the softmax twice, as its public code does"
    )
    orpo_lambda: NotNegative = Field(0.1, description="orpo_distill: weight of the odds-ratio term")
    redi_alpha: NotNegative = Field(0.8, description="redi: weight of the negative's likelihood")
    dpo_beta: Positive = Field(0.1, description="dpo: how much a log-likelihood ratio counts")
    dpo_nll: NotNegative = Field(1.0, description="dpo: weight of the positive's own loss")
    dpo_guard: NotNegative = Field(
        50.0, description="dpo: DPO-Positive's lambda, against a positive below its start; 0: off"
    )
    negative_from: Literal["start", "difference"] = Field(
        "start",
        description=(
            "difference: a negative is penalised from the first token that no positive shares; one"
            " equal to a positive is none"
        ),
    )


# MERGED recipe.negatives: ``negatives``: the wrong rationales that the student learns from, and who
# makes them.


class NegativesRecipe(Section):
    """Where negatives come from: the teacher's minority, and the student of `lag` rounds ago;
    beyond the paper, positives with other numbers.
    """

    teacher: bool = True
    student: bool = True
    corrupted: NotNegativeCount = Field(
        0,
        description=(
            "how many a question: positives with one wrong step (after PORT, arXiv 2406.16061)"
        ),
    )
    evolved: NotNegativeCount = Field(
        0,
        description=(
            "how many a question: positives for other numbers (after ECD, arXiv 2410.07513)"
        ),
    )
    lag: Count | Literal["auto"] = Field(
        "auto", description="rounds; auto = min(5, rounds // 5), at least 1"
    )
    before_lag: Literal["oldest", "none"] = "oldest"
    per_question: Count = 1
    temperature: Positive = 1.5
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    right: Literal["keep", "drop", "positive"] = Field(
        "keep",
        description=(
            "student samples whose answer equals the label: negatives all the same (the paper),"
            " left out, or positives"
        ),
    )
    samplers: Count = 1
    sampler: Resources = Resources()
    batch_size: Count = 64
    wait_timeout_s: Positive = 1800.0


# MERGED recipe.discriminator: ``discriminator``: the judge of rationales, and how it is trained.


class DiscriminatorRecipe(Section):
    """D(question, rationale) -> [0, 1]: an encoder, max pooling over tokens, two linear layers
    (section 2 of the paper).
    """

    model: str | None = Field(
        None,
        description=(
            "an encoder, an encoder-decoder whose encoder is used, or a decoder; none: the"
            " student's own start"
        ),
    )
    hidden: Count = 256
    max_tokens: Count = 512
    dropout: Share = 0.1
    loss: Literal["paper", "cross_entropy", "bradley_terry"] = Field(
        "paper", description="paper: equation (2); the others are proper scores"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        0.0,
        description=(
            "cross_entropy: its targets are this far from 1 and 0, against scores that are all too"
            " sure"
        ),
    )
    replay: NotNegativeCount = Field(
        0,
        description="D's steps of a round read the student samples of as many older rounds as well",
    )
    pretrain_steps: Annotated[int, Field(ge=0)] = 500
    steps_per_round: Annotated[int, Field(ge=0)] = 20
    batch_size: Count = Field(32, description="questions per step, over all workers")
    learning_rate: Positive = 1e-4
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.9, description="per round: the paper's alpha3 *= 0.9"
    )
    clip: Positive = 1.0
    mask_share: Share = Field(0.15, description="words masked in an augmented negative")
    replace_share: Share = Field(0.15, description="words replaced in an augmented negative")

    @model_validator(mode="after")
    def _targets(self):
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                "label_smoothing: only the loss cross_entropy has targets to smooth, and this is"
                f" {self.loss}; set it to 0"
            )
        return self
