"""The shapes of the small models that are made from scratch, and how texts reach them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.demo.training_loop import IGNORED, Part
from qcrd_ray.method.collation import pad_rows
from qcrd_ray.method.tokenization import pad_id, tokenize, tokenize_inputs

MAX_TOKENS = 192
# how a decoder-only base shows a question: on a line of its own
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"


def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A decoder of 0.7 M parameters. vLLM's attention on CPUs needs heads of 32 or more."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        **_special_tokens(tokenizer),
    )
    # the quickest backward on a CPU
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def t5(tokenizer: PreTrainedTokenizerFast, *, layers: int = 2) -> T5ForConditionalGeneration:
    """An encoder-decoder of 0.8 M parameters; without dropout, since its texts are made anew."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=384,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportCallIssue]  # PretrainedConfig takes it
        **_special_tokens(tokenizer),
    )
    return T5ForConditionalGeneration(config)


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}


def pairs(tokenizer: PreTrainedTokenizerFast, inputs: list[str], targets: list[str]) -> Part:
    """A student's inputs with their targets, which alone are learnt.

    A decoder-only student has a chat template; its texts are cut into tokens as in its training.
    """
    if tokenizer.chat_template:
        prompts = tokenize_inputs(tokenizer, inputs, max_tokens=MAX_TOKENS).rows
        return continued(tokenizer, prompts, targets)
    batch = tokenizer(inputs, padding=True, return_tensors="pt")
    labels = tokenizer(targets, padding=True, return_tensors="pt")
    return {**batch, "labels": labels.input_ids.masked_fill(labels.attention_mask == 0, IGNORED)}


def continued(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Sequence[int]], answers: list[str]
) -> Part:
    """Each prompt's tokens with its answer's and the end; only the answer is learnt."""
    ends = tokenize(tokenizer, answers, max_tokens=MAX_TOKENS).rows
    rows = [(*prompt, *end) for prompt, end in zip(prompts, ends, strict=True)]
    ids, mask = pad_rows(rows, pad_id(tokenizer))
    labels = ids.masked_fill(mask == 0, IGNORED)
    for row, prompt in enumerate(prompts):
        labels[row, : len(prompt)] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
