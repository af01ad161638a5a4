"""``student``: the model that is trained, and what it starts from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, Positive, Section, Share


class ScratchRecipe(Section):
    """A small random student and a tokenizer trained on the questions: for trying the road on one's
    own data, not for accuracy.
    """

    kind: Literal["t5", "llama"] = Field(
        "t5", description="an encoder-decoder, or a decoder-only model"
    )
    d_model: Count = 64
    d_ff: Count = 128
    layers: Count = 2
    heads: Count = 4
    vocabulary: Count = 2_000


class LoraRecipe(Section):
    """Low-rank adapters (arXiv 2106.09685) instead of training all weights; needs the peft package.
    Written students have them merged.
    """

    rank: Count = 16
    alpha: Positive = Field(32.0, description="the adapters count alpha / rank")
    dropout: Share = 0.0
    targets: tuple[str, ...] = Field(
        (), description="names of linear layers, such as q_proj; none: all but the output's"
    )


class StudentRecipe(Section):
    """The student: a T5-family encoder-decoder or a decoder-only model (Llama, Qwen), pretrained
    (`model`) or random (`scratch`).
    """

    model: str | None = Field(None, description="hub id, folder, or `demo` for the shipped base")
    scratch: ScratchRecipe | None = None
    max_input_tokens: Count = 1024
    max_target_tokens: Count = 256
    dropout: Share | None = Field(None, description="none: the model's own")
    chat: Literal["auto", "always", "never"] = Field(
        "auto",
        description=(
            "decoder-only: put questions in the model's chat template: auto = where it has one"
        ),
    )
    lora: LoraRecipe | None = Field(
        None,
        description=(
            "{rank: 16, alpha: 32, dropout: 0, targets: []}: train adapters alone; none: all"
            " weights are trained"
        ),
    )
    gradient_checkpointing: bool = Field(
        False,
        description="compute activations again in the backward pass, which saves memory for time",
    )
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_start(self):
        if (self.model is None) == (self.scratch is None):
            raise ValueError(
                "give exactly one of `model` (a pretrained student) and `scratch` (a random one)"
            )
        return self
