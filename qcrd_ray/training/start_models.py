"""Where a training starts: a pretrained student, or a small random one with a tokenizer trained on
the questions (`student.scratch`).

Either is written to one folder of the run, so that workers and samplers on any node, both
objectives, and the evaluation of the base
read the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.student import load_student
from qcrd_ray.method.tokenization import chat_frame, tokenise_inputs
from qcrd_ray.models.pretrained import check_student, read_tokenizer, resolve
from qcrd_ray.recipe import DiscriminatorRecipe, StudentRecipe
from qcrd_ray.training.lora import check_lora

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2 as in T5
# T5's blanks; the first masks words for the discriminator
_SENTINELS = tuple(f"<extra_id_{i}>" for i in range(4))

# A decoder-only student's chat template, once frozen: what stands before a question, and after it
# up to where the student writes.
_FRAME = (
    "{{% for message in messages %}}{{{{ {before} + message['content'] + {after} }}}}{{% endfor %}}"
)


def check_start(student: StudentRecipe, discriminator: DiscriminatorRecipe) -> None:
    """Refuse models that cannot be trained, before anything is started.

    Raises:
        UserError: no such model, no tokenizer, a tokenizer that does not belong to the student,
            texts too long for it, or adapters that it cannot have.
    """
    config = None
    if student.model is not None:
        config, tokenizer = check_student(
            student.model, trust_remote_code=student.trust_remote_code
        )
        _check_chat(student, config, tokenizer)
        _check_lengths(student, config)
    if student.lora is not None:
        check_lora(student.lora, config)
    if discriminator.model is not None:
        try:
            read_tokenizer(discriminator.model)
        except UserError as error:
            raise UserError(f"discriminator.model: {error}") from error


def _check_chat(
    student: StudentRecipe, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    if config.is_encoder_decoder and student.chat == "always":
        raise UserError(
            f"student.chat: {student.model} is an encoder-decoder, which reads questions as they"
            " are; leave it at auto"
        )
    if student.chat == "always" and not tokenizer.chat_template:
        raise UserError(
            f"student.chat: always, and the tokenizer of {student.model} has no chat template; set"
            " it to auto or never"
        )
    if not config.is_encoder_decoder and student.chat != "never":
        try:
            tokenise_inputs(
                tokenizer, ["a" * student.max_input_tokens], max_tokens=student.max_input_tokens
            )
        except (ValueError, TemplateError) as error:
            raise UserError(f"student.chat: {error}; set it to never") from error


def _check_lengths(student: StudentRecipe, config: PretrainedConfig) -> None:
    """A decoder-only model has places for a prompt and its target together; beyond a sliding window
    a target would not see its prompt.
    """
    needed = student.max_input_tokens + student.max_target_tokens
    limits = {
        name: getattr(config, name, None) or needed
        for name in ("max_position_embeddings", "sliding_window")
    }
    name, limit = min(limits.items(), key=lambda item: item[1])
    if limit < needed and not config.is_encoder_decoder:
        raise UserError(
            f"student.max_input_tokens + student.max_target_tokens is {needed}, and {student.model}"
            f" reads {limit} tokens ({name} in its config.json): lower them to {limit} together"
        )


def write_start(
    student: StudentRecipe, folder: Path, *, texts: Iterable[str], seed: int
) -> PreTrainedTokenizerBase:
    """Write the student that training starts from (model, tokenizer, the recipe's dropout) to
    ``folder``; keep what lies there whole.

    ``texts`` train the tokenizer of a `scratch` student. Returns the tokenizer.
    """
    if not (folder / "config.json").exists():
        writing = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(writing, ignore_errors=True)
        if student.model is not None:
            name = resolve(student.model)
            config, tokenizer = check_student(name, trust_remote_code=student.trust_remote_code)
            if config.is_encoder_decoder:
                tokenizer.chat_template = None
            else:
                frame_questions(tokenizer, chat=student.chat)
            model = load_student(
                name, dropout=student.dropout, trust_remote_code=student.trust_remote_code
            )
        else:
            tokenizer = train_tokenizer(
                texts, student.scratch.vocabulary, closes=student.scratch.kind == "t5"
            )
            if student.scratch.kind == "llama":
                frame_questions(tokenizer, chat="never")
            model = scratch_model(student, tokenizer, seed=seed)
        model.save_pretrained(writing)
        tokenizer.save_pretrained(writing)
        shutil.rmtree(folder, ignore_errors=True)
        writing.rename(folder)  # a killed run never leaves half a model behind
    _, tokenizer = check_student(folder, trust_remote_code=student.trust_remote_code)
    return tokenizer


def frame_questions(tokenizer: PreTrainedTokenizerBase, *, chat: str) -> None:
    """Give a decoder-only student's tokenizer, in place, all that its readers go by: a chat
    template (see :mod:`qcrd_ray.method.tokenization`) and something to pad with.

    The template is the model's own as it shows a question today, since templates put the date in;
    where there is none, or not ``chat``,
    it is the line that the question stands on.
    """
    if chat != "never" and tokenizer.chat_template:
        before, after = chat_frame(tokenizer)
    else:
        begins = bool(tokenizer.bos_token) and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        before, after = tokenizer.bos_token if begins else "", "\n"
    tokenizer.chat_template = _FRAME.format(before=_literal(before), after=_literal(after))
    # padding is masked, so any token will do; one more would need an embedding
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _literal(text: str) -> str:
    """``text`` as a string of the template language, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


def scratch_model(
    student: StudentRecipe, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> PreTrainedModel:
    """A random student of the recipe's size; the same weights for the same seed, and the global
    random state untouched.
    """
    build = {"t5": _scratch_t5, "llama": _scratch_llama}[student.scratch.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "scratch student"))
        return build(student, tokenizer)


def _scratch_t5(
    student: StudentRecipe, tokenizer: PreTrainedTokenizerBase
) -> T5ForConditionalGeneration:
    recipe = student.scratch
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=recipe.d_model,
        d_kv=max(1, recipe.d_model // recipe.heads),
        d_ff=recipe.d_ff,
        num_layers=recipe.layers,
        num_decoder_layers=recipe.layers,
        num_heads=recipe.heads,
        dropout_rate=0.1 if student.dropout is None else student.dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config)


def _scratch_llama(student: StudentRecipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    recipe = student.scratch
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.d_model,
        head_dim=max(32, recipe.d_model // recipe.heads),  # vLLM's kernels take no less
        intermediate_size=recipe.d_ff,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=student.max_input_tokens + student.max_target_tokens,
        attention_dropout=student.dropout or 0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, *, closes: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer on ``texts``: digits stand alone (arithmetic), any text decodes back
    exactly, EOS closes every text (unless
    not ``closes``).
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS, UNKNOWN, *_SENTINELS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if closes:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}",
            pair=f"$A {EOS} $B {EOS}",
            special_tokens=[(EOS, tokenizer.token_to_id(EOS))],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens=list(_SENTINELS),
    )
