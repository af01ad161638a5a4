"""Students on disk: find one by name, say early what is wrong with it, load its model and
tokenizer.

A student is an encoder-decoder or a decoder-only model in Hugging Face form: a folder, a hub id, or
`demo` for the shipped base. Hub ids are looked up in the local cache first, so a machine without a
network can use what it has. Code from a model repository runs only with ``trust_remote_code``.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

import qcrd_ray
from qcrd_ray.errors import UserError
from qcrd_ray.method.student import auto_class

VOCABULARIES = (
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json")

log = logging.getLogger(__name__)
_FAILED: ContextVar[dict[str, OSError] | None] = ContextVar(
    "hub ids that could not be read", default=None
)


def demo_model(name: Literal["teacher", "student"]) -> Path:
    """The folder of a shipped model: ``teacher`` is a decoder-only language model, ``student`` an
    encoder-decoder to be trained further.
    """
    return Path(qcrd_ray.__file__).parent / "demo" / name


@contextmanager
def remember_failures() -> Iterator[None]:
    """`with remember_failures():` -- a hub id that could not be read is not asked for again: a hub out of
    reach is tried for half a minute.
    """
    before = _FAILED.set({})
    try:
        yield
    finally:
        _FAILED.reset(before)


def resolve(model: str | Path) -> str:
    """What `model` in a recipe means to transformers: an absolute folder (`demo`: the shipped
    base), else the hub id as it stands.
    """
    name = str(model)
    if name == "demo":
        return str(demo_model("student"))
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} is not a model folder: it has no config.json. Give the folder that"
                " `save_pretrained` wrote."
            )
        return str(folder.resolve())
    looks_like_a_path = (
        isinstance(model, Path)
        or name.startswith((".", "~", os.sep))
        or name.count("/") > 1
        or folder.is_file()
    )
    if looks_like_a_path or not name:
        raise UserError(
            f"model {name!r}: there is no such folder. Give a Hugging Face model folder, a hub id"
            " (owner/name), or `demo`."
        )
    return name


def check_student(
    model: str | Path, *, trust_remote_code: bool = False
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Read a student's config and tokenizer (no weights) and refuse what could not be trained or
    served.

    Raises UserError for: no model there; a model that writes no text, or that keeps something else
    of a prompt than keys and values; no tokenizer; a tokenizer with more tokens than the model has
    embeddings, with another end-of-sequence token than the model's, or, for an encoder-decoder,
    that does not end a text with it.
    """
    name = resolve(model)
    config = read_config(name, trust_remote_code=trust_remote_code)
    if auto_class(config) is None:
        raise UserError(
            f"model {name}: {config.model_type}"
            f" ({', '.join(config.architectures or ['no architecture named'])}) is neither an"
            " encoder-decoder nor a causal language model. Students are of the T5 family (t5, mt5,"
            " flan-t5, ...) or decoder-only (llama, qwen, ...); config.json says which by"
            " `architectures`."
        )
    if odd := {*(getattr(config, "layer_types", None) or ())} - {
        "full_attention",
        "sliding_attention",
    }:
        raise UserError(
            f"model {name}: its layers ({', '.join(sorted(odd))}) keep no keys and values of a"
            " prompt that its targets could share"
        )
    tokenizer = read_tokenizer(name, config, trust_remote_code=trust_remote_code)
    if config.is_encoder_decoder and tokenizer("a").input_ids[-1] != tokenizer.eos_token_id:
        raise UserError(
            f"model {name}: its tokenizer does not close a text with {tokenizer.eos_token!r}, so a"
            " student could not learn to stop. T5's tokenizers do; give this one a post-processor"
            " that appends it."
        )
    return config, tokenizer


def read_config(model: str | Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of any model. Raises UserError where there is no model."""
    return _from_hub(AutoConfig, resolve(model), trust_remote_code)


def read_tokenizer(
    model: str | Path, config: PretrainedConfig | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model. Raises UserError where there is none or, given the model's config,
    one that it could not write with.
    """
    name = resolve(model)
    if Path(name).is_dir():
        _check_tokenizer_files(name)
    tokenizer = _from_hub(AutoTokenizer, name, trust_remote_code, cached=VOCABULARIES)
    _check_tokenizer_files(name)
    if config is not None:
        _check_match(name, config, tokenizer)
    return tokenizer


def load_student(
    model: str | Path, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checked student, on the CPU and in evaluation mode, with its tokenizer."""
    _, tokenizer = check_student(model, trust_remote_code=trust_remote_code)
    return load_model(model, trust_remote_code=trust_remote_code), tokenizer


def load_model(model: str | Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model alone, from safetensors: a pickled checkpoint is refused, since reading one can run
    foreign code.
    """
    auto = auto_class(read_config(model, trust_remote_code=trust_remote_code))
    return _from_hub(auto, resolve(model), trust_remote_code, use_safetensors=True).eval()


def fingerprint(folder: Path) -> str:
    """What a model folder says depends on: a hash over its configuration, tokenizer and weights,
    and over nothing else in it.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (
            ".json",
            ".safetensors",
            ".model",
            ".txt",
            ".jinja",
        ) and file.name not in (
            "task.json",
            "generation_config.json",
        ):
            with file.open("rb") as content:
                digest.update(
                    f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU that this process sees, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _check_tokenizer_files(name: str) -> None:
    """Where there are none, transformers may make up an empty tokenizer, and says nothing."""
    if not _holds(name, TOKENIZER_FILES):
        raise UserError(
            f"model {_kind(name)} {name} has no tokenizer (no {TOKENIZER_FILES[0]}): save one there"
            " with `tokenizer.save_pretrained`."
        )


def _holds(name: str, files: Sequence[str]) -> bool:
    """Whether any of ``files`` lies in the folder or, of a hub id, in the local cache."""
    if Path(name).is_dir():
        return any((Path(name) / file).is_file() for file in files)
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _kind(name: str) -> str:
    return "folder" if Path(name).is_dir() else "hub id"


def _check_match(name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    embeddings = config.get_text_config().vocab_size
    if len(tokenizer) > embeddings:
        raise UserError(
            f"model {name}: its tokenizer has {len(tokenizer)} tokens, its model only {embeddings}"
            " embeddings: they do not belong together. Save the tokenizer that the model was made"
            " with, or resize the model's embeddings."
        )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id is None or (
        config.eos_token_id is not None and tokenizer.eos_token_id not in ends
    ):
        raise UserError(
            f"model {name}: its tokenizer ends texts with token {tokenizer.eos_token_id}, its"
            f" config says {config.eos_token_id}. Save the tokenizer that the model was made with,"
            " or set eos_token_id in config.json."
        )


def _from_hub(
    auto: type, name: str, trust_remote_code: bool, *, cached: Sequence[str] = (), **kwargs
):
    """``auto.from_pretrained``, from the local cache where it holds the model; what goes wrong
    becomes the user's error.

    ``cached``: the cache is read only if it holds one of these files.
    """
    kwargs["trust_remote_code"] = trust_remote_code
    # a bar for each model that is read would tear up the run's one progress line
    disable_progress_bar()
    try:
        if Path(name).is_dir():
            return auto.from_pretrained(name, local_files_only=True, **kwargs)
        if not cached or _holds(name, cached):
            with suppress(OSError):
                return auto.from_pretrained(name, local_files_only=True, **kwargs)
        return _ask_hub(auto, name, **kwargs)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"model {_kind(name)} {name}: {auto.__name__} cannot read it: {error}"
        ) from error


def _ask_hub(auto: type, name: str, **kwargs):
    failed = _FAILED.get()
    if failed and name in failed:
        raise failed[name]
    log.info("%s is not in the local cache: asking the hub", name)
    try:
        return auto.from_pretrained(name, **kwargs)
    except OSError as error:
        if failed is not None:
            failed[name] = error
        raise
