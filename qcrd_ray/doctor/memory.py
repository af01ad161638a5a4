"""The memory that a stage's processes take at their peak, from recipe and model configs alone.

A pure function of configs and recipe sections: no weights are read, no data, no cluster. All texts
are taken as long as the recipe allows, so a run with shorter ones takes less.

**Training**, for a model of P trained parameters on W workers, bytes a parameter and the ZeRO stage
from which W share them (ZeRO: arXiv 1910.02054, section 3; DeepSpeed 0.19.8,
`runtime/zero/stage_1_and_2.py`: the float32 copy exists in float32 training too; `data_types.
grad_accum_dtype: fp32` adds a float32 sum to the gradients of bf16):

    what            fp32      bf16     shared from
    weights         4         2        3
    gradients       4         2 + 4    2
    float32 copy    4 (ZeRO)  4        1
    AdamW moments   8         8        1

and buckets of 50 million gradients. Frozen weights under LoRA have the first line alone.
What a step holds beside these, its activations, logits and new gradients, is counted by running
the package's own step on fake tensors (:mod:`qcrd_ray.doctor.live_bytes`) at one and two layers;
it grows linearly with them. The peak is what stays plus the larger of: the student's step, the
discriminator's step, and AdamW's own temporaries (one float32 a parameter).

**Generation** by transformers, b texts at a time: float32 weights; keys and values of prompt and
text, 2 * layers * kv_heads * head_dim * 4 bytes a token; and 16 bytes a word of the vocabulary for
each text (logits, and what top-p sorts).

**vLLM** takes `gpu_memory_utilization` of each GPU (0.92 in 0.29.0, `vllm/config/cache.py`), in
which weights / (tensor * pipeline parallel) and the cache of at least one text of `max_model_len`
must fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, PretrainedConfig

from qcrd_ray.doctor.live_bytes import step_bytes, student_pass
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.method.student import DROPOUTS, auto_class
from qcrd_ray.recipe import (
    DiscriminatorRecipe,
    SamplingRecipe,
    ServeTeacher,
    StudentRecipe,
    TrainRecipe,
)

BUCKET = 50_000_000  # `training.engines`: gradients that DeepSpeed sends at a time
VLLM_SHARE = 0.92
LABEL_TOKENS = 16  # of a label, at most
_QUANTIZED = {"fp8": 1.0, "awq": 0.5, "gptq": 0.5, "bitsandbytes": 0.5, "compressed-tensors": 1.0}
_OF_TEXTS = ("keys and values", "logits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes of one process at its peak, by what takes them; ``change``: what makes it less."""

    parts: Mapping[str, float]
    change: str

    @property
    def total(self) -> float:
        """All parts together, with texts as long as they may be."""
        return sum(self.parts.values())

    @property
    def kept(self) -> float:
        """What is held however short the texts are."""
        return sum(
            size
            for name, size in self.parts.items()
            if not name.endswith("'s step") and name not in _OF_TEXTS
        )


def training_estimate(
    config: PretrainedConfig,
    judge: PretrainedConfig | None,
    *,
    student: StudentRecipe,
    discriminator: DiscriminatorRecipe,
    train: TrainRecipe,
    sampling: SamplingRecipe,
    candidates: int,
    reference: bool = False,
) -> Estimate:
    """One training worker.

    Args:
        config: of the student.
        judge: of the discriminator's encoder; None: there is no discriminator.
        candidates: rationales of a question, all of which are scored.
        reference: whether a frozen copy of the student scores too.
    """
    questions = min(
        train.micro_batch_size or train.batch_size, -(-train.batch_size // train.workers)
    )
    accumulates = questions * train.workers < train.batch_size
    weights = parameter_count(config)
    frozen = student.lora is not None
    parts = {
        "the student": model_bytes(weights, train, frozen=frozen),
        "its reference": weights * _weight_bytes(train.precision) if reference else 0.0,
    }
    step = _by_layers(
        config,
        lambda shallow: _student_step(
            shallow, student, train, questions=questions, candidates=candidates, frozen=frozen
        ),
    )
    gradients = 0.0 if frozen else weights * _weight_bytes(train.precision)
    steps = {"the student's step": step + (gradients if accumulates and not frozen else 0.0)}
    if judge is not None:
        texts = max(2 * sampling.k, candidates)
        share = -(-discriminator.batch_size // train.workers)
        pairs = max(texts, discriminator.micro_batch_tokens // discriminator.max_tokens)
        pairs = min(pairs, share * texts)
        alone = TrainRecipe(precision=discriminator.precision, zero_stage=0)
        parts["the discriminator"] = model_bytes(parameter_count(judge, encoder=True), alone)
        steps["the discriminator's step"] = _by_layers(
            judge, lambda shallow: _discriminator_step(shallow, discriminator, pairs=pairs)
        )
    steps["AdamW's step"] = 0.0 if frozen else weights * (4.0 + _weight_bytes(train.precision))
    largest = max(steps, key=lambda name: steps[name])
    return Estimate(parts={**parts, largest: steps[largest]}, change=_change(largest, parts, steps))


def model_bytes(parameters: int, train: TrainRecipe, *, frozen: bool = False) -> float:
    """Bytes of a model between two steps on one worker, without gradients that a step makes.

    In bf16 the float32 sums of the gradients stay.
    """
    bf16, stage = train.precision == "bf16", train.zero_stage
    weights = _weight_bytes(train.precision)
    if frozen:
        gradients = copy = moments = 0.0
    else:
        gradients = 4.0 if bf16 else 0.0
        copy = 4.0 if bf16 or stage else 0.0
        moments = 8.0

    def held(amount: float, shared_from: int) -> float:
        return parameters * amount / (train.workers if stage >= shared_from else 1)

    buckets = 2 * 4.0 * min(parameters, BUCKET) if train.workers > 1 and not frozen else 0.0
    return held(weights, 3) + held(gradients, 2) + held(copy + moments, 1) + buckets


def generation_estimate(
    config: PretrainedConfig, *, batch: int, input_tokens: int, output_tokens: int, change: str
) -> Estimate:
    """One process that generates with transformers. ``change``: the key that makes it less."""
    text = config.get_text_config(decoder=True)
    return Estimate(
        parts={
            "weights": 4.0 * parameter_count(config),
            "keys and values": batch * (input_tokens + output_tokens) * _cache_bytes(config, 4.0),
            "logits": 16.0 * batch * text.vocab_size,
        },
        change=f"lower {change}",
    )


def teacher_estimate(config: PretrainedConfig, teacher: ServeTeacher) -> Estimate:
    """What a GPU of a served teacher must hold at least: weights, and one text's cache."""
    options = teacher.engine_kwargs
    ranks = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
    dtype = options.get("dtype", "auto")
    number = 4.0 if dtype in ("float32", "float") else 2.0
    weight = _QUANTIZED.get(options.get("quantization") or "", number)
    text = config.get_text_config(decoder=True)
    length = options.get("max_model_len") or text.max_position_embeddings
    used = options.get("gpu_memory_utilization", VLLM_SHARE)
    return Estimate(
        parts={
            "weights": weight * parameter_count(config) / ranks / used,
            "one text's cache": _cache_bytes(config, number) * length / ranks / used,
        },
        change=(
            "raise teacher.engine_kwargs.tensor_parallel_size, or lower its max_model_len, or take"
            " a smaller or quantized model"
        ),
    )


def parameter_count(config: PretrainedConfig, *, encoder: bool = False) -> int:
    """Parameters of a model, or of its encoder alone; no weight is read."""
    with torch.device("meta"):
        model = _build(config)
    if encoder:
        model = model.get_encoder() if config.is_encoder_decoder else model.base_model
    return sum(weight.numel() for weight in model.parameters())


def _build(config: PretrainedConfig) -> Any:
    auto: Any = auto_class(config) or AutoModel
    # a class of the model's own code is there only where the user trusted it
    trusted = type(config).__module__.startswith("transformers_modules")
    return auto.from_config(config, dtype=torch.get_default_dtype(), trust_remote_code=trusted)


def _weight_bytes(precision: str) -> float:
    return 2.0 if precision == "bf16" else 4.0


def _cache_bytes(config: PretrainedConfig, number: float) -> float:
    """Bytes of the keys and values of one token."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or getattr(text, "d_kv", None)
    width = width or text.hidden_size // text.num_attention_heads
    layers = getattr(text, "num_decoder_layers", None) or text.num_hidden_layers
    return 2 * layers * heads * width * number


def _by_layers(config: PretrainedConfig, measure: Any) -> float:
    """``measure`` of the whole model, from what it is at one and at two layers."""
    one, two = (measure(_shallow(config, layers)) for layers in (1, 2))
    return one + (two - one) * (config.num_hidden_layers - 1)


def _shallow(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The same model with so many layers; a decoder of another depth than its encoder in ratio."""
    shallow = deepcopy(config)
    decoder = getattr(config, "num_decoder_layers", None)
    if decoder:
        shallow.num_decoder_layers = max(1, round(layers * decoder / config.num_hidden_layers))
    if getattr(config, "layer_types", None):
        shallow.layer_types = config.layer_types[:layers]
    shallow.num_hidden_layers = layers
    return shallow


def _student_step(
    config: PretrainedConfig,
    student: StudentRecipe,
    train: TrainRecipe,
    *,
    questions: int,
    candidates: int,
    frozen: bool,
) -> float:
    if student.dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, student.dropout)
    with FakeTensorMode(), _numbers_of(train.precision):
        model = _prepared(_build(config), student.gradient_checkpointing)
        if frozen:  # activations are kept for the adapters' inputs, which this keeps too
            model.requires_grad_(False)
            for weight in model.get_input_embeddings().parameters():
                weight.requires_grad_(True)
        return step_bytes(
            model,
            student_pass(
                model,
                questions=questions,
                candidates=candidates,
                input_tokens=student.max_input_tokens,
                label_tokens=min(LABEL_TOKENS, student.max_target_tokens),
                target_tokens=student.max_target_tokens,
            ),
        )


def _discriminator_step(
    config: PretrainedConfig, recipe: DiscriminatorRecipe, *, pairs: int
) -> float:
    with FakeTensorMode(), _numbers_of(recipe.precision):
        model = AutoModel.from_config(config, dtype=torch.get_default_dtype())
        judge = Discriminator.from_model(
            model, hidden=recipe.hidden, dropout=recipe.dropout, layers=recipe.layers
        )
        _prepared(judge.encoder, recipe.gradient_checkpointing)
        tokens = torch.zeros(pairs, recipe.max_tokens, dtype=torch.long)
        return step_bytes(judge, lambda: judge(tokens, torch.ones_like(tokens)).sum())


@contextmanager
def _numbers_of(precision: str) -> Iterator[None]:
    """Make weights in this precision: fake ones cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if precision == "bf16" else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _prepared(model: Any, checkpointing: bool) -> Any:
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _change(largest: str, parts: Mapping[str, float], steps: Mapping[str, float]) -> str:
    """The keys that make the largest part of a training worker's memory less."""
    if largest == "the discriminator's step":
        return (
            "lower discriminator.micro_batch_tokens, or set discriminator.gradient_checkpointing or"
            " discriminator.precision: bf16"
        )
    if largest == "the student's step" and steps[largest] > sum(parts.values()):
        return (
            "lower train.micro_batch_size, or set student.gradient_checkpointing or"
            " train.precision: bf16"
        )
    return (
        "raise train.workers with train.zero_stage, or set train.precision: bf16 or student.lora,"
        " or take a smaller student"
    )
