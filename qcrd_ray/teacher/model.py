"""The teacher's model before it is hosted: where it lies, and whether its parts belong together.
Reads no weights.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from qcrd_ray.errors import UserError
from qcrd_ray.models.pretrained import demo_model
from qcrd_ray.recipe import ServeTeacher


def resolve_model(model: str) -> str:
    """A folder as an absolute path, `demo` as the shipped teacher's, a hub id as it is.

    Raises:
        UserError: it looks like a folder, and there is none.
    """
    if model == "demo":
        return str(demo_model("teacher"))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise UserError(
            f"teacher.model: there is no folder {folder}; expected a model folder, a hub id"
            " (owner/name) or `demo`"
        )
    return model


@lru_cache(maxsize=4)
def check_model(recipe_model: str, trust_remote_code: bool, tokenizer: str | None = None) -> bool:
    """Whether the teacher's tokenizer has a chat template, after checking that the model can be
    hosted at all.

    Raises:
        UserError: no model or no tokenizer there, or a tokenizer with more tokens than the model
            has embeddings.
    """
    from transformers import AutoConfig, AutoTokenizer

    path = resolve_model(recipe_model)
    config = _load(AutoConfig, path, trust_remote_code, what="model")
    loaded = _load(AutoTokenizer, tokenizer or path, trust_remote_code, what="tokenizer")
    if config.is_encoder_decoder:
        raise UserError(
            f"teacher.model: {path} is an encoder-decoder ({config.model_type}), and vLLM hosts"
            " decoder-only language models"
        )
    embeddings = config.get_text_config().vocab_size
    if len(loaded) > embeddings:
        raise UserError(
            f"teacher.model: the tokenizer in {tokenizer or path} has {len(loaded)} tokens and the"
            f" model {embeddings} embeddings, so they do not belong together; give the model the"
            " tokenizer that it was trained with"
        )
    return bool(loaded.chat_template)


def uses_chat(recipe: ServeTeacher) -> bool:
    """Whether questions are put as chat messages (`teacher.chat`). Raises UserError as
    :func:`check_model` does.
    """
    has_template = check_model(
        recipe.model, recipe.trust_remote_code, recipe.engine_kwargs.get("tokenizer")
    )
    if recipe.chat == "always" and not has_template:
        raise UserError(
            f"teacher.chat: always, and the tokenizer of {recipe.model} has no chat template; set"
            " it to auto or never"
        )
    return recipe.chat != "never" and has_template


def _load(auto, path: str, trust_remote_code: bool, *, what: str):
    try:
        return auto.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"teacher.model: no {what} can be read from {path}: {first}\nExpected a folder with the"
            " files of both."
        ) from error
