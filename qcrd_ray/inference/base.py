"""The engine protocol, and what all engines share: options, results, tokenization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedTokenizerBase

from qcrd_ray.method.tokenization import tokenize_inputs

UNLIMITED = 1_000_000  # a tokenizer without a limit states one of 1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine runs its model.

    ``batch_size`` counts the texts that are decoded together. Prompts are cut to
    ``max_input_tokens`` (None: to the tokenizer's own limit, if it states one).
    ``gpu_memory_utilization`` is the share of a GPU that vLLM takes (None: vLLM's own).
    """

    device: torch.device
    batch_size: int = 64
    max_input_tokens: int | None = None
    trust_remote_code: bool = False
    gpu_memory_utilization: float | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated text.

    ``tokens`` includes the end-of-sequence token; ``finish_reason`` is `stop` or `length`. A text
    that a listener ended has `stop`.
    """

    text: str
    tokens: int
    finish_reason: str


class Listener(Protocol):
    """Hears the texts of one prompt while they are written."""

    def hear(self, sample: int, text: Callable[[], str]) -> bool:
        """Hear that a sample has grown, and return whether it shall end here.

        ``text()`` is the sample so far. It only ever grows, and its end may be held back: what is
        left is in :class:`Generated`. Called in an engine's thread; where that writes on a GPU,
        possibly once for several tokens, and not for the last of all.
        """
        ...


class Engine(Protocol):
    """Generates texts with one student.

    ``concurrent``: threads may call :meth:`generate` at once, and their texts are written together.
    Where it is not, one call runs at a time.
    """

    concurrent: bool

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int,
        seed: int = 0,
        listeners: Sequence[Listener | None] | None = None,
    ) -> list[list[Generated]]:
        """Generate ``n`` texts for each prompt, in the order of the prompts.

        ``temperature`` 0 is greedy. There is no top-k. ``listeners``: one for each prompt.
        """
        ...

    def load_weights(self, folder: str | Path) -> None:
        """Take the weights of another model of the same shape, in place."""
        ...


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_input_tokens: int | None
) -> list[list[int]]:
    """Tokenize each prompt as training does, and cut it to ``max_input_tokens``.

    None stands for the tokenizer's own limit, if it states one.
    """
    limit = max_input_tokens or tokenizer.model_max_length
    if tokenizer.chat_template:
        return [list(row) for row in tokenize_inputs(tokenizer, prompts, max_tokens=limit).rows]
    if limit >= UNLIMITED:
        return tokenizer(list(prompts)).input_ids
    return tokenizer(list(prompts), truncation=True, max_length=limit).input_ids


def text_so_far(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of ``ids``, as far as no further token can change it."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    assert isinstance(text, str)
    if tokenizer.clean_up_tokenization_spaces:  # it may yet join the last word to the next
        text = text.rpartition(" ")[0]
    # the bytes of an unfinished character
    return text.rstrip("\ufffd").strip()


def hear_all(listener: Listener, samples: Sequence[int], text: Callable[[], str]) -> bool:
    """Tell ``listener`` of ``samples`` that are one text; return whether they shall end here."""
    return any([listener.hear(sample, text) for sample in samples])
