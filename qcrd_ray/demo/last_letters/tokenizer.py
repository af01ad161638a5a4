"""A tokenizer that spells: one token for a word of the wording, one for each letter of a name.

A space belongs to the word or sign that follows it, so that decoding gives the text back. What is
no word of the wording is spelt, whoever wrote it: no text in Latin letters is unknown.
"""

from __future__ import annotations

import re
import string

from tokenizers import Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from qcrd_ray.demo.tokenizer import SPACE, tokenizer_of

# of the questions, of most recorded completions, and of the two heads
WORDS = (
    "Concatenating", "Take", "Taking", "The", "Therefore", "and", "answer", "are", "concatenate",
    "concatenating", "each", "explain", "get", "gives", "in", "is", "last", "letter", "letters",
    "of", "predict", "the", "them", "us", "we", "word", "words",
)  # fmt: skip
SIGNS = string.punctuation
ACCENTED = "áéíóúüñçàèìòùâêîôûäëïöãõåøæœßÁÉÍÓÚÜÑÇ"


def build_tokenizer(*, ends_input: bool, max_tokens: int) -> PreTrainedTokenizerFast:
    """The tokenizer; for the arguments see :func:`qcrd_ray.demo.tokenizer.tokenizer_of`."""
    letters = f"\n{SPACE}{string.ascii_letters}{string.digits}{ACCENTED}"
    pieces = [
        *(SPACE + word for word in WORDS),
        *SIGNS,
        *(SPACE + sign for sign in SIGNS),
        *letters,
    ]
    return tokenizer_of(pieces, _splitter(), ends_input=ends_input, max_tokens=max_tokens)


def _splitter() -> pre_tokenizers.PreTokenizer:
    """Cut a text into words of the wording, signs and letters, ``▁`` for the space before.

    A word that a quotation mark opens has no space before it, and one that a quotation mark closes
    is excepted: such a word is a name or an answer ("as").
    """
    space = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=False)
    words = rf"{SPACE}(?:{'|'.join(WORDS)})(?![\w'\"])"
    signs = rf"{SPACE}?[{re.escape(SIGNS)}]"
    return pre_tokenizers.Sequence(
        [space, pre_tokenizers.Split(Regex(rf"{words}|{signs}|[\s\S]"), "isolated")]
    )
