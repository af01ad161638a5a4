"""What an engine is, and what all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from qcrd_ray.method.tokenization import tokenise_inputs

UNLIMITED = 1_000_000  # a tokenizer that knows no limit states one of 1e30


@dataclass(frozen=True, slots=True)
class Generated:
    """One generated text. ``tokens`` counts the end-of-sequence token too; ``finish_reason`` is
    `stop` or `length`.
    """

    text: str
    tokens: int
    finish_reason: str


class Engine(Protocol):
    """Something that writes texts. ``temperature`` 0 is greedy; there is no top-k."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int,
        seed: int = 0,
    ) -> list[list[Generated]]:
        """``n`` texts for each prompt, in the order of the prompts."""
        ...

    def load_weights(self, folder: str | Path) -> None:
        """Take the weights of another model of the same shape, in place."""
        ...


def encode(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_input_tokens: int | None
) -> list[list[int]]:
    """Token ids of each prompt as training tokenised it, cut to ``max_input_tokens`` (none: what
    the tokenizer states, if it does).
    """
    limit = max_input_tokens or tokenizer.model_max_length
    if tokenizer.chat_template:
        return [list(row) for row in tokenise_inputs(tokenizer, prompts, max_tokens=limit).rows]
    cut = {"truncation": True, "max_length": limit} if limit < UNLIMITED else {}
    return tokenizer(list(prompts), **cut).input_ids
