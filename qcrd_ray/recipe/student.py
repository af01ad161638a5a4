"""``student``: the model that is trained, and what it starts from."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from qcrd_ray.recipe.base import Count, Positive, Section, Share


class ScratchRecipe(Section):
    """A small random student, and a tokenizer trained on the questions.

    It is there to try a run on your own data, not for accuracy.
    """

    kind: Literal["t5", "llama"] = "t5"
    """An encoder-decoder, or a decoder-only model."""
    d_model: Count = 64
    """Width of the hidden states."""
    d_ff: Count = 128
    """Width of the feed-forward layers."""
    layers: Count = 2
    """Layers of the decoder, and of the encoder if it has one."""
    heads: Count = 4
    """Attention heads; they divide `d_model`."""
    vocabulary: Count = 2_000
    """Tokens of the tokenizer, at most."""


class LoraRecipe(Section):
    """Low-rank adapters (arXiv 2106.09685) that are trained instead of all weights.

    They need the peft package. A student that is written to disk has its adapters merged.
    """

    rank: Count = 16
    """Rank of the adapters; raise it where they learn too little."""
    alpha: Positive = 32.0
    """The adapters' output is scaled by alpha / rank."""
    dropout: Share = 0.0
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ()
    """Linear layers that get adapters: [q_proj, v_proj]; []: all but the output."""


class StudentRecipe(Section):
    """The student: a T5-family encoder-decoder or a decoder-only model (Llama, Qwen).

    It is pretrained (`model`) or random (`scratch`).
    """

    model: str | None = None
    """Pretrained model: hub id, folder, or `demo` for the shipped base."""
    scratch: ScratchRecipe | None = None
    """A random student instead of a pretrained one."""
    max_input_tokens: Count = 1024
    """Longer questions are cut, and counted."""
    max_target_tokens: Count = 256
    """Longer rationales and answers are cut."""
    dropout: Share | None = None
    """Dropout in training; null: the model's own."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Decoder-only students: whether questions stand in the model's chat template; auto: where it
    has one.
    """
    lora: LoraRecipe | None = None
    """Train adapters alone: {rank: 16, alpha: 32, dropout: 0, targets: []}; null: train all
    weights.
    """
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; only for one you trust."""

    @model_validator(mode="after")
    def _one_start(self):
        if (self.model is None) == (self.scratch is None):
            raise ValueError(
                "give exactly one of `model` (a pretrained student) and `scratch` (a random one)"
            )
        return self
