"""A tokenizer that spells: one token for a word of the wording, one for each letter of a name.

A space belongs to the word or sign that follows it, so that decoding gives the text back. What is
no word of the wording is spelt, whoever wrote it: no text in Latin letters is unknown.
"""

from __future__ import annotations

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from qcrd_ray.demo.tokenizer import END, PAD, SPACE, UNKNOWN

# of the questions, of most recorded completions, and of the two heads
WORDS = (
    "Concatenating", "Take", "Taking", "The", "Therefore", "and", "answer", "are", "concatenate",
    "concatenating", "each", "explain", "get", "gives", "in", "is", "last", "letter", "letters",
    "of", "predict", "the", "them", "us", "we", "word", "words",
)  # fmt: skip
SIGNS = string.punctuation
ACCENTED = "áéíóúüñçàèìòùâêîôûäëïöãõåøæœßÁÉÍÓÚÜÑÇ"


def build_tokenizer(*, ends_input: bool, max_tokens: int) -> PreTrainedTokenizerFast:
    """The tokenizer.

    Args:
        ends_input: put the end token after every text, as T5's tokenizer does; a decoder's prompt
            has none.
    """
    letters = f"\n{SPACE}{string.ascii_letters}{string.digits}{ACCENTED}"
    pieces = [
        *(SPACE + word for word in WORDS),
        *SIGNS,
        *(SPACE + sign for sign in SIGNS),
        *letters,
    ]
    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    if ends_input:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
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
