"""The served teacher's model before it is hosted: its name, and whether its parts fit each other.

Reads no weights. A hub id is looked up in the local cache first, as a student's is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from qcrd_ray.errors import UserError
from qcrd_ray.models.names import resolve_teacher
from qcrd_ray.recipe import ServeTeacher


def uses_chat(recipe: ServeTeacher) -> bool:
    """Whether questions are put as chat messages (`teacher.chat`).

    Raises:
        UserError: as :func:`check_model`; or `chat: always` with a tokenizer without a template.
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


@lru_cache(maxsize=4)
def check_model(model: str, trust_remote_code: bool, tokenizer: str | None = None) -> bool:
    """Check that vLLM can host the model; return whether its tokenizer has a chat template.

    Args:
        tokenizer: `teacher.engine_kwargs.tokenizer`; None: the model's own.

    Raises:
        UserError: there is no model or no tokenizer, the model is an encoder-decoder, or the
            tokenizer has more tokens than the model has embeddings.
    """
    # transformers, which takes seconds to import: not for an actor that asks
    from qcrd_ray.models.pretrained import check_vocabulary, read_config, read_tokenizer

    name = resolve_teacher(model)
    with _teacher_error(f"no model can be read from {name}: "):
        config = read_config(name, trust_remote_code=trust_remote_code)
    with _teacher_error(f"no tokenizer can be read from {tokenizer or name}: "):
        loaded = read_tokenizer(tokenizer or name, trust_remote_code=trust_remote_code)
    if config.is_encoder_decoder:
        raise UserError(
            f"teacher.model: {name} is an encoder-decoder ({config.model_type}), and vLLM hosts"
            " decoder-only language models"
        )
    with _teacher_error():
        check_vocabulary(name, config, loaded)
    return bool(loaded.chat_template)


@contextmanager
def _teacher_error(problem: str = "") -> Iterator[None]:
    """Put the recipe's key, and the ``problem``, before a UserError's text."""
    try:
        yield
    except UserError as error:
        raise UserError(f"teacher.model: {problem}{error}") from error
