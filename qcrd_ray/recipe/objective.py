"""``objective``, ``negatives`` and ``discriminator``: the loss, wrong rationales, and their scores.

Equation numbers are those of method/METHOD.md.
"""

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
    """The loss that the student is trained with: alpha_pred * L_pred + alpha_cl * L_cl (8).

    L_pred is the loss of the label; L_cl is small where right rationales are likely and wrong ones
    are not (3). `qcrd` is the paper's method. The others are what it is compared with: `finetune`
    (label only), `single_task` (one target: rationale, then label), `dss` (Distilling
    Step-by-Step), `mi` (dss and mutual information), and `orpo_distill`, `redi` and `dpo`, which
    learn from pairs of a right and a wrong rationale.
    """

    name: ObjectiveName = "qcrd"
    """The training method."""
    alpha_pred: NotNegative = 0.5
    """Weight of the label's loss (alpha1)."""
    alpha_cl: NotNegative = 0.5
    """Weight of the rationales' loss (alpha2)."""
    beta: NotNegative = 0.2
    """Weight of wrong rationales against right ones in equation (3)."""
    delta: Positive = 3.0
    """Nats a token: a wrong rationale with a higher loss is unlikely enough and no longer pushed
    down.
    """
    selection: Literal["minmax", "maxmin", "sampling", "mean", "weighted_mean"] = "minmax"
    """Which rationales of a question are trained on: the likeliest positive and the least likely
    negative (minmax, the paper), the reverse, one of each at random, or the mean over all.
    """
    weights: Literal["score", "normalised", "none"] = "score"
    """Weights of rationales: score, the discriminator's s and 1 - s; normalised, these divided by
    their mean over all candidates; none, without a discriminator.
    """
    labels: Literal["gold", "vote"] = "gold"
    """The label: the data's answer (questions without one have none), or the vote."""
    positives: Literal["vote", "label"] = "vote"
    """The teacher's right samples: those that agree with the vote (the paper), or with the label
    where there is one.
    """
    sft_rounds: NotNegativeCount = 0
    """Rounds at the start in which wrong rationales are not learnt from, and not sampled from the
    student: supervised fine-tuning on right ones. For `qcrd`, `orpo_distill`, `redi` and `dpo`.
    """
    prediction_mean: Literal["tokens", "examples"] = "tokens"
    """What L_pred is a mean over: the batch's label tokens, or its examples."""
    mi_weight: NotNegative = 0.1
    """For `mi`: weight of the cross-entropy between the heads."""
    orpo_lambda: NotNegative = 0.1
    """For `orpo_distill`: weight of the odds-ratio term."""
    redi_alpha: NotNegative = 0.8
    """For `redi`: weight of the negative's likelihood."""
    dpo_beta: Positive = 0.1
    """For `dpo`: factor of the log-likelihood ratios."""
    dpo_nll: NotNegative = 1.0
    """For `dpo`: weight of the positive's own loss."""
    dpo_guard: NotNegative = 50.0
    """For `dpo`: penalty on a positive that is less likely than under the reference (DPO-Positive),
    which is the student at the start, or after `sft_rounds`.
    """
    negative_from: Literal["start", "difference"] = "start"
    """Where the loss of a negative begins: at its start (the paper), or at the first token that no
    positive shares.
    """


class NegativesRecipe(Section):
    """Where wrong rationales come from.

    The paper takes the teacher's samples that lost the vote, and samples of the student as it was
    `lag` rounds ago. Beyond the paper: right rationales with changed numbers.
    """

    teacher: bool = True
    """Use the teacher's samples that disagree with the vote."""
    student: bool = True
    """Use samples of an older snapshot of the student."""
    corrupted: NotNegativeCount = 0
    """Right rationales with one wrong step to add per question and round (after PORT, arXiv
    2406.16061).
    """
    evolved: NotNegativeCount = 0
    """Right rationales for other numbers to add per question and round (after ECD, arXiv
    2410.07513).
    """
    lag: Count | Literal["auto"] = "auto"
    """Age of the snapshot in rounds; auto: min(5, rounds // 5), at least 1."""
    before_lag: Literal["oldest", "none"] = "oldest"
    """In the first `lag` rounds: sample the untrained student, or use no samples."""
    per_question: Count = 1
    """Samples of the student per question and round."""
    temperature: Positive = 1.5
    """Sampling temperature of the student."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: share of the probability that is sampled from."""
    right: Literal["keep", "drop", "positive"] = "keep"
    """Student samples whose answer equals the label: keep them as negatives (the paper), drop them,
    or make positives of them.
    """
    samplers: Count = 1
    """Processes that sample the student beside training; raise it if it waits."""
    sampler: Resources = Resources()
    """What one of them takes of the cluster."""
    engine: Literal["transformers", "auto", "ctranslate2", "vllm"] = "transformers"
    """What samples: transformers, whose texts depend on seed and weights alone; vllm for a
    decoder-only student on a GPU; auto: as serve.engine.
    """
    batch_size: Count = 64
    """Texts sampled together; a GPU is used well from 512 on."""
    wait_timeout_s: Positive = 1800.0
    """Seconds that training waits for late samples before it fails."""


class DiscriminatorRecipe(Section):
    """The discriminator D(question, rationale) -> [0, 1], which scores rationales.

    It is an encoder, max pooling over its tokens, and two linear layers.
    """

    model: str | None = None
    """Its encoder: an encoder, an encoder-decoder (its encoder is used) or a decoder; null: the
    model that the student starts from.
    """
    layers: Count | None = None
    """How many of the encoder's layers it has, the first ones; null: all. It costs as many."""
    hidden: Count = 256
    """Width between the two linear layers."""
    max_tokens: Count = 512
    """Question and rationale together; longer ones are cut."""
    dropout: Share = 0.1
    """Dropout before the linear layers."""
    loss: Literal["paper", "cross_entropy", "bradley_terry"] = "paper"
    """The loss of its scores: equation (2), or one that gives calibrated scores."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """For `cross_entropy`: distance of the targets from 0 and 1; raise it if scores are extreme.
    """
    positives: Literal["vote", "label"] = "vote"
    """Which of the teacher's samples are right to it: those that are the student's positives (the
    vote's, by the paper), or those that agree with the label where there is one.
    """
    augment: Literal["words", "numbers", "none"] = "words"
    """What fills up the negatives of a question that has more positives: positives with masked and
    replaced words (the paper), with a wrong number or operation, or nothing.
    """
    replay: NotNegativeCount = 0
    """Older rounds whose student samples it is trained on once more."""
    pretrain_steps: Annotated[int, Field(ge=0)] = 500
    """Steps before the student's first round."""
    steps_per_round: Annotated[int, Field(ge=0)] = 20
    """Steps at the start of each round."""
    batch_size: Count = 32
    """Questions per step, over all workers."""
    micro_batch_tokens: Count = 16_384
    """Tokens that a worker takes at a time, padding included; changes nothing but memory and speed.
    Lower it when memory runs out: without checkpointing, a T5-base keeps 1.5 MB a token.
    """
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of weights and activations; see `train.precision`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    learning_rate: Positive = 1e-4
    """Learning rate of AdamW in the first round."""
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Factor of the learning rate per round (the paper decays alpha3)."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    mask_share: Share = 0.15
    """For `words`: share of words masked in an augmented negative."""
    replace_share: Share = 0.15
    """For `words`: share of words replaced in it."""
    probe: NotNegativeCount = 100
    """Validation questions that it is measured on when the student is validated, on fresh samples
    of the student; 0: none.
    """

    @model_validator(mode="after")
    def _targets(self):
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(
                "label_smoothing: only the loss cross_entropy has targets to smooth, and this is"
                f" {self.loss}; set it to 0"
            )
        return self
