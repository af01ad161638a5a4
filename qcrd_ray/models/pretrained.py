"""Pretrained models: check one early, load it with its tokenizer. How they are named: ``names``.

A student is an encoder-decoder or a decoder-only model. Hub ids are looked up in the local cache
first, so that a machine without a network can use what it has. Code from a model's folder or
repository runs only with ``trust_remote_code``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from qcrd_ray.data.hub import without_waiting
from qcrd_ray.errors import UserError
from qcrd_ray.method.student import auto_class
from qcrd_ray.models.names import resolve

VOCABULARIES = (
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)
TOKENIZER_FILES = (*VOCABULARIES, "tokenizer_config.json")
log = logging.getLogger(__name__)


# --- Configs and tokenizers: read and checked without weights ---


def check_student(
    model: str | Path, *, trust_remote_code: bool = False
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Read a student's config and tokenizer, and refuse what could not be trained or served.

    Raises:
        UserError: there is no model; it generates no text, or keeps something else of a prompt than
            keys and values; there is no tokenizer; the tokenizer has more tokens than the model has
            embeddings, or another end-of-sequence token, or (encoder-decoder) does not end a text
            with it; a file of weights is damaged.
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
    layers = set(getattr(config, "layer_types", None) or ())
    if unsupported := layers - {"full_attention", "sliding_attention"}:
        raise UserError(
            f"model {name}: its layers ({', '.join(sorted(unsupported))}) keep no keys and values"
            " of a prompt that its targets could share"
        )
    tokenizer = read_tokenizer(name, config, trust_remote_code=trust_remote_code)
    if config.is_encoder_decoder and tokenizer("a").input_ids[-1] != tokenizer.eos_token_id:
        raise UserError(
            f"model {name}: its tokenizer does not close a text with {tokenizer.eos_token!r}, so a"
            " student could not learn to stop. T5's tokenizers do; give this one a post-processor"
            " that appends it."
        )
    if Path(name).is_dir():
        check_weights(Path(name))
    return config, tokenizer


def check_weights(folder: Path) -> None:
    """Read the headers of the safetensors files in ``folder``, which tell their lengths.

    Raises:
        UserError: one is cut short, or is none.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{file} is damaged ({error}); copy the folder again, or make it again"
            ) from error


def read_config(model: str | Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The config of any model.

    Raises:
        UserError: there is no model, or it would have transformers load kernels from the hub.
    """
    name = resolve(model)
    config = _from_pretrained(AutoConfig, name, trust_remote_code)
    for part in (config, *(getattr(config, key) for key in config.sub_configs)):
        # `org/repository` here is compiled code that is fetched and run
        if "/" in str(getattr(part, "_attn_implementation", None)):
            raise UserError(
                f"model {name}: its config.json asks for attention by code from the hub"
                f" ({part._attn_implementation}), which is not run here; take"
                " attn_implementation out of the file"
            )
    return config


def read_tokenizer(
    model: str | Path, config: PretrainedConfig | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        UserError: there is none, or it does not fit the model's ``config``, where that is given.
    """
    name = resolve(model)
    if Path(name).is_dir():
        _check_tokenizer_files(name)
    tokenizer = _from_pretrained(AutoTokenizer, name, trust_remote_code, cached=VOCABULARIES)
    _check_tokenizer_files(name)
    if config is not None:
        check_vocabulary(name, config, tokenizer)
        _check_end_token(name, config, tokenizer)
    return tokenizer


def check_vocabulary(
    name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise UserError if the tokenizer has more tokens than the model has embeddings."""
    embeddings = config.get_text_config().vocab_size
    if len(tokenizer) > embeddings:
        raise UserError(
            f"model {name}: its tokenizer has {len(tokenizer)} tokens and the model {embeddings}"
            " embeddings: they do not belong together. Save the tokenizer that the model was"
            " trained with, or resize the model's embeddings."
        )


def custom_code_files(config: PretrainedConfig) -> list[str]:
    """The Python files of a student's own code, as its `auto_map` names them: `modeling_mine.py`.

    Code in a repository of the hub keeps that prefix (`owner/name--modeling_mine.py`). It runs only
    with ``trust_remote_code``.
    """
    auto_map = getattr(config, "auto_map", None) or {}
    auto = auto_class(config)
    names = ("AutoConfig", auto.__name__ if auto is not None else "")
    classes = [auto_map[name] for name in names if name in auto_map]
    return sorted({f"{path.rpartition('.')[0]}.py" for path in classes})


# --- Weights ---


def load_student(
    model: str | Path, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Check a student and load it, on the CPU and in evaluation mode, with its tokenizer."""
    _, tokenizer = check_student(model, trust_remote_code=trust_remote_code)
    return load_model(model, trust_remote_code=trust_remote_code), tokenizer


def load_model(model: str | Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a student without its tokenizer, on the CPU and in evaluation mode.

    It is read from safetensors: a pickled checkpoint is refused, since reading one can run code.
    """
    config = read_config(model, trust_remote_code=trust_remote_code)
    auto = auto_class(config)
    assert auto is not None, f"{model} is no student; check_student refuses it"
    return _from_pretrained(auto, resolve(model), trust_remote_code, use_safetensors=True).eval()


def pick_device(device: str) -> torch.device:
    """`auto` is the first GPU that this process sees, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


# --- The hub and its local cache ---

_failed_ids: ContextVar[dict[str, OSError] | None] = ContextVar("failed hub ids", default=None)


@contextmanager
def remember_failures() -> Iterator[None]:
    """Within the block, do not ask twice for a hub id that could not be read."""
    token = _failed_ids.set({})
    try:
        yield
    finally:
        _failed_ids.reset(token)


def _from_pretrained(
    auto: type[Any],
    name: str,
    trust_remote_code: bool,
    *,
    cached: Sequence[str] = (),
    **kwargs: Any,
) -> Any:
    """``auto.from_pretrained``, from the local cache where it holds the model.

    Errors of the model become UserError. ``cached``: the cache is read only if it holds one of
    these files.
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
    except Exception as error:  # a broken file shows in any of them: TypeError, Rust's own, ...
        raise UserError(
            f"model {_kind(name)} {name}: {auto.__name__} cannot read it: {_said(error)}"
        ) from error


def _said(error: Exception) -> str:
    """An error's words, under its name where they are few: KeyError says the key alone."""
    said = str(error)
    return said if len(said) > 30 else f"{type(error).__name__}: {said}"


def _ask_hub(auto: type[Any], name: str, **kwargs: Any) -> Any:
    failed = _failed_ids.get()
    if failed and name in failed:
        raise failed[name]
    log.info("%s is not in the local cache: asking the hub", name)
    try:
        with without_waiting():
            return auto.from_pretrained(name, **kwargs)
    except OSError as error:
        if failed is not None:
            failed[name] = error
        raise


def _check_tokenizer_files(name: str) -> None:
    """Raise UserError if there are none: transformers may silently create an empty tokenizer."""
    if not _holds(name, TOKENIZER_FILES):
        raise UserError(
            f"model {_kind(name)} {name} has no tokenizer (no {TOKENIZER_FILES[0]}): save one there"
            " with `tokenizer.save_pretrained`."
        )


def _check_end_token(
    name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id is None or (
        config.eos_token_id is not None and tokenizer.eos_token_id not in ends
    ):
        raise UserError(
            f"model {name}: its tokenizer ends texts with token {tokenizer.eos_token_id}, its"
            f" config says {config.eos_token_id}. Save the tokenizer that the model was trained"
            " with, or set eos_token_id in config.json."
        )


def _holds(name: str, files: Sequence[str]) -> bool:
    """Whether the folder, or a hub id's local cache, holds any of ``files``."""
    if Path(name).is_dir():
        return any((Path(name) / file).is_file() for file in files)
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _kind(name: str) -> str:
    return "folder" if Path(name).is_dir() else "hub id"
