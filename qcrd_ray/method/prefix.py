"""What a student has read, and what it says of texts that go on from there: the one place where its
two kinds differ in training.

An encoder-decoder encodes its inputs once, and all targets of an input look at that encoding. A
decoder-only model reads its inputs as prompts once, and all targets of a prompt go on from the
prompt's keys and values. Gradients flow through what was read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class Reading(ABC):
    """Inputs that a student has read; :func:`read` makes one."""

    @abstractmethod
    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Logits ``[targets, tokens, vocabulary]`` of ``labels`` ``[targets, tokens]`` (-100 where
        padded), each given the input in its row: ``rows`` ``[targets]``.
        """


def read(student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> Reading:
    """Read ``inputs`` ``[inputs, tokens]``; ``mask`` is 1 where they are real."""
    return (EncoderReading if student.config.is_encoder_decoder else PromptReading)(
        student, inputs, mask
    )


class EncoderReading(Reading):
    """An encoder-decoder's: ``states`` ``[inputs, tokens, width]``."""

    def __init__(self, student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> None:
        self.student, self.mask = student, mask
        self.states: Tensor = student.get_encoder()(
            input_ids=inputs, attention_mask=mask
        ).last_hidden_state

    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        return self.student(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.states[rows]),
            attention_mask=self.mask[rows],
            decoder_input_ids=self.student.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts apart from their last token, with which every text after them starts, as an
    encoder-decoder's starts with its start token.

    ``inputs``, ``mask``, ``positions``: ``[prompts, tokens]``, padded on either side. ``last``
    ``[prompts]`` is the last token, whose
    place is ``ends`` ``[prompts]`` (counted without padding) and which ``before`` ``[prompts,
    tokens]``, unlike ``mask``, leaves out.
    """

    inputs: Tensor
    mask: Tensor
    positions: Tensor
    last: Tensor
    ends: Tensor
    before: Tensor

    @classmethod
    def of(cls, inputs: Tensor, mask: Tensor) -> Prompts:
        places = mask.cumsum(dim=1) - 1
        ends = places[:, -1]
        is_last = (places == ends[:, None]) & (mask == 1)
        return cls(inputs, mask, places.clamp(min=0), inputs[is_last], ends, mask * ~is_last)


class PromptReading(Reading):
    """A decoder-only model's: ``past``, each layer's keys and values ``[prompts, heads, tokens,
    width]``.

    Where the model is trained with gradient checkpointing it may keep no keys and values. Then
    targets with gradient are run together with their prompts, and those without gradient alone
    share them.
    """

    def __init__(self, student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> None:
        self.student, self.prompts = student, Prompts.of(inputs, mask)
        self.past = None if student.is_gradient_checkpointing and student.training else self._read()

    def _read(self) -> list[tuple[Tensor, Tensor]]:
        prompts = self.prompts
        cache = DynamicCache()
        self.student.get_decoder()(
            input_ids=prompts.inputs,
            attention_mask=prompts.mask,
            position_ids=prompts.positions,
            past_key_values=cache,
            use_cache=True,
        )
        return [(layer.keys, layer.values) for layer in cache.layers]

    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        prompts = self.prompts
        tokens = torch.cat([prompts.last[rows][:, None], labels[:, :-1].clamp(min=0)], dim=1)
        mask = torch.cat([prompts.before[rows], torch.ones_like(tokens)], dim=1)
        positions = prompts.ends[rows][:, None] + torch.arange(
            tokens.shape[1], device=tokens.device
        )
        if self.past is None and torch.is_grad_enabled():
            return self.student(
                input_ids=torch.cat([prompts.inputs[rows], tokens], dim=1),
                attention_mask=mask,
                position_ids=torch.cat([prompts.positions[rows], positions], dim=1),
                use_cache=False,
                logits_to_keep=tokens.shape[1],
            ).logits
        past = self._read() if self.past is None else self.past
        return self.student(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=DynamicCache([(keys[rows], values[rows]) for keys, values in past]),
            use_cache=True,
        ).logits
