"""The student that a training starts from: a pretrained one, or a small random one.

The random one (`student.scratch`) has a tokenizer that is trained on the questions. Either is
written to one folder of the run, so that workers and samplers on any node, all objectives, and the
evaluation of the base read the same weights. So is the discriminator's model, where it has one of
its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import torch
from huggingface_hub import list_repo_files, try_to_load_from_cache
from jinja2 import TemplateError
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
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
from qcrd_ray.method.tokenization import chat_frame, eos_id, pad_id, tokenize_inputs
from qcrd_ray.models.names import resolve
from qcrd_ray.models.pretrained import check_student, read_config, read_tokenizer
from qcrd_ray.recipe import DiscriminatorRecipe, StudentRecipe
from qcrd_ray.runs.files import atomic_folder
from qcrd_ray.training.lora import check_lora

log = logging.getLogger(__name__)

# A tokenizer is trained on so many texts at most: those of some 20,000 questions, which are in no
# order, since shards are chosen by a hash. More would not change it, and take hours at a million.
TOKENIZER_TEXTS = 200_000
PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2 as in T5
_SAFE = ("model.safetensors", "model.safetensors.index.json")
# the first masks words for the discriminator
_SENTINELS = tuple(f"<extra_id_{i}>" for i in range(4))

# A decoder-only student's chat template: fixed texts before and after a question.
_FRAME = (
    "{{% for message in messages %}}{{{{ {before} + message['content'] + {after} }}}}{{% endfor %}}"
)


def check_start(student: StudentRecipe, discriminator: DiscriminatorRecipe) -> None:
    """Refuse models that cannot be trained, before anything is started.

    The discriminator's own model may bring no code: `student.trust_remote_code` is for the student,
    and for the discriminator that starts from it.

    Raises:
        UserError: no such model, code of its own that is not trusted, no tokenizer, a tokenizer
            that does not belong to the student, weights that are not in safetensors, texts too long
            for it, adapters that it cannot have, or a discriminator of more layers than it has.
    """
    config = None
    if student.model is not None:
        with _named_key("student.trust_remote_code", student.model):
            config, tokenizer = check_student(
                student.model, trust_remote_code=student.trust_remote_code
            )
        check_weights(student.model, key="student.model")
        _check_chat(student, config, tokenizer)
        _check_lengths(student, config)
    if student.lora is not None:
        check_lora(student.lora, config, trust_remote_code=student.trust_remote_code)
    if discriminator.model is not None:
        try:
            read_tokenizer(discriminator.model)
            config = read_config(discriminator.model)
        except UserError as error:
            raise UserError(f"discriminator.model: {error}") from error
        check_weights(discriminator.model, key="discriminator.model")
    if config is not None:
        layers = config.num_hidden_layers
    else:
        assert student.scratch is not None
        layers = student.scratch.layers
    if discriminator.layers is not None and discriminator.layers > layers:
        raise UserError(
            f"discriminator.layers: its encoder has {layers} layers, not {discriminator.layers}"
        )


def check_weights(model: str, *, key: str) -> None:
    """Say early of a model whose weights are pickled what a run would know only at its training.

    The hub can convert weights while it is asked, so of a hub's model this is a warning. A hub out
    of reach says nothing of the model.

    Raises:
        UserError: a folder has no weights in safetensors; it names the recipe's ``key``.
    """
    name = resolve(model)
    is_folder = Path(name).is_dir()
    if is_folder:
        files = [file.name for file in Path(name).iterdir()]
    elif any(isinstance(try_to_load_from_cache(name, file), str) for file in _SAFE):
        return
    else:
        try:
            files = list_repo_files(name)
        except (OSError, ValueError, httpx.HTTPError):
            return
    pickled = sorted(file for file in files if file.endswith(".bin"))
    if not pickled or any(file.endswith(".safetensors") for file in files):
        return
    missing = (
        f"{key}: {name} has no {_SAFE[0]}, only {pickled[0]}, which can run code when it is read."
    )
    mend = (
        "convert it once where you trust it: load it with transformers, write it to a folder with"
        f" `save_pretrained`, and give {key} that folder"
    )
    if is_folder:
        raise UserError(f"{missing} {mend[0].upper()}{mend[1:]}")
    log.warning("%s The hub is asked for a conversion of it; if it has none, %s", missing, mend)


@contextmanager
def _named_key(key: str, model: str) -> Iterator[None]:
    """Name the recipe's key that allows the code of ``model``, where it has code of its own."""
    try:
        yield
    except UserError as error:
        if "trust_remote_code" not in str(error):  # the argument that transformers asks for
            raise
        raise UserError(
            f"{key}: {model} brings Python code of its own (auto_map in its config.json). Read that"
            f" code, then set {key} to true to run it on every machine that loads the model"
        ) from error


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
            tokenize_inputs(
                tokenizer, ["a" * student.max_input_tokens], max_tokens=student.max_input_tokens
            )
        except (ValueError, TemplateError) as error:
            raise UserError(f"student.chat: {error}; set it to never") from error


def _check_lengths(student: StudentRecipe, config: PretrainedConfig) -> None:
    """Refuse limits that a decoder-only model cannot hold.

    It has positions for a prompt and its target together, and beyond a sliding window a target
    would not see its prompt.
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
    """Write the student that training starts from to ``folder``, unless one is there.

    That is the model, its code if it has any, the tokenizer, and the recipe's dropout. ``texts``
    train the tokenizer of a `scratch` student. Returns the tokenizer.
    """
    if not (folder / "config.json").exists():
        if student.model is not None:
            model, tokenizer = _pretrained_start(student, resolve(student.model))
        else:
            model, tokenizer = _scratch_start(student, texts, seed=seed)
        with atomic_folder(folder) as writing:
            model.save_pretrained(writing)
            tokenizer.save_pretrained(writing)
    _, tokenizer = check_student(folder, trust_remote_code=student.trust_remote_code)
    return tokenizer


def write_discriminator_start(model: str, folder: Path) -> None:
    """Write the discriminator's own model and its tokenizer to ``folder``, unless one is there.

    So that the driver is the only one that asks the hub, and says early what is missing.

    Raises:
        UserError: the model cannot be read.
    """
    if (folder / "config.json").exists():
        return
    name = resolve(model)
    read_config(name)
    tokenizer = read_tokenizer(name)
    try:
        encoder = AutoModel.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"discriminator.model: {name} cannot be read: {error}") from error
    with atomic_folder(folder) as writing:
        encoder.save_pretrained(writing)
        tokenizer.save_pretrained(writing)


def _pretrained_start(
    student: StudentRecipe, model: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    trust = student.trust_remote_code
    config, tokenizer = check_student(model, trust_remote_code=trust)
    if config.is_encoder_decoder:
        tokenizer.chat_template = None
    else:
        frame_questions(tokenizer, chat=student.chat)
    return load_student(model, dropout=student.dropout, trust_remote_code=trust), tokenizer


def _scratch_start(
    student: StudentRecipe, texts: Iterable[str], *, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    scratch = student.scratch
    assert scratch is not None  # the recipe has one of `model` and `scratch`
    some = islice(texts, TOKENIZER_TEXTS)
    tokenizer = train_tokenizer(some, scratch.vocabulary, closes=scratch.kind == "t5")
    if scratch.kind == "llama":
        frame_questions(tokenizer, chat="never")
    return scratch_model(student, tokenizer, seed=seed), tokenizer


def frame_questions(tokenizer: PreTrainedTokenizerBase, *, chat: str) -> None:
    """Give a decoder-only student's tokenizer a chat template and a padding token, in place.

    All that read the student's folder follow them (:mod:`qcrd_ray.method.tokenization`). The
    template is the model's own as it shows a question today, since templates put the date in. Where
    there is none, or ``chat`` is "never", the question stands on a line of its own.
    """
    if chat != "never" and tokenizer.chat_template:
        before, after = chat_frame(tokenizer)
    else:
        begins = bool(tokenizer.bos_token) and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
        before, after = str(tokenizer.bos_token) if begins else "", "\n"
    tokenizer.chat_template = _FRAME.format(before=_literal(before), after=_literal(after))
    # padding is masked, so any token will do; one more would need an embedding
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _literal(text: str) -> str:
    """``text`` as a string literal of the template language, whose escapes are JSON's."""
    return json.dumps(text, ensure_ascii=False)


def scratch_model(
    student: StudentRecipe, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> PreTrainedModel:
    """A random student of the recipe's size: the same weights for the same seed.

    The global random state stays as it is.
    """
    assert student.scratch is not None
    build = {"t5": _scratch_t5, "llama": _scratch_llama}[student.scratch.kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_seed(seed, "scratch student"))
        return build(student, tokenizer)


def _scratch_t5(
    student: StudentRecipe, tokenizer: PreTrainedTokenizerBase
) -> T5ForConditionalGeneration:
    recipe = student.scratch
    assert recipe is not None
    pad = pad_id(tokenizer)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=recipe.d_model,
        d_kv=max(1, recipe.d_model // recipe.heads),
        d_ff=recipe.d_ff,
        num_layers=recipe.layers,
        num_decoder_layers=recipe.layers,
        num_heads=recipe.heads,
        dropout_rate=0.1 if student.dropout is None else student.dropout,
        pad_token_id=pad,
        eos_token_id=eos_id(tokenizer),
        # of every configuration, though its signature does not show it
        decoder_start_token_id=pad,  # pyright: ignore[reportCallIssue]
    )
    return T5ForConditionalGeneration(config)


def _scratch_llama(student: StudentRecipe, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    recipe = student.scratch
    assert recipe is not None
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
        pad_token_id=pad_id(tokenizer),
        bos_token_id=eos_id(tokenizer),
        eos_token_id=eos_id(tokenizer),
    )
    return LlamaForCausalLM(config)


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, *, closes: bool = True
) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer trained on ``texts``.

    Each digit is a token (arithmetic), any text decodes back exactly, and EOS closes every text if
    ``closes``.
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
