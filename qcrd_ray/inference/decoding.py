"""Texts that a model is writing, a token at a time: what differs between its two kinds. The loop
around it is `transformers_engine`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from qcrd_ray.method.prefix import EncoderReading, PromptReading


class DecodingState(ABC):
    """``n`` texts after each of the ``inputs`` ``[inputs, tokens]``, whose ``mask`` is 1 where they
    are real.

    ``start`` ``[rows, 1]`` is the token that :meth:`step` takes first; the rows of an input follow
    one another.
    """

    start: Tensor

    @abstractmethod
    def step(self, token: Tensor) -> Tensor:
        """Take the next ``token`` ``[rows, 1]`` of each text; returns the logits of the one after
        it, ``[rows, vocabulary]``.
        """

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with these ``rows`` alone."""


def start_decoding(
    model: PreTrainedModel, inputs: Tensor, mask: Tensor, *, n: int
) -> DecodingState:
    """Read the inputs, once for the n texts of each."""
    return (EncoderDecoderState if model.config.is_encoder_decoder else DecoderOnlyState)(
        model, inputs, mask, n
    )


class EncoderDecoderState(DecodingState):
    def __init__(self, model: PreTrainedModel, inputs: Tensor, mask: Tensor, n: int) -> None:
        self.model = model
        self.states = EncoderReading(model, inputs, mask).states.repeat_interleave(n, 0)
        self.mask = mask.repeat_interleave(n, 0)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        start = model.generation_config.decoder_start_token_id
        start = start if start is not None else model.config.decoder_start_token_id
        self.start = torch.full((len(self.mask), 1), start, device=mask.device)

    def step(self, token: Tensor) -> Tensor:
        return self.model(
            encoder_outputs=BaseModelOutput(self.states),
            attention_mask=self.mask,
            decoder_input_ids=token,
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.states, self.mask = self.states[rows], self.mask[rows]
        self.cache.batch_select_indices(rows)


class DecoderOnlyState(DecodingState):
    def __init__(self, model: PreTrainedModel, inputs: Tensor, mask: Tensor, n: int) -> None:
        self.model = model
        reading = PromptReading(model, inputs, mask)
        self.cache = DynamicCache(
            [tuple(part.repeat_interleave(n, 0) for part in layer) for layer in reading.past]
        )
        self.mask = reading.prompts.before.repeat_interleave(n, 0)
        self.positions = reading.prompts.ends.repeat_interleave(n, 0)[:, None]
        self.start = reading.prompts.last.repeat_interleave(n, 0)[:, None]

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
