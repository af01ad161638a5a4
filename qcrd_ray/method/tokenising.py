"""Texts to token ids, with what was cut counted. Inputs and targets keep their EOS when they are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from qcrd_ray.method.examples import Tokens


class Tokenised(NamedTuple):
    """``rows`` in the texts' order; a blank text is an empty row. ``truncated``: how many were cut."""

    rows: list[Tokens]
    truncated: int


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> Tokenised:
    """Token ids of each text, at most ``max_tokens`` with the closing EOS, which is added where the tokenizer adds none.

    A text of nothing but white space gives (): as a target it must be refused, not trained on as a bare EOS.
    """
    if not texts:
        return Tokenised([], 0)
    rows, truncated = [], 0
    for text, ids in zip(texts, tokenizer(list(texts), verbose=False)["input_ids"], strict=True):
        if not text.strip():
            rows.append(())
            continue
        body = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
        truncated += len(body) >= max_tokens
        rows.append((*body[: max_tokens - 1], tokenizer.eos_token_id))
    return Tokenised(rows, truncated)


def tokenise_pairs(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], rationales: Sequence[str], *, max_tokens: int
) -> Tokenised:
    """(question, rationale) pairs for the discriminator, in the tokenizer's own form of a pair; the longer side is cut first."""
    if not questions:
        return Tokenised([], 0)
    rows = tokenizer(list(questions), list(rationales), verbose=False)["input_ids"]
    long = [i for i, row in enumerate(rows) if len(row) > max_tokens]
    for i in long:
        rows[i] = tokenizer(questions[i], rationales[i], truncation="longest_first", max_length=max_tokens)["input_ids"]
    return Tokenised([tuple(row) for row in rows], len(long))
