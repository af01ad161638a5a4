"""Tiny networks and examples for the tests of ``qcrd_ray.method``: built from a configuration,
nothing is loaded.
"""

from __future__ import annotations

import random

import torch
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.method.collation import collate
from qcrd_ray.method.examples import Counts, Example, MicroBatch, Rationale, Source
from qcrd_ray.method.objectives import (
    Forward,
    Objective,
    ObjectiveConfig,
    Targets,
    build_objective,
    total_counts,
)
from qcrd_ray.method.weights import assign_weights

PAD, EOS, VOCABULARY = 0, 1, 40


def tiny_t5(*, dropout: float = 0.0, seed: int = 0) -> T5ForConditionalGeneration:
    """A T5 of some 20,000 weights, in train mode."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=24,
        d_kv=6,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        dropout_rate=dropout,
        decoder_start_token_id=PAD,
    )
    return T5ForConditionalGeneration(config).train()


def tiny_llama(*, dropout: float = 0.0, seed: int = 0, **changes) -> LlamaForCausalLM:
    """A Llama of some 10,000 weights, with grouped queries, in train mode."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_DECODER, attention_dropout=dropout, **changes)).train()


def tiny_qwen3(*, dropout: float = 0.0, seed: int = 0) -> Qwen3ForCausalLM:
    """The same with norms on queries and keys, and tied embeddings."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(
        Qwen3Config(**_DECODER, attention_dropout=dropout, tie_word_embeddings=True)
    ).train()


def tiny_gpt2(*, dropout: float = 0.0, seed: int = 0) -> GPT2LMHeadModel:
    """Learnt absolute positions, which show a position counted wrongly where rotary ones would hide
    a shift.
    """
    torch.manual_seed(seed)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    ends = {"bos_token_id": EOS, "eos_token_id": EOS}
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=4, n_positions=64, **rates, **ends
        )
    ).train()


_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "initializer_range": 0.2,  # the usual 0.02 makes so small a model say the same of everything
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
KINDS = {"t5": tiny_t5, "llama": tiny_llama}


def plain_logits(
    model: PreTrainedModel, source: tuple[int, ...], target: tuple[int, ...]
) -> torch.Tensor:
    """What a model says of one unpadded target, ``[tokens, vocabulary]``, by a call that shares
    nothing with another.
    """
    if model.config.is_encoder_decoder:
        return model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
    return model(input_ids=torch.tensor([(*source, *target)]), use_cache=False).logits[
        0, len(source) - 1 : -1
    ]


def plain_nll(
    model: PreTrainedModel, source: tuple[int, ...], target: tuple[int, ...]
) -> torch.Tensor:
    """The mean over one target's tokens."""
    return F.cross_entropy(plain_logits(model, source, target), torch.tensor(target))


def tokens(random: random.Random, length: int) -> tuple[int, ...]:
    return (*(random.randrange(2, VOCABULARY) for _ in range(length)), EOS)


def rationale(random: random.Random, source: Source = Source.TEACHER) -> Rationale:
    written = tokens(random, random.randint(2, 7))
    return Rationale(
        tokens=written, source=source, score=random.random(), reference=3.5 * len(written)
    )


def weighed(examples: list[Example], weights: str = "score") -> list[Example]:
    return list(assign_weights(dict(enumerate(examples)), weights=weights).values())


def varied_examples(count: int = 8, seed: int = 3) -> list[Example]:
    """Questions of many lengths; among them one without negatives, one without positives, one
    without anything, one without a label.
    """
    draw = random.Random(seed)
    examples = []
    for i in range(count):
        positives = 0 if i in (2, 3) else 1 + i % 4
        negatives = 0 if i in (1, 3) else 1 + i % 2
        examples.append(
            Example(
                predict=tokens(draw, 3 + i % 5),
                explain=tokens(draw, 4 + i % 3),
                label=None if i == 4 else tokens(draw, 1 + i % 2),
                positives=tuple(rationale(draw) for _ in range(positives)),
                negatives=tuple(
                    rationale(draw, Source.STUDENT if j else Source.TEACHER)
                    for j in range(negatives)
                ),
                first=None if i == 5 else tokens(draw, 4),
                single=None if i == 6 else tokens(draw, 5),
            )
        )
    return weighed(examples)


def given_losses(
    questions: list[tuple[list[float], list[float], list[float], list[float]]],
    objective: Objective,
    draws: tuple[float, float] = (0.0, 0.0),
    *,
    start: float = 0.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor, MicroBatch]:
    """Run an objective on stated losses instead of a network's: (loss, sums, the losses as a leaf
    with gradient, the batch).

    A question is (l+, s+, l-, s-); the leaf holds all the losses in that order. ``start``: what
    each of them was at the start.
    """
    examples = weighed(
        [
            Example(
                predict=(EOS,),
                explain=(EOS,),
                positives=tuple(
                    Rationale(tokens=(EOS,), score=score, reference=start)
                    for score in positive_scores
                ),
                negatives=tuple(
                    Rationale(tokens=(EOS,), score=score, reference=start)
                    for score in negative_scores
                ),
            )
            for _, positive_scores, _, negative_scores in questions
        ],
        objective.config.weights,
    )
    batch = collate(examples, objective, pad=PAD)
    values = [value for positive, _, negative, _ in questions for value in (*positive, *negative)]
    losses = torch.tensor(values, requires_grad=True)
    batch = batch._replace(
        weights=batch.weights.clone().requires_grad_(),
        draws=torch.tensor([draws] * len(batch.positives)).view(-1, 2),
    )
    chosen = objective.select(losses, batch)
    sides = [Targets(losses[side] * (side >= 0), (side >= 0).long()) for side in chosen]
    label = Targets(torch.zeros(1), torch.zeros(1, dtype=torch.long))
    loss, sums = objective.loss(
        batch, Forward(label, chosen, *sides), total_counts(objective, examples)
    )
    return loss, sums, losses, batch


def contrastive_only(**settings) -> Objective:
    """The paper's objective with L_cl alone, at weight 1."""
    return build_objective(ObjectiveConfig(name="qcrd", alpha_pred=0.0, alpha_cl=1.0, **settings))


__all__ = [
    "EOS",
    "KINDS",
    "PAD",
    "VOCABULARY",
    "Counts",
    "contrastive_only",
    "given_losses",
    "plain_logits",
    "plain_nll",
    "rationale",
    "tiny_gpt2",
    "tiny_llama",
    "tiny_qwen3",
    "tiny_t5",
    "tokens",
    "varied_examples",
    "weighed",
]
