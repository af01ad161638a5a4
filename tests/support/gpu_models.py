"""Random students of known shapes and made-up examples, for the checks of a GPU.

They need torch and transformers alone, and the same seed gives the same weights on every device.
"""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.method.discriminator import Contrast
from qcrd_ray.method.examples import Example, Rationale, Source, Tokens

PAD, EOS = 0, 1
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
T5_TINY = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
LLAMA_SMALL = {
    "hidden_size": 896,
    "intermediate_size": 2432,
    "num_hidden_layers": 6,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
}
LLAMA_TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def random_student(kind: str, shape: dict[str, int], *, vocabulary: int) -> PreTrainedModel:
    """A student without dropout, on the CPU, in train mode; ``kind`` is "t5" or "llama"."""
    torch.manual_seed(0)
    if kind == "t5":
        config = T5Config(
            vocab_size=vocabulary,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            **shape,
        )
        return T5ForConditionalGeneration(config).train()
    config = LlamaConfig(
        vocab_size=vocabulary, pad_token_id=PAD, bos_token_id=EOS, eos_token_id=EOS, **shape
    )
    return LlamaForCausalLM(config).train()


def word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of one token a word, which closes every text as T5's does."""
    ids = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def random_examples(count: int, *, vocabulary: int, tokens: int, candidates: int) -> list[Example]:
    """Questions of up to ``tokens`` tokens, each with ``candidates`` rationales a side."""
    draw = random.Random(0)

    def text(longest: int) -> Tokens:
        length = draw.randint(max(1, longest // 2), longest) - 1
        return (*(draw.randrange(2, vocabulary) for _ in range(length)), EOS)

    def side(source: Source) -> tuple[Rationale, ...]:
        return tuple(
            Rationale(tokens=text(tokens), source=source, score=draw.random(), weight=draw.random())
            for _ in range(candidates)
        )

    return [
        Example(
            predict=text(tokens),
            explain=text(tokens),
            label=text(4),
            positives=side(Source.TEACHER),
            negatives=side(Source.STUDENT),
            first=text(tokens),
        )
        for _ in range(count)
    ]


def random_contrasts(
    count: int, *, vocabulary: int, tokens: int, candidates: int
) -> list[Contrast]:
    """Questions with ``candidates`` pairs of ``tokens`` tokens a side."""
    draw = random.Random(0)

    def pair() -> Tokens:
        return (*(draw.randrange(2, vocabulary) for _ in range(tokens - 1)), EOS)

    return [
        Contrast(
            positives=tuple(pair() for _ in range(candidates)),
            negatives=tuple(pair() for _ in range(candidates)),
        )
        for _ in range(count)
    ]


def gradient(module: torch.nn.Module) -> torch.Tensor:
    """All gradients of a module in one vector, on the CPU; they are gone from it afterwards."""
    parts = [p.grad.flatten().float().cpu() for p in module.parameters() if p.grad is not None]
    module.zero_grad(set_to_none=True)
    return torch.cat(parts)
