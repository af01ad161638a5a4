"""Inputs encoded once, and the logits of all targets that continue them.

This is the one place where the two kinds of student differ in training. An encoder-decoder encodes
its inputs once, and all targets of an input attend to that encoding. A decoder-only model reads its
inputs as prompts once, and all targets of a prompt continue from the prompt's keys and values.
Gradients flow through the encoded inputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from qcrd_ray.method.token_losses import CHUNK_LOGITS, token_losses


class EncodedInputs(ABC):
    """Inputs that ``student`` has encoded; :func:`encode_inputs` makes one."""

    student: PreTrainedModel

    def losses(
        self,
        labels: Tensor,
        rows: Tensor,
        counted: Tensor | None = None,
        *,
        chunk: int = CHUNK_LOGITS,
    ) -> Tensor:
        """The loss in nats of each token of ``labels`` ``[targets, tokens]``, 0 where ignored.

        ``labels`` and ``rows`` as in :meth:`logits`. ``counted``: the labels with those left out
        that are read and not counted. ``chunk``: how many logits are made at a time.
        """
        return token_losses(
            self.student,
            lambda: self.logits(labels, rows),
            labels if counted is None else counted,
            chunk=chunk,
        )

    @abstractmethod
    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        """Logits ``[targets, tokens, vocabulary]`` of ``labels`` ``[targets, tokens]``.

        ``labels`` is -100 where padded. ``rows`` ``[targets]`` is the row of each target's input.
        """


def encode_inputs(student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> EncodedInputs:
    """Encode ``inputs`` ``[inputs, tokens]``; ``mask`` is 1 where they are real."""
    return (EncoderStates if student.config.is_encoder_decoder else PromptCache)(
        student, inputs, mask
    )


class EncoderStates(EncodedInputs):
    """An encoder-decoder's encoded inputs: ``states`` ``[inputs, tokens, width]``."""

    def __init__(self, student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> None:
        self.student, self.mask = student, mask
        encoder = cast("nn.Module", student.get_encoder())  # typed as Tensor | Module
        self.states: Tensor = encoder(input_ids=inputs, attention_mask=mask).last_hidden_state

    def logits(self, labels: Tensor, rows: Tensor) -> Tensor:
        shift_right = cast("Callable", self.student.prepare_decoder_input_ids_from_labels)
        return self.student(
            encoder_outputs=BaseModelOutput(
                # the stub asks for torch.FloatTensor, a legacy type
                last_hidden_state=self.states[rows]  # pyright: ignore[reportArgumentType]
            ),
            attention_mask=self.mask[rows],
            decoder_input_ids=shift_right(labels),
            use_cache=False,
        ).logits


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts split into their last token and all before it.

    Every text after a prompt starts with that last token, as an encoder-decoder's texts start with
    its start token.

    ``inputs``, ``mask``, ``positions``: ``[prompts, tokens]``, padded on either side. ``last``
    ``[prompts]`` is the last token. Its position, counted without padding, is ``ends``
    ``[prompts]``; ``before`` ``[prompts, tokens]`` leaves it out, unlike ``mask``.
    """

    inputs: Tensor
    mask: Tensor
    positions: Tensor
    last: Tensor
    ends: Tensor
    before: Tensor

    @classmethod
    def of(cls, inputs: Tensor, mask: Tensor) -> Prompts:
        """Split ``inputs`` ``[prompts, tokens]``; ``mask`` is 1 where they are real."""
        places = mask.cumsum(dim=1) - 1
        ends = places[:, -1]
        is_last = (places == ends[:, None]) & (mask == 1)
        last = inputs.gather(1, is_last.int().argmax(dim=1, keepdim=True))[:, 0]
        return cls(inputs, mask, places.clamp(min=0), last, ends, mask * ~is_last)


class PromptCache(EncodedInputs):
    """A decoder-only model's encoded inputs: ``past``, each layer's keys and values.

    Each is ``[prompts, heads, tokens, width]``. A model that is trained with gradient checkpointing
    may keep no keys and values (``past`` is None). Then targets with gradient are run together with
    their prompts, and only those without gradient share them.
    """

    def __init__(self, student: PreTrainedModel, inputs: Tensor, mask: Tensor) -> None:
        self.student, self.prompts = student, Prompts.of(inputs, mask)
        checkpointing = student.is_gradient_checkpointing and student.training
        self.past = None if checkpointing else self._read_prompts()

    def _read_prompts(self) -> list[tuple[Tensor, Tensor]]:
        prompts = self.prompts
        cache = DynamicCache()
        decoder = cast("nn.Module", self.student.get_decoder())
        decoder(
            input_ids=prompts.inputs,
            attention_mask=prompts.mask,
            position_ids=prompts.positions,
            past_key_values=cache,
            use_cache=True,
        )
        # every layer holds keys and values: models.pretrained refuses students of other layers
        layers = cast("list[DynamicLayer]", cache.layers)
        return [
            (layer.keys, layer.values)
            for layer in layers
            if layer.keys is not None and layer.values is not None
        ]

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
        past = self._read_prompts() if self.past is None else self.past
        return self.student(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=DynamicCache([(keys[rows], values[rows]) for keys, values in past]),
            use_cache=True,
        ).logits
