"""The demo's tokenizer: one token for each word, number or sign.

A space belongs to the word that follows it, so decoding gives the text back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from qcrd_ray.tasks import word_problems as wp

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "▁"
# the prefixes, the teacher's prompt, the closing phrase
FRAMES = ("predict: 0", "explain: 0", "Q: 0?\nA:", "So the answer is 0.")


def words() -> list[str]:
    """Every word, number and sign of stories, rationales, prompts and closing phrases, sorted."""
    stories = itertools.chain.from_iterable(
        (q.question, q.rationale or "") for q in wp.generate(5_000, seed=0, kind="pretraining")
    )
    names = itertools.chain(*wp.NAMES.values(), wp.THINGS, map(str, range(wp.LARGEST + 1)))
    pieces: set[str] = set()
    for text in itertools.chain(stories, names, FRAMES):
        pieces.update(piece for piece, _ in _splitter().pre_tokenize_str(text))
    return sorted(pieces)


def build_tokenizer(*, ends_input: bool, max_tokens: int) -> PreTrainedTokenizerFast:
    """The tokenizer; for the arguments see :func:`tokenizer_of`."""
    return tokenizer_of(words(), _splitter(), ends_input=ends_input, max_tokens=max_tokens)


def tokenizer_of(
    pieces: Iterable[str],
    splitter: pre_tokenizers.PreTokenizer,
    *,
    ends_input: bool,
    max_tokens: int,
) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each of ``pieces``, into which ``splitter`` cuts a text.

    Args:
        ends_input: put the end token after every text, as T5's tokenizer does; a decoder's prompt
            has none.
    """
    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    return framed(tokenizer, ends_input=ends_input, max_tokens=max_tokens)


def framed(tokenizer: Tokenizer, *, ends_input: bool, max_tokens: int) -> PreTrainedTokenizerFast:
    """``tokenizer``, which writes a space as ``▁``, with the special tokens and a decoder."""
    end = tokenizer.token_to_id(END)
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    if ends_input:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, end)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=max_tokens,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _splitter() -> pre_tokenizers.PreTokenizer:
    """Cut a text into words and signs, each with the space before it written as ``▁``."""
    space = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    return pre_tokenizers.Sequence(
        [space, pre_tokenizers.Split(Regex(rf"{SPACE}?(\w+|[^\w{SPACE}])"), "isolated")]
    )
