"""Texts to token ids, and how many were cut. A cut input or target keeps what ends it.

An encoder-decoder's tokenizer closes every text with EOS. A decoder-only student's tokenizer has a
chat template instead: an input is the template around a user's message, a target is what the
assistant says, closed with EOS. The two are tokenized apart and never together, so the seam between
them is the same in training and in generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from qcrd_ray.method.examples import Tokens

_MARK = "QUESTION-0f6b"


class Tokenized(NamedTuple):
    """``rows`` in the texts' order; a blank text is an empty row.

    ``truncated`` is how many were cut.
    """

    rows: list[Tokens]
    truncated: int


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int
) -> Tokenized:
    """Token ids of each target, at most ``max_tokens`` with the closing EOS.

    EOS is added where the tokenizer adds none. A text of nothing but white space gives (): as a
    target it must be refused, not trained on as a bare EOS.
    """
    if not texts:
        return Tokenized([], 0)
    rows: list[Tokens] = []
    truncated = 0
    end = eos_id(tokenizer)
    all_ids = _token_ids(tokenizer, texts, add_special_tokens=not tokenizer.chat_template)
    for text, ids in zip(texts, all_ids, strict=True):
        if not text.strip():
            rows.append(())
            continue
        body = ids[:-1] if ids and ids[-1] == end else ids
        truncated += len(body) >= max_tokens
        rows.append((*body[: max_tokens - 1], end))
    return Tokenized(rows, truncated)


def tokenize_inputs(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int
) -> Tokenized:
    """Token ids of each input: like a target, or in the tokenizer's chat template.

    A cut shortens the message and leaves the template whole.

    Raises:
        ValueError: the template does not show a message as it is, or leaves no room for one.
    """
    if not texts or not tokenizer.chat_template:
        return tokenize(tokenizer, texts, max_tokens=max_tokens)
    before, after = chat_frame(tokenizer)
    rows = _plain_ids(tokenizer, [before + text + after for text in texts])
    long = [i for i, row in enumerate(rows) if len(row) > max_tokens]
    if long:
        first, last, *bodies = _plain_ids(tokenizer, [before, after, *(texts[i] for i in long)])
        room = max_tokens - len(first) - len(last)
        if room < 1:
            raise ValueError(
                f"the tokenizer's chat template alone takes {max_tokens - room} tokens of the"
                f" {max_tokens} that an input may have"
            )
        for i, body in zip(long, bodies, strict=True):
            rows[i] = [*first, *body[:room], *last]
    return Tokenized([tuple(row) for row in rows], len(long))


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What the chat template puts before a user's message, and after it.

    The second part reaches up to where the assistant begins to write.

    Raises:
        ValueError: the template does not show a message once and as it is.
    """
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": _MARK}], add_generation_prompt=True, tokenize=False
    )
    assert isinstance(shown, str)  # tokenize=False
    if shown.count(_MARK) != 1:
        raise ValueError(
            "the tokenizer's chat template does not show a user's message once and as it is"
        )
    before, _, after = shown.partition(_MARK)
    return before, after


def tokenize_pairs(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    rationales: Sequence[str],
    *,
    max_tokens: int,
) -> Tokenized:
    """(question, rationale) pairs for the discriminator, in the tokenizer's own form of a pair.

    The longer side is cut first. Where that form does not mark the end of a text, as with most
    decoder-only models, each of the two is closed with EOS.
    """
    if not questions:
        return Tokenized([], 0)
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    if not any(token in ends for token in tokenizer("a", "b").input_ids):
        return _closed_pairs(tokenizer, questions, rationales, max_tokens=max_tokens)
    rows = _token_ids(tokenizer, questions, text_pair=list(rationales))
    long = [i for i, row in enumerate(rows) if len(row) > max_tokens]
    for i in long:
        rows[i] = tokenizer(
            questions[i], rationales[i], truncation="longest_first", max_length=max_tokens
        ).input_ids
    return Tokenized([tuple(row) for row in rows], len(long))


def unknown_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """How many tokens of ``text`` are the unknown token: words outside the vocabulary.

    0 for a tokenizer that has none.
    """
    if tokenizer.unk_token_id is None:
        return 0
    return _plain_ids(tokenizer, [text])[0].count(cast("int", tokenizer.unk_token_id))


def _closed_pairs(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    rationales: Sequence[str],
    *,
    max_tokens: int,
) -> Tokenized:
    end, room = eos_id(tokenizer), max_tokens - 2
    rows: list[Tokens] = []
    truncated = 0
    for question, rationale in zip(
        _plain_ids(tokenizer, questions), _plain_ids(tokenizer, rationales), strict=True
    ):
        truncated += len(question) + len(rationale) > room
        of_question = min(len(question), max(room - len(rationale), (room + 1) // 2))
        rows.append((*question[:of_question], end, *rationale[: room - of_question], end))
    return Tokenized(rows, truncated)


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Without the special tokens that the tokenizer would put around each text by itself."""
    return _token_ids(tokenizer, texts, add_special_tokens=False)


def _token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **settings: Any
) -> list[list[int]]:
    return tokenizer(list(texts), verbose=False, **settings).input_ids


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends a text; a student's tokenizer always has one."""
    return cast("int", tokenizer.eos_token_id)  # typed as any kind of special token


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that pads; 0 where the tokenizer has none, since padding is masked everywhere."""
    return cast("int", tokenizer.pad_token_id or 0)
