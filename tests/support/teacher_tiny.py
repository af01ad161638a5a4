"""A random Llama of a few thousand weights with a word tokenizer, as a folder."""

from __future__ import annotations

from pathlib import Path


def write_llama(folder: Path, *, words: int = 100, chat_template: str | None = None) -> Path:
    """Numbers and a few words; writes in a second, and in real vLLM it babbles at thousands of
    tokens a second.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "So",
        "the",
        "answer",
        "is",
        ".",
        *map(str, range(words - 9)),
    ]
    tokenizer = Tokenizer(
        models.WordLevel({word: id for id, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return Path(folder)
