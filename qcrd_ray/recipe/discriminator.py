"""``discriminator``: the judge of rationales, and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.sections import Count, NotNegativeCount, Positive, Section, Share


class DiscriminatorRecipe(Section):
    """D(question, rationale) -> [0, 1]: an encoder, max pooling over tokens, two linear layers (section 2 of the paper)."""

    model: str | None = Field(
        None, description="an encoder, an encoder-decoder whose encoder is used, or a decoder; none: the student's own start"
    )
    hidden: Count = 256
    max_tokens: Count = 512
    dropout: Share = 0.1
    loss: Literal["paper", "cross_entropy", "bradley_terry"] = Field(
        "paper", description="paper: equation (2); the others are proper scores"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = Field(
        0.0, description="cross_entropy: its targets are this far from 1 and 0, against scores that are all too sure"
    )
    replay: NotNegativeCount = Field(0, description="D's steps of a round read the student samples of as many older rounds as well")
    pretrain_steps: Annotated[int, Field(ge=0)] = 500
    steps_per_round: Annotated[int, Field(ge=0)] = 20
    batch_size: Count = Field(32, description="questions per step, over all workers")
    learning_rate: Positive = 1e-4
    learning_rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.9, description="per round: the paper's alpha3 *= 0.9")
    clip: Positive = 1.0
    mask_share: Share = Field(0.15, description="words masked in an augmented negative")
    replace_share: Share = Field(0.15, description="words replaced in an augmented negative")

    @model_validator(mode="after")
    def _targets(self):
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"label_smoothing: only the loss cross_entropy has targets to smooth, and this is {self.loss}; set it to 0")
        return self
