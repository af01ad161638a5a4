"""The state of texts that are decoded a token at a time: where the two kinds of model differ.

The loop around it is in :mod:`qcrd_ray.inference.transformers_engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from qcrd_ray.method.prefix import EncoderStates, PromptCache


def start_decoding(
    model: PreTrainedModel, inputs: Tensor, mask: Tensor, *, n: int
) -> DecodingState:
    """Read ``inputs`` ``[inputs, tokens]`` (``mask`` is 1 where they are real) once for n texts."""
    state = EncoderDecoderState if model.config.is_encoder_decoder else DecoderOnlyState
    return state(model, inputs, mask, n)


class DecodingState(ABC):
    """``n`` unfinished texts for each input; one text is a row, and an input's rows are adjacent.

    ``start`` ``[rows, 1]`` is the token to give to the first :meth:`step`.
    """

    start: Tensor

    @abstractmethod
    def step(self, token: Tensor) -> Tensor:
        """Append ``token`` ``[rows, 1]``; return the next token's logits ``[rows, vocabulary]``."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Drop all rows but ``rows`` ``[kept]`` (indices)."""


class EncoderDecoderState(DecodingState):
    """The encoding of each input, repeated n times, and the decoder's cache."""

    def __init__(self, model: PreTrainedModel, inputs: Tensor, mask: Tensor, n: int) -> None:
        self.model = model
        self.states = EncoderStates(model, inputs, mask).states.repeat_interleave(n, 0)
        self.mask = mask.repeat_interleave(n, 0)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        generation = model.generation_config
        start = generation.decoder_start_token_id if generation is not None else None
        start = start if start is not None else model.config.decoder_start_token_id
        self.start = torch.full((len(self.mask), 1), start, device=mask.device)

    def step(self, token: Tensor) -> Tensor:
        return self.model(
            # the stub asks for FloatTensor, a type that no tensor of today has
            encoder_outputs=BaseModelOutput(self.states),  # pyright: ignore[reportArgumentType]
            attention_mask=self.mask,
            decoder_input_ids=token,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.states, self.mask = self.states[rows], self.mask[rows]
        self.cache.batch_select_indices(rows)


class DecoderOnlyState(DecodingState):
    """The keys and values of each prompt, repeated n times, and the position of each text."""

    def __init__(self, model: PreTrainedModel, inputs: Tensor, mask: Tensor, n: int) -> None:
        self.model = model
        prefix = PromptCache(model, inputs, mask)
        assert prefix.past is not None, "only a model in training mode keeps no keys and values"
        self.cache = DynamicCache(
            [tuple(part.repeat_interleave(n, 0) for part in layer) for layer in prefix.past]
        )
        self.mask = prefix.prompts.before.repeat_interleave(n, 0)
        self.positions = prefix.prompts.ends.repeat_interleave(n, 0)[:, None]
        self.start = prefix.prompts.last.repeat_interleave(n, 0)[:, None]

    def step(self, token: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, torch.ones_like(token)], dim=1)
        logits = self.model(
            input_ids=token,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.positions = self.positions + 1
        return logits

    def keep(self, rows: Tensor) -> None:
        self.mask, self.positions = self.mask[rows], self.positions[rows]
        self.cache.batch_select_indices(rows)
